"""Chooses the test that holds for the data at hand, and judges a difference against a margin.

| data | test |
|---|---|
| right-or-wrong, independent, equal weights | Tango score; exact unconditional under 10 discordant pairs |
| under 10 effective groups changed (5 of under 20), or under 100 graded | betting, valid at every size |
| one of 20 groups or more holds over a tenth of the weight | betting |
| under 20 groups | sign flips of whole groups, and the next: the larger p-value |
| else | cluster-robust t, corrected for skewness; graded, unbounded or of examples of their own weights, \
never surer than unseen harm allows |
"""

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import norm

from jettison.errors import InvalidInput, NotEnoughData
from jettison.stats.betting import betting_p, copies_needed, groups_to_show, smallest_group_margin
from jettison.stats.clustered import (
    GroupSums,
    effective_groups,
    group_sums,
    sign_flip_p,
    skew_corrected_p,
    standard_error,
)
from jettison.stats.graded import graded_p, unseen_fall_p, unseen_weight_p, weighted_p
from jettison.stats.interval import Interval, MarginTest
from jettison.stats.paired import FEW_FLIPS, paired_test

FEW_GROUPS = 20
FEW_GRADED = 100
HEAVY_GROUP = 0.1
"""Share of the weight in one group beyond which the variance between groups tells too little of it."""
POWER = 0.8
MOST_COPIES = 1e7
PValue = Callable[[GroupSums, float], float]
Unseen = Callable[..., float]
"""Chance that harm stays unseen: of groups, a difference and how many times there are so many groups."""


def margin_test(
    candidate: ArrayLike,
    baseline: ArrayLike,
    *,
    margin: float,
    alpha: float = 0.025,
    groups: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    seed: int = 0,
) -> MarginTest:
    """Judge whether the candidate's mean score is within the margin of the baseline's.

    Args:
        candidate: Scores, shape (n_examples,).
        baseline: Scores of the same examples in the same order, shape (n_examples,).
        margin: Loss that still counts as not worse, in score units.
        alpha: One-sided error probability; the interval has confidence 1 - 2 alpha.
        groups: Group of each example when some depend on each other.
        weights: Positive weight of each example.
        seed: For the draws of the sign-flip test.

    Raises:
        InvalidInput: The shapes differ, or a value is out of range.
        NotEnoughData: No examples, fewer than two groups, or too few changes in scores without bounds.
    """
    if not 0 < alpha < 0.5:
        raise InvalidInput(f"alpha must be in (0, 0.5), got {alpha}.")
    if not (np.isfinite(margin) and margin >= 0):
        raise InvalidInput(f"margin must be zero or more, got {margin}.")
    a, b = np.asarray(candidate, float), np.asarray(baseline, float)
    by_group = group_sums(a, b, groups=groups, weights=weights)
    if by_group.n == 0:
        raise NotEnoughData("a comparison needs at least 1 example scored for both, got 0.")
    n_groups = len(by_group.sums)
    binary = bool(np.isin(a, (0.0, 1.0)).all() and np.isin(b, (0.0, 1.0)).all())
    alike = weights is None or len(np.unique(np.asarray(weights, float))) == 1
    if binary and alike and n_groups == by_group.n and margin < 1:
        beneficial, harmful = int((a > b).sum()), int((a < b).sum())
        return paired_test(beneficial, harmful, by_group.n, margin=margin, alpha=alpha)

    bounded = bool(((a >= 0) & (a <= 1) & (b >= 0) & (b <= 1)).all())
    # What a score can fall by where no bound is known: to nothing, or to the lowest seen.
    fall = 1.0 if bounded else float(max(a.max(), b.max()) - min(a.min(), b.min(), 0.0))
    p_value, method = _choose(by_group, binary=binary, bounded=bounded, fall=fall, alpha=alpha, seed=seed)
    if p_value is betting_p:
        return _judge_by_betting(by_group, margin, alpha)
    test = _judge(by_group, margin, alpha, p_value, method)
    if min(test.p_not_worse, test.p_worse) > alpha:
        unseen: Unseen | None = None
        if not binary:
            unseen = partial(unseen_fall_p, fall=fall)
        elif n_groups == by_group.n:
            unseen = unseen_weight_p
        test = replace(test, n_groups_needed=_groups_needed(by_group, margin, alpha, unseen))
    if not binary or n_groups == by_group.n or not 0 < margin < 1:
        return test
    to_show = groups_to_show(by_group.weights, margin, alpha=alpha)
    return replace(test, n_groups_to_show=to_show) if to_show > n_groups else test


def _groups_needed(by_group: GroupSums, margin: float, alpha: float, unseen: "Unseen | None") -> int | None:
    """Groups like these with which the t settles it with power 0.8, and no unseen harm is in its way."""
    ships = by_group.mean > -margin
    side, difference = (by_group, -margin) if ships else (_mirrored(by_group), margin)
    if side.mean <= difference:
        return None
    z_power = float(norm.isf(1 - POWER))
    surely = float(norm.sf(norm.isf(alpha) + z_power))
    error = standard_error(side)

    def is_enough(copies: float) -> bool:
        if skew_corrected_p(side, difference, copies=copies) > surely:
            return False
        # Where the mean may come out as low as in the worst of five draws.
        worst = difference + z_power * error / math.sqrt(copies)
        return unseen is None or unseen(side, worst, copies=copies) <= alpha

    low, high = 1.0, MOST_COPIES
    if not is_enough(high):
        return None
    while high / low > 1.001:
        middle = math.sqrt(low * high)
        low, high = (low, middle) if is_enough(middle) else (middle, high)
    return max(math.ceil(high * len(by_group.sums)), FEW_GROUPS)


def ships_by_group(
    by_group: GroupSums, *, margin: float, alpha: float = 0.025, binary: bool = True, seed: int = 0
) -> bool:
    """Whether `margin_test` ships scores in [0, 1] by groups; quicker, without an interval."""
    try:
        p_value, _ = _choose(by_group, binary=binary, bounded=True, fall=1.0, alpha=alpha, seed=seed)
    except NotEnoughData:
        return False
    return p_value(by_group, -margin) <= alpha


def _choose(
    by_group: GroupSums, *, binary: bool, bounded: bool, fall: float, alpha: float, seed: int
) -> tuple[PValue, str]:
    """The test that the table above names, and what it is called."""
    n_groups = len(by_group.sums)
    n_effective = effective_groups(by_group) if n_groups > 1 else 0.0
    few_changes = n_effective < (FEW_FLIPS if n_groups >= FEW_GROUPS else FEW_FLIPS / 2)
    if few_changes and not bounded:
        raise NotEnoughData(
            f"scores outside 0-1 need about {FEW_FLIPS} groups in which they differ, got {n_effective:.3g}."
        )
    heavy = n_groups >= FEW_GROUPS and by_group.weights.max() > HEAVY_GROUP * by_group.weights.sum()
    if bounded and (few_changes or heavy or (not binary and n_groups < FEW_GRADED)):
        return betting_p, "betting, exact"
    if n_groups < FEW_GROUPS:
        if 0.5**n_groups > alpha:
            raise NotEnoughData(
                f"a verdict at alpha {alpha:g} needs at least {math.ceil(-math.log2(alpha))} groups, "
                f"got {n_groups}."
            )
        return partial(_few_groups_p, seed=seed), "sign flips of groups"
    name = "cluster-robust t" if n_groups < by_group.n else "paired t"
    p_value: PValue
    if not binary:
        p_value = graded_p if bounded else partial(graded_p, fall=fall)
    else:
        p_value = skew_corrected_p if n_groups < by_group.n else weighted_p
    return p_value, f"{name}, skewness corrected"


def _few_groups_p(by_group: GroupSums, difference: float, *, seed: int) -> float:
    """The larger of two p-values: sign flips alone release skewed groups too often."""
    by_signs = sign_flip_p(by_group, difference, seed=seed)
    return max(by_signs, skew_corrected_p(by_group, difference))


def _judge_by_betting(by_group: GroupSums, margin: float, alpha: float) -> MarginTest:
    """With what these groups could certify at best, and how many like them would settle it."""
    test = _judge(by_group, margin, alpha, betting_p, "betting, exact")
    side, difference = (by_group, -margin) if by_group.mean > -margin else (_mirrored(by_group), margin)
    copies = copies_needed(side, difference, alpha=alpha) if -1 < difference < 1 else None
    return replace(
        test,
        largest_share=float(by_group.weights.max() / by_group.weights.sum()),
        smallest_margin=smallest_group_margin(by_group.weights, alpha=alpha),
        n_groups_needed=None if copies is None else math.ceil(copies * len(by_group.sums) - 1e-6),
    )


def _judge(by_group: GroupSums, margin: float, alpha: float, p_value: PValue, method: str) -> MarginTest:
    mirrored = _mirrored(by_group)
    interval = Interval(
        value=by_group.mean,
        low=_bound(by_group, p_value, alpha),
        high=-_bound(mirrored, p_value, alpha),
        confidence=1 - 2 * alpha,
        method=method,
    )
    return MarginTest(
        interval=interval,
        p_not_worse=p_value(by_group, -margin),
        p_worse=p_value(mirrored, margin),
        n=by_group.n,
        n_groups=len(by_group.sums),
        method=method,
    )


def _mirrored(by_group: GroupSums) -> GroupSums:
    return GroupSums(sums=-by_group.sums, weights=by_group.weights, n=by_group.n)


def _bound(by_group: GroupSums, p_value: PValue, alpha: float) -> float:
    """Lower bound of the mean: the smallest one that the test does not reject."""
    mean = by_group.mean
    step = max(1.0, abs(mean), float(np.abs(by_group.sums / by_group.weights).max()))
    low, high = mean - step, mean
    for _ in range(12):
        if p_value(by_group, low) <= alpha:
            break
        high, low, step = low, low - 2 * step, 2 * step
    else:
        return float("-inf")
    tolerance = 1e-9 * max(1.0, abs(mean))
    while high - low > tolerance:
        middle = (low + high) / 2
        low, high = (low, middle) if p_value(by_group, middle) > alpha else (middle, high)
    return low
