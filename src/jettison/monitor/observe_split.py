"""Turns records and feedback into what the metrics of a split are made of, a column at a time.

What was randomised is the key, so each key counts once: its first answer, and of metrics that wait for
labels its first labelled answer. Requests without a key were each drawn by themselves. A label counts
that came within the plan's wait; which do hangs on the log alone, not on how it was cut.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from jettison.monitor.hashed import HashSet, mixed
from jettison.monitor.observed import (
    LOW,
    FeedbackColumns,
    Observed,
    Outcomes,
    Units,
    first_seen,
    metric_columns,
    read_map,
    scores_of,
)
from jettison.monitor.plan import ExperimentPlan
from jettison.monitor.record_columns import RecordColumns
from jettison.monitor.waiting import ROW, Waiting

UNITS = "units"
COLUMNS = (
    *("experiment", "role", "arm", "propensity", "example_id", "key"),
    *("unanswered", "output", "slices", "time"),
)
FEW = 16
"""Different draws that are looked for one by one."""


class SplitObserver:
    """Remembers between batches: keys seen, requests that wait for a label."""

    def __init__(self, plan: ExperimentPlan) -> None:
        self.plan = plan
        self._by_label = [m for m in plan.metrics if m.name in ("label", "feedback")]
        self._at_once = [m for m in plan.metrics if m.name not in ("label", "feedback")]
        self.seen = {name: HashSet() for name in (UNITS, *(m.name for m in self._by_label))}
        self.fresh: dict[str, list[np.ndarray]] = {name: [] for name in self.seen}
        self.unread: dict[str, Callable[[], Iterable[np.ndarray]]] = {}
        self.waiting = Waiting()
        self.draws: list[tuple[bool, float]] = []
        """Arm and share of the rows that wait."""
        self._draw_places: dict[tuple[bool, float], int] = {}

    def columns(self) -> tuple[str, ...]:
        """Columns of a record that are read."""
        return tuple(dict.fromkeys((*COLUMNS, *metric_columns(self.plan))))

    def reserve(self, n_records: int) -> None:
        """Make room for the keys of so many records; half of them are taken to be new."""
        if UNITS not in self.unread:
            self.seen[UNITS].reserve(n_records // 2)

    def take(self, records: RecordColumns) -> Observed:
        """What the next records bring."""
        chosen, propensity, is_treatment = self._drawn(records)
        found = Observed()
        if not len(chosen):
            return found
        share = np.where(is_treatment, propensity, 1 - propensity)
        requests, keys = records.hashes("example_id")[chosen], records.hashes("key")[chosen]
        units = np.where(keys == 0, mixed(requests), keys)
        is_first = first_seen(self, UNITS, units)
        is_lost = records.flags("unanswered")[chosen]
        first, lost = chosen[is_first], is_lost[is_first]
        treated, shares = is_treatment[is_first], share[is_first]
        codes, slices = records.codes("slices")
        found.units = Units(
            is_treatment=treated,
            share=shares,
            is_missing=lost | records.is_null("output")[first],
            slice_codes=codes[first],
            slices=[read_map(text) for text in (*slices, "{}")],
        )
        for metric in self._at_once:
            values = scores_of(metric, records)[first]
            if metric.name != "errors":
                values = np.where(lost, np.nan, values)
            known = ~np.isnan(values)
            found.outcomes[metric.name] = Outcomes(
                values=values[known], treated=treated[known], shares=shares[known]
            )
        if self._by_label:
            kept = ~is_lost
            rows = np.empty(int(kept.sum()), ROW)
            rows["request"], rows["unit"] = requests[kept], units[kept]
            rows["time"] = records.floats("time")[chosen[kept]]
            rows["output"] = records.hashes("output")[chosen[kept]] & LOW
            rows["draw"] = self._draw_codes(is_treatment[kept], share[kept])
            self.waiting.add(rows)
        return found

    def take_feedback(self, said: FeedbackColumns) -> Observed:
        """What the next feedback brings, about records taken before."""
        found = Observed()
        waited = self.waiting.find(said.requests)
        row = waited.rows
        # A record or a word without a time is never too late.
        is_late = said.times - row["time"] > self.plan.label_wait_s
        is_known = waited.is_there & ~is_late
        found.n_late = int((~is_known).sum())
        draws = np.array([(is_t, share) for is_t, share in self.draws], float).reshape(-1, 2)
        for metric in self._by_label:
            if metric.name == "label":
                told = said.labels != 0
                values = (row["output"] == (said.labels & LOW)).astype(float)
            else:
                told, values = ~np.isnan(said.scores), np.clip(said.scores, 0.0, 1.0)
            usable = np.flatnonzero(is_known & told)
            usable = usable[first_seen(self, metric.name, row["unit"][usable])]
            drawn = draws[row["draw"][usable]] if len(usable) else np.zeros((0, 2))
            found.outcomes[metric.name] = Outcomes(
                values=values[usable], treated=drawn[:, 0] == 1.0, shares=np.ascontiguousarray(drawn[:, 1])
            )
        return found

    def _drawn(self, records: RecordColumns) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Places of the answers that were drawn for an arm by chance, with propensity and arm."""
        propensity = records.floats("propensity")
        is_treatment = records.is_one_of("arm", "treatment")
        chosen = np.flatnonzero(
            records.is_one_of("experiment", self.plan.name)
            & records.is_one_of("role", None, "answer")
            & (is_treatment | records.is_one_of("arm", "control"))
            & (propensity > 0)
            & (propensity < 1)  # drawn with certainty: nothing to compare it with
        )
        return chosen, propensity[chosen], is_treatment[chosen]

    def _draw_codes(self, is_treatment: np.ndarray, share: np.ndarray) -> np.ndarray:
        """Place of each draw in the list of them, which grows in the order they were first seen."""
        signed = np.where(is_treatment, share, -share)
        found = np.full(len(signed), -1)
        if len(self.draws) <= FEW:
            for place, (known, of) in enumerate(self.draws):
                found[signed == (of if known else -of)] = place
        new = np.flatnonzero(found < 0)
        if not len(new):
            return found
        distinct, first, back = np.unique(signed[new], return_index=True, return_inverse=True)
        codes = np.empty(len(distinct), np.int64)
        for place in np.argsort(first):
            codes[place] = self.add_draw(bool(distinct[place] > 0), float(abs(distinct[place])))
        found[new] = codes[back]
        return found

    def add_draw(self, is_treatment: bool, share: float) -> int:
        """Place of a draw in the list of them."""
        draw = (is_treatment, share)
        if draw not in self._draw_places:
            self._draw_places[draw] = len(self.draws)
            self.draws.append(draw)
        return self._draw_places[draw]

    def memory(self) -> dict[str, Any]:
        """What it remembers beside `seen` and `waiting`."""
        return {"draws": self.draws}

    def remember(self, memory: Mapping[str, Any]) -> None:
        """Go on from what `memory` told."""
        for is_treatment, share in memory["draws"]:
            self.add_draw(bool(is_treatment), float(share))
