"""A window of the log in counts, read by columns: memory does not grow with the window.

Scores and categories are counted of every answer; texts are looked at on an even sample.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from jettison.errors import BrokenArtifact
from jettison.monitor.log import TrafficLog
from jettison.monitor.log_columns import record_batches
from jettison.monitor.pieces import open_moment
from jettison.monitor.record_columns import RecordColumns
from jettison.record import Record
from jettison.refusal import is_refusal
from jettison.release.sketch import SCORE_EDGES, Sketch, bin_of

MOST_TEXTS = 10_000
MOST_CATEGORIES = 1000
"""Different values of one category that are counted one by one."""
OTHER = "any other"
"""Values beyond those, counted together."""
SCORE_COLUMNS = {"confidence": "confidence", "in_scope": "in_scope", "tokens": "cost.completion_tokens"}
COLUMNS = (
    *SCORE_COLUMNS.values(),
    *("role", "candidate", "route", "error", "output", "flagged", "slices", "input"),
)
TRIES = 3


class Window:
    """Counts of a part of the log; fed in batches, which may be cut anywhere.

    Args:
        sketch: Of the release.
        candidates: Digests of the release; answers of others are not its answers. None takes all.
        seed: Of the sample of texts.
    """

    def __init__(self, sketch: Sketch, *, candidates: Collection[str] | None = None, seed: int = 0) -> None:
        self.sketch, self.candidates = sketch, candidates
        self.scores: dict[tuple[str, str], np.ndarray] = {}
        self.n_records = 0
        self._categories: dict[str, Counter[str]] = {}
        self._inputs, self._answers = _Sample(seed), _Sample(seed + 1)
        self._is_text = "label" not in sketch.categories

    @property
    def texts(self) -> list[str]:
        """An even sample of the inputs, at most `MOST_TEXTS`."""
        return self._inputs.texts

    def places_in(self, one: str) -> np.ndarray:
        """Places among `texts` of those in a slice, `name=value`."""
        return np.array([place for place, some in enumerate(self._inputs.slices) if one in some], np.int64)

    def category(self, name: str) -> Counter[str]:
        """How often each value of a category came; refusals are told on a sample of the answers."""
        if name == "refused":
            return Counter(str(is_refusal(answer)).lower() for answer in self._answers.texts)
        return self._categories.get(name, Counter())

    def take(self, records: Iterable[Record]) -> None:
        """Take in records; each request counts once, shadows and audits not at all."""
        some = list(records)
        if some:
            self.take_columns(RecordColumns.of(some))

    def take_columns(self, columns: RecordColumns) -> None:
        """Take in records by `COLUMNS`, as `take` does."""
        is_asked = columns.is_one_of("role", None, "answer")
        self.n_records += int(is_asked.sum())
        keeps_slices = bool(self.sketch.slice_features)
        self._inputs.take(columns, "input", is_asked & ~columns.is_null("input"), keeps_slices=keeps_slices)
        is_lean = _is_lean(columns, self.candidates)
        has_failed = ~columns.is_null("error")
        self._count("error", is_lean & has_failed, "true")
        self._count("error", is_lean & ~has_failed, "false")
        answered = is_lean & ~has_failed
        self._take_scores(columns, answered)
        answered = answered & ~columns.is_null("output")
        self._take_outputs(columns, answered)
        is_known = answered & ~columns.is_null("flagged")
        is_flagged = columns.flags("flagged")
        self._count("flagged", is_known & is_flagged, "true")
        self._count("flagged", is_known & ~is_flagged, "false")

    def _take_scores(self, columns: RecordColumns, answered: np.ndarray) -> None:
        slices = list(self._slices(columns, answered))
        for score, name in SCORE_COLUMNS.items():
            values = columns.floats(name)
            is_known = answered & ~np.isnan(values)
            if not is_known.any():
                continue
            n_bins = len(SCORE_EDGES[score]) + 1
            bins = np.where(is_known, bin_of(score, values), n_bins)  # the last place: no such score
            for where, rows in (("all", is_known), *slices):
                counts = np.bincount(bins[rows], minlength=n_bins)[:n_bins]
                self.scores[where, score] = self.scores.get((where, score), 0) + counts

    def _slices(self, columns: RecordColumns, answered: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
        if not self.sketch.slices:
            return
        places, named = _named_slices(columns)
        for one in self.sketch.slices:
            has = np.array([one in some for some in named])
            yield one, answered & has[places]

    def _take_outputs(self, columns: RecordColumns, answered: np.ndarray) -> None:
        places, words = columns.codes("output")
        if self._is_text:
            is_kept = np.array([bool(w) and not w.startswith("sha256:") for w in words] + [False])
            self._answers.take(columns, "output", answered & is_kept[places])
            return
        counts = np.bincount(places[answered], minlength=len(words) + 1)
        for place in np.flatnonzero(counts).tolist():
            self._add("label", words[place], int(counts[place]))

    def _count(self, name: str, rows: np.ndarray, value: str) -> None:
        if n := int(rows.sum()):
            self._add(name, value, n)

    def _add(self, name: str, value: str, n: int) -> None:
        counts = self._categories.setdefault(name, Counter())
        known = self.sketch.categories.get(name, {})
        is_apart = value in counts or value in known or len(counts) < MOST_CATEGORIES
        counts[value if is_apart else OTHER] += n


def newest_window(
    folder: Path, sketch: Sketch, *, candidates: Collection[str] | None = None, last: int
) -> Window:
    """The newest records of a log, those in segments and those still in its live file, each once.

    Args:
        folder: Of the log, or the gateway's state folder that holds it.
        sketch: As of `Window`.
        candidates: As of `Window`.
        last: How many of the newest records.

    Raises:
        InvalidInput: There is no log.
        BrokenArtifact: A segment or row cannot be read.
    """
    log = TrafficLog(folder)
    for attempt in range(TRIES):
        window = Window(sketch, candidates=candidates)
        try:
            with open_moment(log.folder, "records", after=max(0, log.last() - last)) as moment:
                for batch in record_batches(moment, COLUMNS):
                    window.take_columns(batch.columns)
            return window
        except FileNotFoundError as error:  # dropped for its age while we read: look again
            if attempt == TRIES - 1:
                raise BrokenArtifact(
                    f"{log.folder} must keep its segments while they are read, got {error}. Try again."
                ) from error
    raise AssertionError("the last attempt returns or raises")


def is_lean_answer(record: Record, candidates: Collection[str] | None) -> bool:
    """Whether a record is what the release itself said, shown or escalated, not the fallback's."""
    if record.role not in (None, "answer", "lean"):
        return False
    if candidates is not None:
        return record.candidate in candidates
    return not (record.route or "").endswith("fallback")


def _is_lean(columns: RecordColumns, candidates: Collection[str] | None) -> np.ndarray:
    """`is_lean_answer` of each record, shape (n,)."""
    rows = columns.is_one_of("role", None, "answer", "lean")
    if candidates is not None:
        return np.asarray(rows & columns.is_one_of("candidate", *candidates))
    places, routes = columns.codes("route")
    is_fallback = np.array([route.endswith("fallback") for route in routes] + [False])
    return np.asarray(rows & ~is_fallback[places])


def _named_slices(columns: RecordColumns) -> tuple[np.ndarray, list[frozenset[str]]]:
    """Of each record a place in a list of different sets of slices, `name=value`, the last one empty."""
    places, words = columns.codes("slices")
    decoded = [msgspec.json.decode(word, type=dict[str, str]) for word in words]
    named = [frozenset(f"{name}={value}" for name, value in some.items()) for some in decoded]
    return places, [*named, frozenset()]


class _Sample:
    """Algorithm R: every text has the same chance, however the stream is cut."""

    def __init__(self, seed: int) -> None:
        self.texts: list[str] = []
        self.slices: list[frozenset[str]] = []
        """Of each text, where they are kept."""
        self._n = 0
        self._rng = np.random.default_rng(seed)

    def take(
        self, columns: RecordColumns, name: str, wanted: np.ndarray, *, keeps_slices: bool = False
    ) -> None:
        rows = np.flatnonzero(wanted)
        ranks = self._n + 1 + np.arange(len(rows))
        places = np.floor(self._rng.random(len(rows)) * ranks).astype(np.int64)
        places = np.where(ranks <= MOST_TEXTS, ranks - 1, places)
        is_taken = places < MOST_TEXTS
        self._n += len(rows)
        # Of several texts for one place the last stays: only that one is read.
        latest = dict(zip(places[is_taken].tolist(), rows[is_taken].tolist(), strict=True))
        _put(self.texts, list(latest), columns.texts(name, list(latest.values())))
        if keeps_slices and latest:
            codes, named = _named_slices(columns)
            _put(self.slices, list(latest), [named[code] for code in codes[list(latest.values())]])


def _put(kept: list[Any], places: list[int], values: list[Any]) -> None:
    for place, value in zip(places, values, strict=True):
        if place < len(kept):
            kept[place] = value
        else:
            kept.append(value)
