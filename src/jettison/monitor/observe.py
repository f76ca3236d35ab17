"""Turns the log's records and feedback into the observations that an experiment's metrics are made of.

What was randomised is the key, so each key counts once: its first answer, and of metrics that wait for
labels its first labelled answer. Requests without a key were each drawn by themselves. Shadow pairs
count each request.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from jettison.monitor.plan import ExperimentPlan, Metric
from jettison.record import Record
from jettison.traffic import Feedback


@dataclass(frozen=True, kw_only=True)
class Unit:
    """One key at its first sight."""

    is_treatment: bool
    share: float
    """Probability with which it was drawn for treatment."""
    is_missing: bool
    """It got no answer."""
    slices: dict[str, str]


@dataclass(kw_only=True)
class Observed:
    """What a batch of the log brought; lists in the log's order."""

    units: list[Unit] = field(default_factory=list)
    values: dict[str, list[float]] = field(default_factory=dict)
    """Metric → outcomes of a split in [0, 1] (or seconds), differences of a shadow in [-1, 1]."""
    treated: dict[str, list[bool]] = field(default_factory=dict)
    shares: dict[str, list[float]] = field(default_factory=dict)
    n_late: int = 0
    """Feedback whose request is unknown or no longer waited for."""


class Observer:
    """Remembers between batches: keys seen, pairs half seen, requests that wait for a label."""

    def __init__(self, plan: ExperimentPlan) -> None:
        self.plan = plan
        self._seen: dict[str, set[int]] = {}
        self._half: dict[str, tuple[bool, Record]] = {}
        self._waiting: dict[str, tuple[Any, ...]] = {}
        self._by_label = [m for m in plan.metrics if m.name in ("label", "feedback")]
        self._at_once = [m for m in plan.metrics if m.name not in ("label", "feedback")]

    def take(self, records: Sequence[Record], feedback: Sequence[Feedback]) -> Observed:
        """What the next batch of the log brings."""
        found = Observed()
        for record in records:
            if record.experiment != self.plan.name:
                continue
            if self.plan.kind == "split":
                self._split(record, found)
            else:
                self._shadow(record, found)
        for said in feedback:
            self._said(said, found)
        if records:
            self._forget(records[-1].time)
        return found

    def _split(self, record: Record, found: Observed) -> None:
        if record.role not in (None, "answer") or record.arm not in ("treatment", "control"):
            return
        if record.propensity is None or not 0 < record.propensity < 1:
            return  # drawn with certainty: nothing to compare it with
        is_treatment = record.arm == "treatment"
        share = record.propensity if is_treatment else 1 - record.propensity
        unit = _hashed(record.key or f"request:{record.example_id}")
        if self._is_first("", unit):
            missing = record.output is None or record.unanswered
            found.units.append(
                Unit(is_treatment=is_treatment, share=share, is_missing=missing, slices=record.slices)
            )
            for metric in self._at_once:
                outcome = score_of(metric, record)
                if outcome is not None:
                    _add(found, metric.name, outcome, is_treatment, share)
        if self._by_label and not record.unanswered:
            output = None if record.output is None else _hashed(record.output)
            self._waiting[record.example_id] = (record.time, is_treatment, share, unit, output)

    def _shadow(self, record: Record, found: Observed) -> None:
        if record.role not in (None, "answer", "shadow"):
            return
        is_shadow = record.role == "shadow"
        other = self._half.pop(record.example_id, None)
        if other is None or other[0] == is_shadow:
            self._half[record.example_id] = (is_shadow, record)
            return
        main, shadow = (other[1], record) if is_shadow else (record, other[1])
        for metric in self._at_once:
            difference = _difference(metric, main, shadow)
            if difference is not None:
                found.values.setdefault(metric.name, []).append(difference)
        if self._by_label and not (main.unanswered or shadow.unanswered):
            outputs = tuple(None if r.output is None else _hashed(r.output) for r in (main, shadow))
            self._waiting[record.example_id] = (record.time, *outputs)

    def _said(self, said: Feedback, found: Observed) -> None:
        waited = self._waiting.get(said.request_id)
        if waited is None:
            found.n_late += 1
            return
        for metric in self._by_label:
            if self.plan.kind == "shadow":
                if said.label is not None and self._is_first(metric.name, _hashed(said.request_id)):
                    right = _hashed(said.label)
                    difference = float(waited[2] == right) - float(waited[1] == right)
                    found.values.setdefault(metric.name, []).append(difference)
                continue
            _, is_treatment, share, unit, output = waited
            if metric.name == "label":
                outcome = None if said.label is None else float(output == _hashed(said.label))
            else:
                outcome = None if said.score is None else min(1.0, max(0.0, said.score))
            if outcome is not None and self._is_first(metric.name, unit):
                _add(found, metric.name, outcome, is_treatment, share)

    def _is_first(self, stream: str, unit: int) -> bool:
        seen = self._seen.setdefault(stream, set())
        if unit in seen:
            return False
        seen.add(unit)
        return True

    def _forget(self, now: float | None) -> None:
        """Drop requests past their wait; they lie in order, the oldest first."""
        while now is not None and self._waiting:
            oldest = next(iter(self._waiting))
            time = self._waiting[oldest][0]
            if time is not None and now - time <= self.plan.label_wait_s:
                break
            del self._waiting[oldest]

    def state(self) -> dict[str, Any]:
        """Everything it remembers, for `from_state`."""
        return {"seen": self._seen, "half": self._half, "waiting": self._waiting}

    @classmethod
    def from_state(cls, plan: ExperimentPlan, state: dict[str, Any]) -> "Observer":
        """Go on where `state` was taken."""
        import msgspec

        found = cls(plan)
        found._seen = {name: set(units) for name, units in state["seen"].items()}
        found._half = {
            name: (bool(side), msgspec.convert(record, Record))
            for name, (side, record) in state["half"].items()
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


def _add(found: Observed, name: str, outcome: float, is_treatment: bool, share: float) -> None:
    found.values.setdefault(name, []).append(outcome)
    found.treated.setdefault(name, []).append(is_treatment)
    found.shares.setdefault(name, []).append(share)


def _hashed(text: str) -> int:
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big")
