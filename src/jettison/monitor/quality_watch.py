"""How good live answers are though few have labels, and whether confidence still means what it meant.

One interval an arm, over the newest answers that carry a confidence: their mean confidence, corrected by
what is known of some of them. The best that is there does the correcting: labels by audits, then what the
fallback answered where it was asked at random, then labels that came of themselves. A part of the watcher.
"""

from collections import OrderedDict, deque
from typing import Any, Literal

import msgspec
import numpy as np

from jettison.errors import InvalidInput
from jettison.monitor.alerts import Alert
from jettison.monitor.estimate import FEWEST_LABELS, QualityEstimate, estimate_quality
from jettison.monitor.log import News
from jettison.record import Record
from jettison.stats.bernstein_sequence import EmpiricalBernsteinSequence
from jettison.stats.late_loss import LateLoss
from jettison.traffic import Feedback

NEWEST = 20_000
"""Answers of an arm that the figure is about."""
NEWEST_JUDGED = 5_000
MOST_WAITING = 50_000
MOST_ARMS = 8
Judge = Literal["audit label", "fallback", "label"]
JUDGES: tuple[Judge, ...] = ("audit label", "fallback", "label")
"""Who says what is right, the best first."""
WORDS: dict[str, str] = {
    "audit label": "labels by audits are right",
    "fallback": "the fallback's answer is taken for the truth",
    "label": "who gives labels is no other than who does not",
}


class QualityStatus(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of one arm."""

    arm: str
    estimate: QualityEstimate
    judge: str | None
    """Whose word corrects the confidences: `audit label`, `fallback`, `label`; None: too few of any."""
    n_judged: dict[str, int]
    """Of the newest answers, by judge."""
    n_unsure: int
    """Answers without a confidence, of which nothing is said."""
    gap: float | None
    """Mean of right minus confidence over all that were ever judged so."""
    gap_low: float | None
    """Bounds that hold at all looks together."""
    gap_high: float | None
    is_overconfident: bool
    """Answers surely are right less often than confidence says, by more than the margin."""
    log_e: float | None
    log_e_limit: float
    since: int | None
    """About which judged answer that began at."""


class _Arm:
    """What is remembered of one arm."""

    def __init__(self, alpha: float, margin: float) -> None:
        self.confidences: deque[float] = deque(maxlen=NEWEST)
        self.judged: dict[str, deque[tuple[float, float, float]]] = {
            judge: deque(maxlen=NEWEST_JUDGED) for judge in JUDGES
        }
        """(confidence, 1 if right, probability of being judged; 0: not known)."""
        self.n_unsure = 0
        self.gaps = {judge: EmpiricalBernsteinSequence() for judge in JUDGES}
        self.falls = {judge: LateLoss(alpha=alpha / 3, limit=-margin) for judge in JUDGES}
        self._new: dict[str, list[float]] = {judge: [] for judge in JUDGES}

    def judge(self, judge: Judge, confidence: float, is_right: bool, propensity: float) -> None:
        self.judged[judge].append((confidence, float(is_right), propensity))
        self._new[judge].append(float(is_right) - confidence)

    def count(self) -> None:
        """Take in what was judged since; many at once, to the same digits."""
        for judge in JUDGES:
            if new := self._new[judge]:
                self.gaps[judge].update(new, low=-1.0, high=1.0)
                self.falls[judge].update(new)
                new.clear()

    def n_judged(self, judge: Judge) -> int:
        """Of the newest answers."""
        return len(self.judged[judge])

    def best(self) -> Judge | None:
        """The best of those who have judged enough."""
        return next((judge for judge in JUDGES if len(self.judged[judge]) >= FEWEST_LABELS), None)


class QualityWatch:
    """Estimates quality and watches calibration, the assumption behind it.

    Args:
        alpha: Probability of a false alarm, ever, over all arms, where confidence promises too much by the
            margin at most.
        margin: By how much answers may be right less often than their confidence says.
    """

    name = "quality"

    def __init__(self, *, alpha: float = 0.01, margin: float = 0.02) -> None:
        for name, value in (("alpha", alpha), ("margin", margin)):
            if not 0 < value < 1:
                raise InvalidInput(
                    f"the {name} of the watch on calibration must be in (0, 1), got {value}."
                )
        self.alpha, self.margin = alpha, margin
        self._arms: dict[str, _Arm] = {}
        # request -> arm, confidence, output
        self._waiting: OrderedDict[str, tuple[str, float, str | None]] = OrderedDict()
        self._audits: OrderedDict[str, tuple[str | None, float]] = OrderedDict()

    def take(self, news: News) -> None:
        for record in news.records:
            if record.error is not None:
                continue
            if record.role in (None, "answer"):
                self._answer(record)
            elif record.role == "audit" and record.propensity:
                self._audit(record.example_id, record.output, record.propensity)
        for said in news.feedback:
            self._label(said)
        for arm in self._arms.values():
            arm.count()

    def _answer(self, record: Record) -> None:
        name = record.arm or ""
        arm = self._arms.get(name)
        if arm is None:
            if len(self._arms) >= MOST_ARMS:
                return
            arm = self._arms[name] = _Arm(self.alpha / MOST_ARMS, self.margin)
        if record.confidence is None or record.escalated:
            arm.n_unsure += 1
            return
        confidence = min(1.0, max(0.0, record.confidence))
        arm.confidences.append(confidence)
        self._waiting[record.example_id] = name, confidence, record.output
        if len(self._waiting) > MOST_WAITING:
            self._waiting.popitem(last=False)
        if record.example_id in self._audits:  # logged before the answer that it is of
            self._audit(record.example_id, *self._audits.pop(record.example_id))

    def _audit(self, request: str, output: str | None, propensity: float) -> None:
        known = self._waiting.get(request)
        if known is None:
            self._audits[request] = output, propensity
            if len(self._audits) > MOST_WAITING // 5:
                self._audits.popitem(last=False)
            return
        name, confidence, said = known
        self._arms[name].judge("fallback", confidence, said == output, propensity)

    def _label(self, said: Feedback) -> None:
        if said.label is None:
            return
        known = self._waiting.pop(said.request_id, None)  # the first word on an answer counts
        if known is not None:
            name, confidence, output = known
            judge: Judge = "audit label" if said.source == "audit" else "label"
            self._arms[name].judge(judge, confidence, said.label == output, 0.0)

    def status(self) -> tuple[QualityStatus, ...]:
        """Of each arm that has answers with a confidence."""
        return tuple(self._status(name, arm) for name, arm in sorted(self._arms.items()) if arm.confidences)

    def _status(self, name: str, arm: _Arm) -> QualityStatus:
        judge = arm.best()
        pairs = list(arm.judged[judge]) if judge is not None else []
        found = estimate_quality(
            list(arm.confidences),
            [(confidence, right) for confidence, right, _ in pairs],
            propensities=[chance for _, _, chance in pairs] if judge == "fallback" else None,
        )
        if judge is not None:
            found = msgspec.structs.replace(found, assumption=f"{found.assumption}; {WORDS[judge]}")
        most: Judge = max(JUDGES, key=arm.n_judged)
        gaps = arm.gaps[most if judge is None else judge]
        gap = gaps.interval(running=False) if gaps.n else None
        worst = max(JUDGES, key=lambda one: float(arm.falls[one].log_e))
        fall = arm.falls[worst]
        is_found = bool(fall.is_found)
        return QualityStatus(
            arm=name,
            estimate=found,
            judge=judge,
            n_judged={one: len(pairs) for one, pairs in arm.judged.items()},
            n_unsure=arm.n_unsure,
            gap=gap.value if gap else None,
            gap_low=max(-1.0, gap.low) if gap else None,
            gap_high=min(1.0, gap.high) if gap else None,
            is_overconfident=is_found,
            log_e=float(fall.log_e) if np.isfinite(fall.log_e) else None,
            log_e_limit=fall.log_e_limit,
            since=int(fall.since) if is_found else None,
        )

    def alerts(self, now: float) -> tuple[Alert, ...]:
        return tuple(
            Alert(
                name="calibration_broken",
                subject=one.arm or "no arm",
                severity="warning",
                message=(
                    f"answers of {one.arm or 'the route'} are right less often than their confidence says, "
                    f"surely by more than {self.margin:g}, since about judged answer {one.since:,} "
                    f"(log e-value {one.log_e:.1f}, alarm at {one.log_e_limit:.1f})."
                ),
                time=now,
                evidence={**msgspec.to_builtins(one), "alpha": self.alpha, "margin": self.margin},
            )
            for one in self.status()
            if one.is_overconfident
        )

    def lines(self) -> list[str]:
        return [quality_words(one) for one in self.status()] or ["quality: no answer with a confidence yet"]

    def state(self) -> dict[str, Any]:
        return {
            "plan": [self.alpha, self.margin],
            "arms": [
                {
                    "name": name,
                    "confidences": list(arm.confidences),
                    "judged": {judge: list(pairs) for judge, pairs in arm.judged.items()},
                    "n_unsure": arm.n_unsure,
                    "gaps": {judge: gap.state() for judge, gap in arm.gaps.items()},
                    "falls": {judge: fall.state() for judge, fall in arm.falls.items()},
                }
                for name, arm in self._arms.items()
            ],
            "waiting": list(self._waiting.items()),
            "audits": list(self._audits.items()),
        }

    def restore(self, state: dict[str, Any]) -> bool:
        if list(state["plan"]) != [self.alpha, self.margin]:
            return False
        self._arms = {}
        for kept in state["arms"]:
            arm = self._arms[kept["name"]] = _Arm(self.alpha / MOST_ARMS, self.margin)
            arm.confidences.extend(kept["confidences"])
            for judge in JUDGES:
                arm.judged[judge].extend((c, r, p) for c, r, p in kept["judged"][judge])
                arm.gaps[judge] = EmpiricalBernsteinSequence.from_state(kept["gaps"][judge])
                arm.falls[judge] = LateLoss.from_state(kept["falls"][judge])
            arm.n_unsure = int(kept["n_unsure"])
        self._waiting = OrderedDict((request, (a, c, o)) for request, (a, c, o) in state["waiting"])
        self._audits = OrderedDict((request, (o, p)) for request, (o, p) in state["audits"])
        return True


def quality_words(one: QualityStatus) -> str:
    """One arm in words."""
    found = one.estimate
    head = f"quality{f' of {one.arm}' if one.arm else ''}"
    if found.value is None or found.low is None or found.high is None:
        figure = "unknown" if found.value is None else f"{found.value:.1%} by confidence alone"
        return f"{head}: {figure}. It rests on {found.assumption}"
    watched = "OVERCONFIDENT" if one.is_overconfident else "calibration not disproved"
    return (
        f"{head}: {watched}. {found.value:.1%} right ({found.low:.1%} to {found.high:.1%}, at one look) "
        f"of the newest {found.n_answers:,} answers with a confidence; by confidence alone "
        f"{found.by_confidence:.1%}. It rests on this: {found.assumption}"
    )
