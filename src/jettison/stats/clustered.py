"""Mean difference of paired scores when examples depend on each other in groups."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from jettison.errors import InvalidInput, NotEnoughData
from jettison.stats.group_jackknife import Bounds, jackknife_mean
from jettison.stats.interval import Interval

N_SIGN_FLIPS = 9_999


@dataclass(frozen=True)
class GroupSums:
    """Differences summed by group: all that the clustered tests read."""

    sums: np.ndarray
    """Weighted sum of the differences of each group, shape (n_groups,)."""
    weights: np.ndarray
    """Sum of the weights of each group, shape (n_groups,)."""
    n: int

    @property
    def mean(self) -> float:
        """Weighted mean difference."""
        return float(self.sums.sum() / self.weights.sum())


def mean_difference_ci(
    candidate: ArrayLike,
    baseline: ArrayLike,
    *,
    groups: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    bounds: Bounds | None = None,
    confidence: float = 0.95,
) -> Interval:
    """Estimate how much better the candidate scores than the baseline.

    Args:
        candidate: Scores, shape (n_examples,).
        baseline: Scores of the same examples in the same order, shape (n_examples,).
        groups: Group of each example, shape (n_examples,), when examples are
            not independent (turns of one chat). None treats each as its own group.
        weights: Weight of each example, shape (n_examples,), positive. None weighs all alike.
        bounds: Between what a difference lies (`DIFFERENCE`; `ONE_SCORE` where the baseline is 0). Where
            few examples differ, the interval covers only with them. None: not known.
        confidence: Coverage wanted, in (0, 1).

    Returns:
        mean(candidate - baseline) with its two-sided interval, in score units.

    Raises:
        InvalidInput: The shapes differ, or a score is not finite.
        NotEnoughData: Fewer than two groups.

    Source:
        Of equal groups the cluster-robust t with the G / (G - 1) correction and G - 1 degrees; Miller 2024,
        "Adding Error Bars to Evals", appendix A. Of unequal ones see `group_jackknife`.
    """
    difference, w, group_of = _checked(candidate, baseline, groups, weights)
    return jackknife_mean(difference, w, group_of, bounds=bounds, confidence=confidence)


def margin_p(by_group: GroupSums, difference: float) -> float:
    """One-sided p-value of "the true mean difference is `difference` or less", by the cluster-robust t."""
    error = standard_error(by_group)
    gap = by_group.mean - difference
    if error == 0:
        return 0.0 if gap > 0 else 1.0
    return float(stats.t.sf(gap / error, df=len(by_group.sums) - 1))


def skew_corrected_p(by_group: GroupSums, difference: float, *, copies: float = 1.0) -> float:
    """One-sided p-value of "the mean difference is `difference` or less", for skewed groups.

    With `copies` it is that of so many times these groups.

    Harm is rare and one-sided, so that a plain cluster-robust t releases up to three times
    too often at 100 groups. Hall's cubic takes the skewness out of t; its degrees of
    freedom are the effective number of groups less one, so that a few large changes do
    not pass for many small ones.

    Source:
        Hall 1992, JRSS B 54:221, on the removal of skewness by transformation.
    """
    error = standard_error(by_group) / np.sqrt(copies)
    gap = by_group.mean - difference
    if error == 0:
        return 0.0 if gap > 0 else 1.0
    residual = by_group.sums - by_group.mean * by_group.weights
    n_groups = copies * len(residual)
    skew = float((residual**3).mean() / (residual**2).mean() ** 1.5) / np.sqrt(n_groups)
    t = gap / error
    corrected = t + skew * t**2 / 3 + skew**2 * t**3 / 27 + skew / 6
    return float(stats.t.sf(corrected, df=max(copies * effective_groups(by_group) - 1, 1.0)))


def effective_groups(by_group: GroupSums) -> float:
    """Groups that share the variance: all of them when alike, few when few groups changed, 0 when none."""
    residual = by_group.sums - by_group.mean * by_group.weights
    fourth = float((residual**4).sum())
    return float((residual**2).sum()) ** 2 / fourth if fourth > 0 else 0.0


def sign_flip_p(by_group: GroupSums, difference: float, *, seed: int = 0) -> float:
    """One-sided p-value of "the mean difference is `difference` or less", for few groups.

    Flips the signs of whole groups' excess over the hypothesis: all ways for up to 13
    groups, `N_SIGN_FLIPS` seeded draws above. Assumes the excess is symmetric under the
    hypothesis.

    Source:
        Canay, Romano & Shaikh 2017, Econometrica 85:1013.
    """
    excess = by_group.sums - difference * by_group.weights
    signs = _signs(len(excess), seed)
    flipped = signs @ excess
    # Rounding may put the arrangement that was seen just above its own sum.
    as_large = int((flipped >= excess.sum() - 1e-9 * np.abs(excess).sum()).sum())
    every_way = len(excess) <= 13
    return as_large / len(signs) if every_way else (1 + as_large) / (1 + len(signs))


def standard_error(by_group: GroupSums) -> float:
    """CR1 standard error of the mean difference.

    Raises:
        NotEnoughData: Fewer than two groups.
    """
    n_groups = len(by_group.sums)
    if n_groups < 2:
        raise NotEnoughData(f"an interval needs at least 2 groups, got {n_groups}.")
    residual = by_group.sums - by_group.mean * by_group.weights
    variance = (residual**2).sum() * n_groups / (n_groups - 1) / by_group.weights.sum() ** 2
    return float(np.sqrt(variance))


def group_sums(
    candidate: ArrayLike,
    baseline: ArrayLike,
    *,
    groups: ArrayLike | None = None,
    weights: ArrayLike | None = None,
) -> GroupSums:
    """Sum the paired differences by group.

    Raises:
        InvalidInput: The shapes differ, a score is not finite or a weight not positive.
    """
    difference, w, group_of = _checked(candidate, baseline, groups, weights)
    return GroupSums(
        sums=np.bincount(group_of, weights=difference * w),
        weights=np.bincount(group_of, weights=w),
        n=len(difference),
    )


def _checked(
    candidate: ArrayLike, baseline: ArrayLike, groups: ArrayLike | None, weights: ArrayLike | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Difference, weight and group, 0..n_groups-1, of each example."""
    a, b = np.asarray(candidate, float), np.asarray(baseline, float)
    if a.shape != b.shape or a.ndim != 1:
        raise InvalidInput(
            f"candidate and baseline must share one shape (n_examples,), got {a.shape} and {b.shape}."
        )
    difference = a - b
    if not np.isfinite(difference).all():
        first = int(np.flatnonzero(~np.isfinite(difference))[0])
        raise InvalidInput(f"scores must be finite, got {difference[first]} at example {first}.")
    w = np.ones(len(a)) if weights is None else np.asarray(weights, float)
    labels = np.arange(len(a)) if groups is None else np.asarray(groups)
    for name, values in (("weights", w), ("groups", labels)):
        if values.shape != a.shape:
            raise InvalidInput(f"{name} must have the scores' shape {a.shape}, got {values.shape}.")
    if not (np.isfinite(w) & (w > 0)).all():
        first = int(np.flatnonzero(~(np.isfinite(w) & (w > 0)))[0])
        raise InvalidInput(f"weights must be positive, got {w[first]} at example {first}.")
    _, group_of = np.unique(labels, return_inverse=True)
    return difference, w, np.asarray(group_of)


@lru_cache(maxsize=8)
def _signs(n_groups: int, seed: int) -> np.ndarray:
    if n_groups <= 13:
        ways = np.arange(2**n_groups)[:, None] >> np.arange(n_groups) & 1
        return np.asarray(1.0 - 2.0 * ways)
    drawn = np.random.default_rng(seed).integers(0, 2, (N_SIGN_FLIPS, n_groups))
    return np.asarray(1.0 - 2.0 * drawn)
