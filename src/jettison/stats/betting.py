"""A p-value for a bounded mean that holds at every sample size, by betting against the hypothesis.

Used where approximations fail: few groups with any change, one group that outweighs the
others, or few graded scores. The wealth of a mixture of fixed bets has mean at most 1 under
the hypothesis, so 1 / wealth is a p-value (Waudby-Smith & Ramdas 2024, JRSS B 86:1). Half the
stake is on the boldest bet, the rest lies dense below it: that is near the best any valid test
can do when next to nothing changed. Groups so large that they would tame every bet are set
aside and taken as lost (design/grouped-examples.md).
"""

import math

import numpy as np
from scipy import special

from jettison.stats.clustered import GroupSums

_N_CAUTIOUS = 30
BETS = np.append(1.0, 1.0 - np.geomspace(0.01, 0.98, _N_CAUTIOUS))
"""Stakes, as a share of the largest that cannot be ruined by one outcome."""
_LOG_SHARES = np.log(np.append(0.5, np.full(_N_CAUTIOUS, 0.5 / _N_CAUTIOUS)))
_MOST_COPIES = 1e7
_MOST_CUTS = 32


def betting_p(by_group: GroupSums, difference: float) -> float:
    """One-sided p-value of "the mean difference is `difference` or less".

    Args:
        by_group: Differences of scores in [0, 1], summed by group.
        difference: Hypothesized mean, in (-1, 1).

    Returns:
        A p-value valid for independent groups of any size up to the largest one seen.
    """
    if difference <= -1:
        return 0.0  # no mean of differences in [-1, 1] is so low
    return float(min(1.0, np.exp(-_log_wealth(_growth(by_group, difference)))))


def smallest_group_margin(weights: np.ndarray, *, alpha: float = 0.025) -> float:
    """Smallest margin that groups of these weights, shape (n_groups,), certify when nothing changes."""
    unchanged = GroupSums(sums=np.zeros(len(weights)), weights=weights, n=len(weights))
    low, high = 0.0, 1.0
    while high - low > 1e-6:
        middle = (low + high) / 2
        low, high = (low, middle) if betting_p(unchanged, -middle) <= alpha else (middle, high)
    return high


def copies_needed(by_group: GroupSums, difference: float, *, alpha: float = 0.025) -> float | None:
    """How many times these groups would have to be seen for `betting_p` to reach alpha.

    Returns:
        1 when they suffice as they are; None when no number of groups like these would do.
    """
    growth = _growth(by_group, difference)
    wanted = -math.log(alpha)
    low, high = 1.0, _MOST_COPIES
    if _log_wealth(growth) >= wanted:
        return 1.0
    if _log_wealth(high * growth) < wanted:
        return None
    while high / low > 1 + 1e-9:
        middle = math.sqrt(low * high)
        low, high = (low, middle) if _log_wealth(middle * growth) >= wanted else (middle, high)
    return high


def _growth(by_group: GroupSums, difference: float) -> np.ndarray:
    """Log wealth of each bet, shape of `BETS`; -inf for a bet that was ruined."""
    by_group, difference = _without_largest(by_group, difference)
    excess = (by_group.sums - difference * by_group.weights) / by_group.weights.max()
    worst = 1.0 + difference  # a group whose every score falls from 1 to 0 loses this much
    with np.errstate(divide="ignore"):
        logs = np.log(np.maximum(1.0 + np.outer(BETS / worst, excess), 0.0))
    return np.asarray(logs.sum(axis=1))


def _without_largest(by_group: GroupSums, difference: float) -> tuple[GroupSums, float]:
    """The groups up to some size, with the hypothesis left for them when all larger ones are lost.

    No group can lose more than its weight, so that the hypothesis on the rest follows from
    the one on all. The size is the one at which unchanged answers would win most: it is
    chosen by sizes and hypothesis alone, never by outcomes, so that the p-value stays valid.
    """
    sizes, counts = np.unique(by_group.weights, return_counts=True)
    kept = np.cumsum(sizes * counts)
    left = 1.0 - (1.0 + difference) * kept[-1] / kept  # loss hypothesized of the rest, shape (n_sizes,)
    cuts = np.flatnonzero(left > 0)
    if len(cuts) < 2:
        return by_group, difference
    cuts = np.unique(cuts[np.linspace(0, len(cuts) - 1, _MOST_CUTS).astype(int)])
    bet = left[cuts] / (1 - left[cuts]) / sizes[cuts]
    within = np.arange(len(sizes)) <= cuts[:, None]
    wins = np.where(within, np.log1p(bet[:, None] * sizes), 0.0) @ counts
    cut = int(cuts[np.argmax(wins)])
    rest = by_group.weights <= sizes[cut]
    return GroupSums(by_group.sums[rest], by_group.weights[rest], n=by_group.n), -float(left[cut])


def _log_wealth(growth: np.ndarray) -> float:
    return float(special.logsumexp(growth + _LOG_SHARES))
