"""Turns records and feedback into the differences that the metrics of a shadow are made of."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from jettison.monitor.plan import ExperimentPlan, Metric
from jettison.record import Record
from jettison.traffic import Feedback

PAIR_WAIT_S = 3600.0
"""How long an answer waits for its other half; of most requests there may be no shadow at all."""


@dataclass(kw_only=True)
class ShadowObserved:
    """What a batch of the log brought; lists in the log's order."""

    values: dict[str, list[float]] = field(default_factory=dict)
    """Metric → differences in [-1, 1]."""
    n_pairs: int = 0
    """Both answers of a request are there, whether or not a metric can tell of them yet."""
    n_late: int = 0
    """Feedback whose request is unknown or no longer waited for."""


class ShadowObserver:
    """Remembers between batches: pairs half seen, and requests that wait for a label."""

    def __init__(self, plan: ExperimentPlan) -> None:
        self.plan = plan
        self._labelled: set[int] = set()
        self._half: dict[str, tuple[Any, ...]] = {}
        self._waiting: dict[str, tuple[Any, ...]] = {}
        self._by_label = [m for m in plan.metrics if m.name == "label"]
        self._at_once = [m for m in plan.metrics if m.name != "label"]

    def take(
        self, records: Sequence[Record], feedback: Sequence[Feedback], *, is_all: bool = True
    ) -> ShadowObserved:
        """What the next batch of the log brings.

        Args:
            records: In the log's order.
            feedback: On these and earlier records.
            is_all: Whether it is all feedback that came so far; else what is old waits on.
        """
        found = ShadowObserved()
        for record in records:
            if record.experiment == self.plan.name:
                self._pair(record, found)
        for said in feedback:
            self._said(said, found)
        if records:
            if is_all:
                _forget(self._waiting, records[-1].time, self.plan.label_wait_s)
            _forget(self._half, records[-1].time, PAIR_WAIT_S)
        return found

    def _pair(self, record: Record, found: ShadowObserved) -> None:
        if record.role not in (None, "answer", "shadow"):
            return
        is_shadow = record.role == "shadow"
        other = self._half.pop(record.example_id, None)
        if other is None or other[1] == is_shadow or _is_past(other[0], record.time, PAIR_WAIT_S):
            self._half[record.example_id] = (record.time, is_shadow, record)
            return
        main, shadow = (other[2], record) if is_shadow else (record, other[2])
        found.n_pairs += 1
        for metric in self._at_once:
            difference = _difference(metric, main, shadow)
            if difference is not None:
                found.values.setdefault(metric.name, []).append(difference)
        if self._by_label and not (main.unanswered or shadow.unanswered):
            outputs = tuple(None if r.output is None else _hashed(r.output) for r in (main, shadow))
            self._waiting[record.example_id] = (record.time, *outputs)

    def _said(self, said: Feedback, found: ShadowObserved) -> None:
        waited = self._waiting.get(said.request_id)
        if waited is None or _is_past(waited[0], said.time, self.plan.label_wait_s):
            found.n_late += 1
            return
        request = _hashed(said.request_id)
        if not self._by_label or said.label is None or request in self._labelled:
            return
        self._labelled.add(request)
        right = _hashed(said.label)
        difference = float(waited[2] == right) - float(waited[1] == right)
        found.values.setdefault("label", []).append(difference)

    def state(self) -> dict[str, Any]:
        """Everything it remembers, for `from_state`."""
        return {"labelled": self._labelled, "half": self._half, "waiting": self._waiting}

    @classmethod
    def from_state(cls, plan: ExperimentPlan, state: dict[str, Any]) -> "ShadowObserver":
        """Go on where `state` was taken."""
        found = cls(plan)
        found._labelled = set(state["labelled"])
        found._half = {
            name: (time, bool(side), msgspec.convert(record, Record))
            for name, (time, side, record) in state["half"].items()
        }
        found._waiting = {name: tuple(waited) for name, waited in state["waiting"].items()}
        return found


def score_of(metric: Metric, record: Record) -> float | None:
    """What one record scores on a metric that needs no label; higher is better. None: not known.

    Of an answer that was lost on the way only `errors` is known: a quick failure is no quick answer.
    """
    name = metric.name
    if name == "errors":
        return float(record.error is None)
    if record.unanswered:
        return None
    if name == "guardrails":
        return float(not record.guardrails)
    if name == "escalated":
        return float(not record.escalated)
    if name.startswith("score:"):
        score = record.scores.get(name.removeprefix("score:"))
        return None if score is None else min(1.0, max(0.0, score))
    spent: float | None = getattr(record.cost, name)
    if name == "latency_s" or spent is None:
        return spent
    assert metric.most is not None
    return 1.0 - min(max(spent, 0.0), metric.most) / metric.most


def _difference(metric: Metric, main: Record, shadow: Record) -> float | None:
    if metric.name == "agreement":
        if main.unanswered or shadow.unanswered:
            return None
        return float(shadow.output is not None and shadow.output == main.output) - 1.0
    after, before = score_of(metric, shadow), score_of(metric, main)
    return None if after is None or before is None else after - before


def _forget(kept: dict[str, tuple[Any, ...]], now: float | None, wait_s: float) -> None:
    """Drop what is past its wait; the oldest lie first."""
    while kept:
        oldest = next(iter(kept))
        if not _is_past(kept[oldest][0], now, wait_s):
            return
        del kept[oldest]


def _is_past(then: float | None, now: float | None, wait_s: float) -> bool:
    return then is not None and now is not None and now - then > wait_s


def _hashed(text: str) -> int:
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big")
