"""Turns records and feedback into what the metrics of a split are made of, a column at a time.

What was randomised is the key, so each key counts once: its first answer, and of metrics that wait for
labels its first labelled answer. Requests without a key were each drawn by themselves. A label counts
that came within the plan's wait; which do hangs on the log alone, not on how it was cut.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np

from jettison.monitor.hashed import HashSet, hash_texts, mixed
from jettison.monitor.plan import ExperimentPlan, Metric
from jettison.monitor.record_columns import RecordColumns
from jettison.monitor.waiting import ROW, Waiting
from jettison.traffic import Feedback

UNITS = "units"
COLUMNS = (
    *("experiment", "role", "arm", "propensity", "example_id", "key"),
    *("unanswered", "output", "slices", "time"),
)
FEW = 16
"""Different draws that are looked for one by one."""
_LOW = np.uint64(0xFFFFFFFF)


@dataclass(frozen=True, kw_only=True)
class Units:
    """Keys at their first sight, in the log's order."""

    is_treatment: np.ndarray
    share: np.ndarray
    """Probability with which each was drawn for treatment."""
    is_missing: np.ndarray
    """It got no answer."""
    slice_codes: np.ndarray
    """Of each, which of `slices` are its."""
    slices: list[dict[str, str]]

    def __len__(self) -> int:
        return len(self.share)


@dataclass(frozen=True, kw_only=True)
class Outcomes:
    """What a batch brought for one metric, in the log's order; each of shape (n,)."""

    values: np.ndarray
    treated: np.ndarray
    shares: np.ndarray


@dataclass(kw_only=True)
class SplitObserved:
    """What a batch of the log brought."""

    units: Units | None = None
    outcomes: dict[str, Outcomes] = field(default_factory=dict)
    n_late: int = 0
    """Feedback whose request is unknown or no longer waited for."""


@dataclass(frozen=True, kw_only=True)
class FeedbackColumns:
    """Feedback by columns, each of shape (n,)."""

    requests: np.ndarray
    """Hashes of request ids."""
    times: np.ndarray
    scores: np.ndarray
    """NaN where none was given."""
    labels: np.ndarray
    """Hashes; 0 where none was given."""

    @classmethod
    def of(cls, table: Any) -> "FeedbackColumns":
        """Of an Arrow table with the columns of `Feedback`."""
        columns = RecordColumns(table)
        return cls(
            requests=columns.hashes("request_id"),
            times=columns.floats("time"),
            scores=columns.floats("score"),
            labels=columns.hashes("label"),
        )

    @classmethod
    def of_said(cls, said: Sequence[Feedback]) -> "FeedbackColumns":
        """Of feedback in memory."""
        import pyarrow as pa

        return cls(
            requests=hash_texts(pa.array([one.request_id for one in said], pa.string())),
            times=np.array([one.time for one in said], float),
            scores=np.array([np.nan if one.score is None else one.score for one in said], float),
            labels=hash_texts(pa.array([one.label for one in said], pa.string())),
        )

    def __len__(self) -> int:
        return len(self.requests)


class SplitObserver:
    """Remembers between batches: keys seen, requests that wait for a label."""

    def __init__(self, plan: ExperimentPlan) -> None:
        self.plan = plan
        self._by_label = [m for m in plan.metrics if m.name in ("label", "feedback")]
        self._at_once = [m for m in plan.metrics if m.name not in ("label", "feedback")]
        self.seen = {name: HashSet() for name in (UNITS, *(m.name for m in self._by_label))}
        self.fresh: dict[str, list[np.ndarray]] = {name: [] for name in self.seen}
        """Hashes taken into `seen`, in their order, for whoever keeps them."""
        self.unread: dict[str, Callable[[], Iterable[np.ndarray]]] = {}
        """Hashes of `seen` that were kept and are read when they are first needed."""
        self.waiting = Waiting()
        self.draws: list[tuple[bool, float]] = []
        """Arm and share of the rows that wait."""
        self._draw_places: dict[tuple[bool, float], int] = {}

    def columns(self) -> tuple[str, ...]:
        """Columns of a record that are read."""
        needed = {
            "guardrails": "guardrails",
            "escalated": "escalated",
            "errors": "error",
            "label": "output",
            "feedback": "output",
        }
        of_metrics = (
            "scores" if name.startswith("score:") else needed.get(name, f"cost.{name}")
            for name in (metric.name for metric in self.plan.metrics)
        )
        return tuple(dict.fromkeys((*COLUMNS, *of_metrics)))

    def reserve(self, n_records: int) -> None:
        """Make room for the keys of so many records; half of them are taken to be new."""
        if UNITS not in self.unread:
            self.seen[UNITS].reserve(n_records // 2)

    def take(self, records: RecordColumns) -> SplitObserved:
        """What the next records bring."""
        chosen, propensity, is_treatment = self._drawn(records)
        found = SplitObserved()
        if not len(chosen):
            return found
        share = np.where(is_treatment, propensity, 1 - propensity)
        requests, keys = records.hashes("example_id")[chosen], records.hashes("key")[chosen]
        units = np.where(keys == 0, mixed(requests), keys)
        is_first = self._first(UNITS, units)
        is_lost = records.flags("unanswered")[chosen]
        first, lost = chosen[is_first], is_lost[is_first]
        treated, shares = is_treatment[is_first], share[is_first]
        codes, slices = records.codes("slices")
        found.units = Units(
            is_treatment=treated,
            share=shares,
            is_missing=lost | records.is_null("output")[first],
            slice_codes=codes[first],
            slices=[_read(text) for text in (*slices, "{}")],
        )
        for metric in self._at_once:
            values = _scores(metric, records)[first]
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
            rows["output"] = records.hashes("output")[chosen[kept]] & _LOW
            rows["draw"] = self._draw_codes(is_treatment[kept], share[kept])
            self.waiting.add(rows)
        return found

    def take_feedback(self, said: FeedbackColumns) -> SplitObserved:
        """What the next feedback brings, about records taken before."""
        found = SplitObserved()
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
                values = (row["output"] == (said.labels & _LOW)).astype(float)
            else:
                told, values = ~np.isnan(said.scores), np.clip(said.scores, 0.0, 1.0)
            usable = np.flatnonzero(is_known & told)
            usable = usable[self._first(metric.name, row["unit"][usable])]
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

    def _first(self, stream: str, units: np.ndarray) -> np.ndarray:
        seen = self.seen[stream]
        if len(units) and stream in self.unread:
            for hashes in self.unread.pop(stream)():
                seen.add(hashes)
        is_first = seen.add(units)
        if is_first.any():
            self.fresh[stream].append(units[is_first])
        return is_first

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


def _scores(metric: Metric, records: RecordColumns) -> np.ndarray:
    """What each record scores on a metric that needs no label; higher is better. NaN: not known."""
    name = metric.name
    if name == "errors":
        return records.is_null("error").astype(float)
    if name == "guardrails":
        return records.is_one_of("guardrails", None, "", "{}").astype(float)
    if name == "escalated":
        return (~records.flags("escalated")).astype(float)
    if name.startswith("score:"):
        codes, texts = records.codes("scores")
        wanted = name.removeprefix("score:")
        found = [_read(text).get(wanted) for text in (*texts, "{}")]
        of_texts = np.array([np.nan if one is None else min(1.0, max(0.0, one)) for one in found])
        return np.asarray(of_texts[codes])
    spent = records.floats(f"cost.{name}")
    if name == "latency_s":
        return spent
    assert metric.most is not None
    return np.asarray(1.0 - np.minimum(np.maximum(spent, 0.0), metric.most) / metric.most)


def _read(text: str) -> dict[str, Any]:
    found: dict[str, Any] = msgspec.json.decode(text) if text else {}
    return found
