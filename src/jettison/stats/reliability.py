"""Curves behind the single numbers of calibration: reliability with intervals, risk against coverage."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from jettison.errors import InvalidInput, NotEnoughData
from jettison.stats.binomial import wilson
from jettison.stats.calibration import equal_bins


@dataclass(frozen=True, kw_only=True)
class ReliabilityBin:
    """Answers of like confidence."""

    confidence: float
    """Mean, in 0-1."""
    right_share: float
    low: float
    high: float
    """Wilson interval of the share of right answers."""
    n: int

    @property
    def is_off(self) -> bool:
        """Whether the mean confidence lies outside the interval."""
        return not self.low <= self.confidence <= self.high


def reliability(
    confidence: ArrayLike, correct: ArrayLike, *, n_bins: int = 10, level: float = 0.95
) -> tuple[ReliabilityBin, ...]:
    """Share of right answers against confidence, in bins of equally many answers, least sure first.

    Answers of equal confidence are never parted.

    Args:
        confidence: Probability that the answer is right, shape (n_answers,).
        correct: Whether it was, shape (n_answers,), 0 or 1.
        n_bins: At most; never more than one for each ten answers.
        level: Coverage of each bin's interval.
    """
    p, y = _pair(confidence, correct)
    parts = equal_bins(p, n_bins)
    found = []
    for part in parts:
        seen = wilson(int(y[part].sum()), len(part), confidence=level)
        found.append(
            ReliabilityBin(
                confidence=float(p[part].mean()),
                right_share=seen.value,
                low=seen.low,
                high=seen.high,
                n=len(part),
            )
        )
    return tuple(found)


@dataclass(frozen=True, kw_only=True)
class RiskPoint:
    """What is wrong among the answers that would be kept."""

    coverage: float
    """Share of the answers kept, the surest ones, in 0-1."""
    risk: float
    """Share of them that is wrong."""
    low: float
    high: float
    threshold: float
    """Confidence from which on they are kept."""


def risk_coverage(
    confidence: ArrayLike, correct: ArrayLike, *, n_points: int = 50, level: float = 0.95
) -> tuple[RiskPoint, ...]:
    """Error rate of the surest answers at growing coverage, where a threshold can cut.

    Answers of equal confidence are kept or left together.
    """
    p, y = _pair(confidence, correct)
    order = np.argsort(-p, kind="stable")
    p, wrong = p[order], np.cumsum(1 - y[order])
    ends = np.flatnonzero(np.append(p[:-1] != p[1:], True))
    chosen = np.unique(np.searchsorted(ends, np.linspace(1, len(p), n_points) - 1).clip(max=len(ends) - 1))
    found = []
    for end in ends[chosen].tolist():
        seen = wilson(round(float(wrong[end])), end + 1, confidence=level)
        found.append(
            RiskPoint(
                coverage=(end + 1) / len(p),
                risk=seen.value,
                low=seen.low,
                high=seen.high,
                threshold=float(p[end]),
            )
        )
    return tuple(found)


def _pair(confidence: ArrayLike, correct: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    p, y = np.asarray(confidence, float), np.asarray(correct, float)
    if p.shape != y.shape or p.ndim != 1:
        raise InvalidInput(
            f"confidence and correct must share one shape (n_answers,), got {p.shape} and {y.shape}."
        )
    if len(p) == 0:
        raise NotEnoughData("a curve needs at least 1 answer, got 0.")
    if not ((p >= 0) & (p <= 1)).all() or not np.isin(y, (0.0, 1.0)).all():
        raise InvalidInput("confidences must be in 0-1, and answers right (1) or wrong (0).")
    return p, y
