"""Turns records and feedback into the differences that the metrics of a shadow are made of, by columns.

The two answers of a request are joined by its id, whichever is logged first. A pair counts at the place of
its second answer, and its label at the place of the word that brought it, so that the differences come in
one order however the log is cut.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from jettison.monitor.hashed import HashSet
from jettison.monitor.observed import (
    LOW,
    FeedbackColumns,
    Observed,
    Outcomes,
    first_seen,
    metric_columns,
    scores_of,
)
from jettison.monitor.plan import ExperimentPlan, Metric
from jettison.monitor.record_columns import RecordColumns
from jettison.monitor.waiting import ROW, Waiting

PAIR_WAIT_S = 3600.0
"""How long an answer waits for its other half; of most requests there may be no shadow at all.

Counted by the latest time seen so far: also of answers out of order or without a time no cut decides.
"""
LABEL = "label"
COLUMNS = ("experiment", "role", "example_id", "unanswered", "output", "time")
_NONE = np.zeros(0)


class ShadowObserver:
    """Remembers between batches: pairs half seen, and requests that wait for a label."""

    def __init__(self, plan: ExperimentPlan) -> None:
        self.plan = plan
        self._by_label = [m for m in plan.metrics if m.name == LABEL]
        self._at_once = [m for m in plan.metrics if m.name != LABEL]
        self.seen = {LABEL: HashSet()}
        """Requests whose label counted."""
        self.fresh: dict[str, list[np.ndarray]] = {LABEL: []}
        self.unread: dict[str, Callable[[], Iterable[np.ndarray]]] = {}
        self.waiting = Waiting()
        """Pairs that wait for a label; `output` is of the shadow's answer, `draw` of the main one's."""
        self.half = np.zeros(0, self.dtype)
        """Answers that wait for their other half, the oldest first."""
        self._now = -np.inf
        """Latest time of any record so far."""

    @property
    def dtype(self) -> "np.dtype[Any]":
        """Of an answer that waits for its other half."""
        shape = (len(self._at_once),)
        return np.dtype(
            [
                *(("request", "<u8"), ("time", "<f8"), ("by", "<f8"), ("output", "<u8")),
                *(("is_shadow", "?"), ("is_lost", "?"), ("scores", "<f8", shape)),
            ]
        )

    def columns(self) -> tuple[str, ...]:
        """Columns of a record that are read."""
        return tuple(dict.fromkeys((*COLUMNS, *metric_columns(self.plan))))

    def reserve(self, n_records: int) -> None:
        """Nothing is known of how many pairs there are among so many records."""

    def take(self, records: RecordColumns) -> Observed:
        """What the next records bring."""
        found = Observed()
        by = np.fmax.accumulate(np.concatenate([[self._now], records.floats("time")]))[1:]
        self._now = float(by[-1])
        chosen = np.flatnonzero(
            records.is_one_of("experiment", self.plan.name)
            & records.is_one_of("role", None, "answer", "shadow")
        )
        if len(chosen):
            rows = self._rows(records, chosen)
            rows["by"] = by[chosen]
            known = np.isin(self.half["request"], rows["request"])
            rows = np.concatenate([self.half[known], rows])
            pairs, alone = _paired(rows)
            self.half = np.concatenate([self.half[~known], rows[alone]])
            self._count(rows[pairs[:, 0]], rows[pairs[:, 1]], found)
        is_past = _is_past(self.half["by"], self._now)
        if is_past.any():
            self.half = self.half[~is_past]
        return found

    def _rows(self, records: RecordColumns, chosen: np.ndarray) -> np.ndarray:
        rows = np.zeros(len(chosen), self.dtype)
        rows["request"] = records.hashes("example_id")[chosen]
        rows["time"] = records.floats("time")[chosen]
        rows["output"] = records.hashes("output")[chosen]
        rows["is_shadow"] = records.is_one_of("role", "shadow")[chosen]
        rows["is_lost"] = records.flags("unanswered")[chosen]
        for place, metric in enumerate(self._at_once):
            if metric.name == "agreement":
                continue
            scores = scores_of(metric, records)[chosen]
            # Of an answer lost on the way only `errors` is known: a quick failure is no quick answer.
            lost = rows["is_lost"] & (metric.name != "errors")
            rows["scores"][:, place] = np.where(lost, np.nan, scores)
        return rows

    def _count(self, earlier: np.ndarray, later: np.ndarray, found: Observed) -> None:
        """Pairs in the order of their second answers."""
        is_shadow = later["is_shadow"]
        main, shadow = np.where(is_shadow, earlier, later), np.where(is_shadow, later, earlier)
        found.n_pairs = len(later)
        is_lost = main["is_lost"] | shadow["is_lost"]
        for place, metric in enumerate(self._at_once):
            values = self._difference(metric, place, main, shadow, is_lost)
            found.outcomes[metric.name] = Outcomes(values=values, treated=_NONE, shares=_NONE)
        if self._by_label:
            kept = ~is_lost
            rows = np.zeros(int(kept.sum()), ROW)
            rows["request"] = rows["unit"] = later["request"][kept]
            rows["time"] = later["time"][kept]
            rows["output"], rows["draw"] = shadow["output"][kept] & LOW, main["output"][kept] & LOW
            self.waiting.add(rows)

    def _difference(
        self, metric: Metric, place: int, main: np.ndarray, shadow: np.ndarray, is_lost: np.ndarray
    ) -> np.ndarray:
        if metric.name == "agreement":
            is_same = (shadow["output"] != 0) & (shadow["output"] == main["output"])
            return np.asarray(is_same[~is_lost].astype(float) - 1.0)
        values = shadow["scores"][:, place] - main["scores"][:, place]
        return np.asarray(values[~np.isnan(values)])

    def take_feedback(self, said: FeedbackColumns) -> Observed:
        """What the next feedback brings, about pairs taken before."""
        found = Observed()
        waited = self.waiting.find(said.requests)
        is_late = said.times - waited.rows["time"] > self.plan.label_wait_s
        is_known = waited.is_there & ~is_late
        found.n_late = int((~is_known).sum())
        if self._by_label:
            usable = np.flatnonzero(is_known & (said.labels != 0))
            is_first = first_seen(self, LABEL, said.requests[usable])
            usable = usable[is_first]
            right, row = said.labels[usable] & LOW, waited.rows[usable]
            values = (row["output"] == right).astype(float) - (row["draw"] == right).astype(float)
            found.outcomes[LABEL] = Outcomes(values=values, treated=_NONE, shares=_NONE)
        return found

    def memory(self) -> dict[str, Any]:
        """What it remembers beside `seen` and `waiting`."""
        return {"half": self.half.tobytes(), "now": self._now}

    def remember(self, memory: Mapping[str, Any]) -> None:
        """Go on from what `memory` told."""
        self.half, self._now = np.frombuffer(memory["half"], self.dtype), float(memory["now"])


def _paired(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Places of each pair, earlier and later, in the later ones' order; places of answers left alone."""
    order = np.argsort(rows["request"], kind="stable")
    ids = rows["request"][order]
    starts = np.flatnonzero(np.concatenate([[True], ids[1:] != ids[:-1]]))
    sizes = np.diff(np.append(starts, len(ids)))
    alone = [order[starts[sizes == 1]]]
    first, second = order[starts[sizes == 2]], order[starts[sizes == 2] + 1]
    is_pair = _fits(rows[first], rows[second])
    pairs = [np.stack([first[is_pair], second[is_pair]], axis=1)]
    alone.append(second[~is_pair])
    for start, size in zip(starts[sizes > 2], sizes[sizes > 2], strict=True):  # an id that came again
        waiting: int | None = None
        for place in order[start : start + size]:
            if waiting is not None and _fits(rows[waiting], rows[place]):
                pairs.append(np.array([[waiting, place]]))
                waiting = None
            else:
                waiting = int(place)
        if waiting is not None:
            alone.append(np.array([waiting]))
    found = np.concatenate(pairs)
    return found[np.argsort(found[:, 1], kind="stable")], np.sort(np.concatenate(alone))


def _fits(earlier: np.ndarray, later: np.ndarray) -> np.ndarray:
    """Whether two answers of a request are its two sides, near enough in time."""
    is_other_side = earlier["is_shadow"] != later["is_shadow"]
    return np.asarray(is_other_side & ~_is_past(earlier["by"], later["by"]))


def _is_past(then: np.ndarray, now: "np.ndarray | float") -> np.ndarray:
    """Whether the wait is over; before the first time of a log, no time is near any."""
    return np.asarray(np.isfinite(then) & (now - np.where(np.isfinite(then), then, 0.0) > PAIR_WAIT_S))
