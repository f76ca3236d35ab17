"""The statistic of each metric: what is shown, promoted and rolled back are all read from it.

Its bounds cover the mean of all observations, so that a loss which begins after a long good time moves
them late. A second statistic of the same observations watches for that alone, with a part of the
rollback's alpha: it promotes nothing, and what it finds is a rollback like any other.
"""

from collections.abc import Mapping
from typing import Any, Self

import msgspec
import numpy as np
from numpy.typing import ArrayLike

from jettison.monitor.plan import ExperimentPlan, Metric
from jettison.stats.bernstein_sequence import EmpiricalBernsteinSequence, arm_increments
from jettison.stats.betting_sequence import BettingSequence
from jettison.stats.interval import Interval
from jettison.stats.late_loss import BLOCK, LateLoss
from jettison.stats.log_histogram import LogHistogram


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """Where one metric stands."""

    metric: str
    role: str
    margin: float
    n: int
    """Observations: keys of a split, pairs of a shadow."""
    value: float | None
    """Treatment minus control, positive is better; None before the first observation of both."""
    low: float | None
    high: float | None
    verdict: str
    """`holds` (low is above minus the margin), `broken` (high is below it, or was at an earlier look) or
    `open`. A metric that held and then lost is `broken`, as is one that lost lately."""
    method: str
    control: float | None = None
    treatment: float | None = None
    late_log_e: float | None = None
    """Evidence that treatment lost more than the margin from some time on; None: not watched, or few."""
    late_limit: float | None = None
    """From here on it surely did."""
    late_since: int | None = None
    """About which observation the loss began at; None while it is not sure."""


class PairedEvidence:
    """Differences of shadow pairs, in [-1, 1]: betting."""

    def __init__(self, metric: Metric, plan: ExperimentPlan) -> None:
        self.metric = metric
        self._sequence = BettingSequence(
            alpha_low=plan.alpha, alpha_high=plan.alpha_bounds, means=_means(metric.margin)
        )
        self._late = LateLoss(alpha=plan.alpha_late, limit=-metric.margin)
        self._sum = 0.0

    def update(self, values: ArrayLike, treated: ArrayLike, shares: ArrayLike) -> None:
        differences = np.asarray(values, float)
        self._sequence.update((differences + 1) / 2)
        self._late.update(differences)
        self._sum = _added(self._sum, differences)

    def finding(self) -> Finding:
        shown = self._sequence.interval()
        value = self._sum / self._sequence.n if self._sequence.n else None
        return _finding(self.metric, shown, value, self._sequence.n, scale=2.0, shift=-1.0, late=self._late)

    def state(self) -> dict[str, Any]:
        return {"sequence": self._sequence.state(), "late": self._late.state(), "sum": self._sum}

    @classmethod
    def from_state(cls, metric: Metric, plan: ExperimentPlan, state: Mapping[str, Any]) -> Self:
        found = cls(metric, plan)
        found._sequence, found._sum = BettingSequence.from_state(state["sequence"]), state["sum"]
        found._late = LateLoss.from_state(state["late"])
        return found


class ArmsEvidence:
    """Outcomes of randomised arms, in [0, 1]: empirical Bernstein on inverse-propensity increments."""

    def __init__(self, metric: Metric, plan: ExperimentPlan) -> None:
        self.metric = metric
        self._sequence = EmpiricalBernsteinSequence(alpha_low=plan.alpha, alpha_high=plan.alpha_bounds)
        self._late = LateLoss(alpha=plan.alpha_late, limit=-metric.margin)
        self._total, self._sums, self._counts = 0.0, [0.0, 0.0], [0, 0]

    def update(self, values: ArrayLike, treated: ArrayLike, shares: ArrayLike) -> None:
        outcome, arm, share = np.asarray(values, float), np.asarray(treated, bool), np.asarray(shares)
        if not len(outcome):
            return
        # Each outcome is held against the mean of all before it, which takes most of the variance away.
        totals = np.add.accumulate(np.concatenate([[self._total], outcome]))
        center = (0.5 + totals[:-1]) / (sum(self._counts) + 1 + np.arange(len(outcome)))
        reach = 1 / np.minimum(share, 1 - share)
        increments = arm_increments(outcome, arm, share, np.clip(center, 0, 1))
        self._sequence.update(increments, low=-reach, high=reach)
        self._late.update(increments, low=-reach, high=reach)
        self._total = float(totals[-1])
        for side, chosen in enumerate((~arm, arm)):
            self._counts[side] += int(chosen.sum())
            self._sums[side] = _added(self._sums[side], outcome[chosen])

    def finding(self) -> Finding:
        means = [s / n if n else None for s, n in zip(self._sums, self._counts, strict=True)]
        shown = self._sequence.interval()
        value = None if None in means else shown.value
        now = self._sequence.interval(running=False)
        found = _finding(self.metric, shown, value, self._sequence.n, now=now, late=self._late)
        return msgspec.structs.replace(found, control=means[0], treatment=means[1])

    def state(self) -> dict[str, Any]:
        sums = {"total": self._total, "sums": self._sums, "counts": self._counts}
        return {"sequence": self._sequence.state(), "late": self._late.state(), **sums}

    @classmethod
    def from_state(cls, metric: Metric, plan: ExperimentPlan, state: Mapping[str, Any]) -> Self:
        found = cls(metric, plan)
        found._sequence = EmpiricalBernsteinSequence.from_state(state["sequence"])
        found._late = LateLoss.from_state(state["late"])
        found._total, found._sums, found._counts = state["total"], state["sums"], state["counts"]
        return found


class QuantileEvidence:
    """A latency quantile of each arm: sequential bounds of both, compared as a relative difference.

    For losses that begin late each answer is held against control's quantile so far, times the margin where
    it is treatment's: as long as the law of treatment's latencies is within the margin of control's, it is
    in time as often. Both are held against it at the same time: hours in which all is slower say nothing.
    """

    def __init__(self, metric: Metric, plan: ExperimentPlan) -> None:
        self.metric = metric
        self._alpha = min(plan.alpha, plan.alpha_bounds) / 2  # each arm's bounds may fail
        self._confidence = 1 - plan.alpha - plan.alpha_bounds
        self._arms = (LogHistogram(), LogHistogram())
        self._late = LateLoss(alpha=plan.alpha_late, limit=0.0)
        self._n, self._due = 0, BLOCK
        """Answers so far, and at how many the limit is taken anew."""
        self._limit_s: float | None = None

    def update(self, values: ArrayLike, treated: ArrayLike, shares: ArrayLike) -> None:
        seconds, arm, share = np.asarray(values, float), np.asarray(treated, bool), np.asarray(shares)
        start = 0
        while start < len(seconds):
            part = slice(start, min(len(seconds), start + self._due - self._n))
            self._hold(seconds[part], arm[part], share[part])
            for histogram, chosen in zip(self._arms, (~arm[part], arm[part]), strict=True):
                histogram.update(seconds[part][chosen])
            self._n, start = self._n + part.stop - start, part.stop
            if self._n == self._due:
                self._limit_s = self._arms[0].quantile(self.metric.quantile)
                self._due += max(BLOCK, self._n // 10)

    def _hold(self, seconds: np.ndarray, arm: np.ndarray, share: np.ndarray) -> None:
        if self._limit_s is None:
            return
        in_time = seconds <= self._limit_s * np.where(arm, 1 + self.metric.margin, 1.0)
        expected = np.full(len(seconds), self.metric.quantile)
        reach = 1 / np.minimum(share, 1 - share)
        self._late.update(arm_increments(in_time, arm, share, expected), low=-reach, high=reach)

    def finding(self) -> Finding:
        control, treatment = (arm.quantile(self.metric.quantile) for arm in self._arms)
        bounds = [arm.bounds(self.metric.quantile, alpha=self._alpha) for arm in self._arms]
        (low_c, high_c), (low_t, high_t) = bounds
        # Positive is better: 1 - treatment / control.
        low = 1 - high_t / low_c if low_c > 0 and high_t < float("inf") else float("-inf")
        shown = Interval(
            value=0.0,
            low=low,
            high=1 - low_t / high_c,
            confidence=self._confidence,
            method="sequential quantile bounds",
        )
        value = 1 - treatment / control if control and treatment is not None else None
        found = _finding(self.metric, shown, value, self._n, late=self._late)
        return msgspec.structs.replace(found, control=control, treatment=treatment)

    def state(self) -> dict[str, Any]:
        return {
            "arms": [arm.state() for arm in self._arms],
            "late": self._late.state(),
            "limit_s": self._limit_s,
            "due": self._due,
        }

    @classmethod
    def from_state(cls, metric: Metric, plan: ExperimentPlan, state: Mapping[str, Any]) -> Self:
        found = cls(metric, plan)
        control, treatment = (LogHistogram.from_state(arm) for arm in state["arms"])
        found._arms, found._n = (control, treatment), control.n + treatment.n
        found._late = LateLoss.from_state(state["late"])
        found._limit_s, found._due = state["limit_s"], state["due"]
        return found


AnyEvidence = PairedEvidence | ArmsEvidence | QuantileEvidence


def evidence_for(
    metric: Metric, plan: ExperimentPlan, state: Mapping[str, Any] | None = None
) -> AnyEvidence:
    """The statistic that fits a metric, fresh or going on from a state."""
    kind: type[AnyEvidence]
    if plan.kind == "shadow":
        kind = PairedEvidence
    else:
        kind = QuantileEvidence if metric.name == "latency_s" else ArmsEvidence
    return kind(metric, plan) if state is None else kind.from_state(metric, plan, state)


def _added(start: float, values: np.ndarray) -> float:
    """A sum carried on value by value, so that no digit hangs on how they were cut."""
    return float(np.add.accumulate(np.concatenate([[start], values]))[-1])


def _means(margin: float) -> np.ndarray:
    """Hypothetical means of (difference + 1) / 2: fine around no difference, the margin among them."""
    differences = np.concatenate([np.arange(-100, 101) / 100, np.arange(-100, 101) / 1000, [-margin, 0.0]])
    return np.unique((differences + 1) / 2)


def _finding(
    metric: Metric,
    shown: Interval,
    value: float | None,
    n: int,
    *,
    scale: float = 1.0,
    shift: float = 0.0,
    now: Interval | None = None,
    late: LateLoss | None = None,
) -> Finding:
    """What the bounds of all looks say; where the effect has left them, this moment's are shown."""
    low, high = shown.low * scale + shift, shown.high * scale + shift
    # A loss that came after the metric had held leaves the bounds of all looks inverted: the loss counts.
    is_late = late is not None and bool(late.is_found)
    broken, holds = is_late or high <= -metric.margin + 1e-12, low >= -metric.margin - 1e-12
    verdict = "broken" if broken else "holds" if holds else "open"
    if now is not None and value is not None and not low <= value <= high:
        low, high = now.low, now.high
    return Finding(
        metric=metric.name,
        role=metric.role,
        margin=metric.margin,
        n=n,
        value=value,
        low=low if np.isfinite(low) and n else None,
        high=high if np.isfinite(high) and n else None,
        verdict=verdict,
        method=shown.method,
        late_log_e=float(late.log_e) if late is not None and np.isfinite(late.log_e) else None,
        late_limit=late.log_e_limit if late is not None else None,
        late_since=int(late.since) if late is not None and is_late else None,
    )
