"""Failures of live traffic as named modes, and rows of them for a person to accept.

A mode is a subgroup of the requests in which bad and doubtful answers stand out: found on one half of
the requests and confirmed on the other (`discover_slices`), named by what its members share.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
from scipy.stats import fisher_exact

from jettison.errors import NotEnoughData
from jettison.evaluate.features import TextFeatures
from jettison.evaluate.suites.discover import FoundSlice, discover_slices, telling_words, words_of
from jettison.evaluate.suites.tier import rng_of
from jettison.files import value_sha256, write_atomic
from jettison.monitor.failures import BAD, Request, requests_of
from jettison.monitor.log import TrafficLog
from jettison.record import Record
from jettison.stats.binomial import clopper_pearson
from jettison.task import Example, Task
from jettison.task.examples import text_key
from jettison.task.pii import mask
from jettison.task.similar import near_duplicates
from jettison.traffic import Feedback

MOST_SEARCHED = 20_000
"""Requests searched at once: the newest, since a mode that is over needs no mending."""
SHOWN = 8
_TREND = 0.01


class Agreement(msgspec.Struct, frozen=True, kw_only=True):
    """How often something held, with its exact 95 % interval."""

    share: float
    low: float
    high: float
    n: int


class Mode(msgspec.Struct, frozen=True, kw_only=True):
    """A named failure mode: requests that share something and are answered worse than the rest."""

    name: str
    """As a value of the slice column `failure`."""
    title: str
    """What its members share, in words."""
    rule: dict[str, str]
    """By which other requests are told to be of it; empty where only a cluster says so."""
    keywords: tuple[str, ...]
    n: int
    """Requests of the window in it."""
    share: float
    n_bad: int
    n_doubtful: int
    reasons: dict[str, int]
    """Reason → requests; one request may have several."""
    severity: float
    """Mean on requests that were not searched: 1 for a bad answer, 0.5 for a doubtful one."""
    rest_severity: float
    p_value: float
    """Adjusted for all subgroups tested."""
    trend: str
    """Share in the later half of the window against the earlier: `new`, `rising`, `falling`, `steady`."""
    share_before: float
    share_after: float
    incumbent_right: Agreement | None
    """Of those with a label, how many the incumbent answers rightly; None where it answered none."""
    lean_agrees: Agreement | None
    """Of those both answered, how often the lean model says what the incumbent says."""
    examples: tuple[str, ...]
    """Texts of suspected requests, masked, unlike one another."""


class Proposal(msgspec.Struct, frozen=True, kw_only=True):
    """One row for a person: `accept` is theirs to set, and `label` to correct."""

    mode: str
    id: str
    text: str
    label: str | None
    """The best that is known of the right answer."""
    label_from: str | None
    """`feedback`, `incumbent`, or None: nobody has answered it."""
    output: str | None
    """What was returned then."""
    reasons: tuple[str, ...]
    accept: bool | None = None


class Mined(msgspec.Struct, frozen=True, kw_only=True):
    """What a search of the log came to."""

    n_requests: int
    """With a text, in the window."""
    n_searched: int
    n_bad: int
    n_doubtful: int
    first: float
    last: float
    """Of the window, seconds since the epoch."""
    modes: tuple[Mode, ...]
    """Worst first."""
    n_outside: int
    """Bad or doubtful requests in no mode: scattered, or too few to tell."""
    n_known: int
    """Members left out of the proposals because the task has their text already, or nearly."""
    notes: tuple[str, ...]
    alpha: float


@dataclass(frozen=True, kw_only=True)
class Found:
    """Modes, and the rows proposed for them."""

    mined: Mined
    proposals: tuple[Proposal, ...]


def read_requests(state: Path, *, since: float = 0.0, low_confidence: float = 0.5) -> tuple[Request, ...]:
    """Requests of a gateway's log whose texts were kept.

    Args:
        state: The log's folder, or the gateway's state folder.
        since: Earlier ones are left out, seconds since the epoch.
        low_confidence: An answer below it is doubtful.

    Raises:
        InvalidInput: There is no log.
        BrokenArtifact: It cannot be read.
    """
    log, place = TrafficLog(state), None
    records: list[Record] = []
    feedback: list[Feedback] = []
    while True:
        news = log.read(place)
        records += [one for one in news.records if (one.time or 0.0) >= since]
        feedback += news.feedback
        place = news.place
        if news.is_all:
            return requests_of(records, feedback, low_confidence=low_confidence)


def mine(
    requests: Sequence[Request],
    task: Task | None = None,
    *,
    rows: int = 300,
    alpha: float = 0.05,
    seed: int = 0,
) -> Found:
    """Search for failure modes.

    Args:
        requests: Of the window, oldest first.
        task: Whose texts are not proposed again, and whose labels are the only ones proposed.
        rows: At most so many proposals of each mode, drawn from all its members whatever was answered,
            so that what is measured on them is the mode and not the suspicion.
        alpha: Chance that any mode is reported where bad answers are spread evenly.
        seed: Of the halves, the clusters and the draw.

    Raises:
        NotEnoughData: Fewer than 80 requests have a text.
    """
    searched = list(requests[-MOST_SEARCHED:])
    if len(searched) < 80:
        raise NotEnoughData(
            f"a search for failures needs at least 80 requests with their texts, got {len(searched)}. "
            "Serve with `--log-text keep`, or wait for more."
        )
    examples = [
        Example(id=one.id, input=one.text, expected=one.output, slices=one.slices) for one in searched
    ]
    severity = np.array([one.severity for one in searched])
    discovered = discover_slices(examples, severity, alpha=alpha, seed=seed)
    words = [words_of(one.text) for one in searched]
    background = Counter(word for own in words for word in own)
    modes, taken = [], np.zeros(len(searched), bool)
    members: dict[str, list[int]] = {}
    for one in discovered.found:
        inside = np.zeros(len(searched), bool)
        inside[list(one.members)] = True
        telling = telling_words(inside, words, background, most=8)
        name = _free_name(one, telling, members)
        modes.append(_mode(name, one, telling, searched, inside))
        members[name] = list(one.members)
        taken |= inside
    proposals, n_known, notes = _proposals(searched, members, task, rows=rows, seed=seed)
    bad = np.array([any(r in BAD for r in one.reasons) for one in searched])
    mined = Mined(
        n_requests=len(requests),
        n_searched=len(searched),
        n_bad=int(bad.sum()),
        n_doubtful=int(((severity > 0) & ~bad).sum()),
        first=searched[0].time,
        last=searched[-1].time,
        modes=tuple(sorted(modes, key=lambda mode: -mode.severity * mode.n)),
        n_outside=int(((severity > 0) & ~taken).sum()),
        n_known=n_known,
        notes=tuple(notes),
        alpha=alpha,
    )
    return Found(mined=mined, proposals=proposals)


def _mode(
    name: str, found: FoundSlice, telling: str, requests: Sequence[Request], inside: np.ndarray
) -> Mode:
    mine = [one for one, is_in in zip(requests, inside, strict=True) if is_in]
    half = len(requests) // 2
    before, after = int(inside[:half].sum()), int(inside[half:].sum())
    labelled = [one for one in mine if one.label is not None and one.incumbent is not None]
    compared = [one for one in mine if one.lean is not None and one.incumbent is not None]
    n_bad = sum(one.severity == 1.0 for one in mine)
    return Mode(
        name=name,
        title=_title(found, telling),
        rule=found.where,
        keywords=tuple(telling.split(", ")) if telling else (),
        n=len(mine),
        share=len(mine) / len(requests),
        n_bad=n_bad,
        n_doubtful=sum(one.severity > 0 for one in mine) - n_bad,
        reasons=dict(Counter(reason for one in mine for reason in one.reasons).most_common()),
        severity=found.loss,
        rest_severity=found.rest_loss,
        p_value=found.p_value,
        trend=_trend(before, half, after, len(requests) - half),
        share_before=before / max(half, 1),
        share_after=after / max(len(requests) - half, 1),
        incumbent_right=_agreement(sum(one.incumbent == one.label for one in labelled), len(labelled)),
        lean_agrees=_agreement(sum(one.lean == one.incumbent for one in compared), len(compared)),
        examples=_telling_examples([one.text for one in mine if one.reasons]),
    )


def _title(found: FoundSlice, telling: str) -> str:
    if found.rule == "label":
        return f"answered {found.where['expected']!r}"
    if found.rule == "cluster":
        return f"texts like “{telling}”"
    return found.name


def _free_name(found: FoundSlice, telling: str, taken: dict[str, list[int]]) -> str:
    basis = telling if found.rule == "cluster" else found.name
    name = "-".join(re.findall(r"\w+", basis.lower())[:4]) or "mode"
    number = 2
    free = name
    while free in taken:
        free, number = f"{name}-{number}", number + 1
    return free


def _trend(before: int, n_before: int, after: int, n_after: int) -> str:
    table = [[before, n_before - before], [after, n_after - after]]
    if min(n_before, n_after) == 0 or fisher_exact(table).pvalue > _TREND:
        return "steady"
    if after / n_after < before / n_before:
        return "falling"
    return "new" if before <= 0.1 * after * n_before / n_after else "rising"


def _agreement(hits: int, n: int) -> Agreement | None:
    if n == 0:
        return None
    interval = clopper_pearson(hits, n)
    return Agreement(share=hits / n, low=interval.low, high=interval.high, n=n)


def _telling_examples(texts: Sequence[str]) -> tuple[str, ...]:
    """Texts near the middle of all of them, each unlike those before it; personal data masked."""
    distinct = list(dict.fromkeys(texts))[:2000]
    if not distinct:
        return ()
    rows = TextFeatures(distinct).rows
    center = np.asarray(rows.mean(axis=0)).ravel()
    order = np.argsort(-np.asarray(rows @ center).ravel(), kind="stable").tolist()
    chosen: list[int] = []
    for i in order:
        if all(float((rows[[i]] @ rows[[j]].T).toarray().item()) < 0.6 for j in chosen):
            chosen.append(i)
        if len(chosen) == SHOWN:
            break
    shown, _ = mask(tuple(distinct[i] for i in chosen))
    return tuple(shown)


def _proposals(
    requests: Sequence[Request],
    members: dict[str, list[int]],
    task: Task | None,
    *,
    rows: int,
    seed: int,
) -> tuple[tuple[Proposal, ...], int, list[str]]:
    known = _known_texts(task)
    n_known, notes = 0, list[str]()
    found: list[Proposal] = []
    for name, positions in members.items():
        distinct: dict[str, tuple[int, str]] = {}
        for position in positions:
            # Masked before anything is made of it: an id must not tell an address either.
            (text,), _ = mask((requests[position].text,))
            distinct.setdefault(text_key(text), (position, text))
        fresh = [key for key in distinct if key not in known]
        fresh = _unlike(fresh, known)
        n_known += len(distinct) - len(fresh)
        order = rng_of(seed, "rows", name).permutation(len(fresh))[:rows]
        drawn = sorted(distinct[fresh[i]] for i in order.tolist())
        unlabelled = 0
        for position, text in drawn:
            one = requests[position]
            label, source = one.right_answer
            if task is not None and task.kind == "classify" and label is not None:
                allowed = {*task.labels, task.out_of_scope}
                label, source = (label, source) if label in allowed else (None, None)
            unlabelled += label is None
            found.append(
                Proposal(
                    mode=name,
                    id=f"live-{value_sha256(text_key(text))[:12]}",
                    text=text,
                    label=label,
                    label_from=source,
                    output=one.output,
                    reasons=one.reasons,
                )
            )
        if unlabelled:
            notes.append(f"{name}: {unlabelled} of {len(drawn)} rows have no answer to go by; label them.")
    return tuple(found), n_known, notes


def _known_texts(task: Task | None) -> set[str]:
    if task is None:
        return set()
    splits = (task.train, task.dev, task.test_for_inspection())
    return {text_key(example.input) for split in splits for example in split}


def _unlike(fresh: Sequence[str], known: set[str]) -> list[str]:
    """Those that nearly equal no known text, and no other of themselves that stands before."""
    texts = [*known, *fresh]
    left_out: set[int] = set()
    for pair in near_duplicates(texts):
        if pair.second >= len(known) and pair.first not in left_out:
            left_out.add(pair.second)
    return [text for i, text in enumerate(texts) if i >= len(known) and i not in left_out]


def write_found(folder: Path, found: Found) -> None:
    """Write `failures.json`, `failures.md` and `proposed.jsonl`."""
    write_atomic(folder / "failures.json", msgspec.json.format(msgspec.json.encode(found.mined), indent=2))
    write_atomic(folder / "failures.md", told(found.mined))
    lines = b"".join(msgspec.json.encode(one) + b"\n" for one in found.proposals)
    write_atomic(folder / "proposed.jsonl", lines)


def told(mined: Mined) -> str:
    """The modes in words, as Markdown."""
    lines = [
        "# Failure modes",
        "",
        f"{mined.n_searched:,} requests with texts: {mined.n_bad:,} bad answers, "
        f"{mined.n_doubtful:,} doubtful; {mined.n_outside:,} of them in no mode.",
        "",
    ]
    if not mined.modes:
        lines += ["No subgroup stands out: what went wrong is spread evenly, or too rare to tell.", ""]
    for mode in mined.modes:
        lines += [
            f"## {mode.name}: {mode.title}",
            "",
            f"- {mode.n:,} requests ({100 * mode.share:.1f} %), {mode.trend}: "
            f"{100 * mode.share_before:.1f} % in the earlier half, "
            f"{100 * mode.share_after:.1f} % in the later",
            f"- {mode.n_bad:,} bad, {mode.n_doubtful:,} doubtful: "
            + ", ".join(f"{reason} {n:,}" for reason, n in mode.reasons.items()),
            f"- severity {mode.severity:.2f} against {mode.rest_severity:.2f} elsewhere, "
            f"on requests not searched (p = {mode.p_value:.2g})",
            *_told_of(
                "the incumbent is right", mode.incumbent_right, "no labelled answer of the incumbent"
            ),
            *_told_of("the lean model agrees with the incumbent", mode.lean_agrees, None),
            "",
            *(f"> {' '.join(text.split())[:200]}" + "\n>" for text in mode.examples),
            "",
        ]
    lines += [f"- {note}" for note in mined.notes]
    return "\n".join(lines).rstrip() + "\n"


def _told_of(words: str, found: Agreement | None, otherwise: str | None) -> list[str]:
    if found is None:
        return [f"- {otherwise}"] if otherwise else []
    return [
        f"- {words} in {100 * found.share:.0f} % of {found.n:,} "
        f"({100 * found.low:.0f} to {100 * found.high:.0f})"
    ]
