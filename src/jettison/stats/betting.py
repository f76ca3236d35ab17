"""A p-value for a bounded mean that holds at every sample size, by betting against the hypothesis.

Used where approximations fail: few groups with any change, one group that outweighs the
others, or few graded scores. The wealth of a mixture of fixed bets has mean at most 1 under
the hypothesis, so 1 / wealth is a p-value (Waudby-Smith & Ramdas 2024, JRSS B 86:1). Half the
stake is on the boldest bet, the rest lies dense below it: that is near the best any valid test
can do when next to nothing changed. The loss hypothesized is parted among the groups so that large
ones, in which harm hides best, do not tame the bet on the rest (design/grouped-examples.md).
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
_QUINTILE = 0.8416
"""Of the normal law: power 0.8."""


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


def unseen_loss_p(weights: np.ndarray, loss: float) -> float:
    """Largest chance that groups of these weights show nothing of a mean loss, however they share it.

    Each is then lost whole or not at all. It is the limit of every test.

    Args:
        weights: Shape (n_groups,), positive.
        loss: Mean loss over all weight, in 0-1.
    """
    if loss >= 1:
        return 0.0
    return math.exp(-_log_unseen(weights, loss))


def groups_to_show(weights: np.ndarray, loss: float, *, alpha: float = 0.025) -> int:
    """Groups like these in which a mean loss, in (0, 1), stays unseen with a chance of alpha at most."""
    return math.ceil(-math.log(alpha) / _log_unseen(weights, loss) * len(weights) - 1e-9)


def _log_unseen(weights: np.ndarray, loss: float) -> float:
    """Minus the logarithm of the largest chance that the loss stays unseen."""
    spread, stake = _spread_loss(np.asarray(weights, float), -loss)
    return float(np.log1p(stake * spread).sum())


def copies_needed(by_group: GroupSums, difference: float, *, alpha: float = 0.025) -> float | None:
    """How many times so many groups have to be drawn for `betting_p` to reach alpha with power 0.8.

    Exact copies of these groups would do with fewer, but new groups are never copies: with the number at
    which copies reach alpha, about every second draw does. Of each bet's log wealth over groups drawn from
    these the lower quintile is taken, by the normal law. Where no group changed, all draws are alike.

    Returns:
        1 when they suffice as they are; None when no number of groups like these would do.
    """
    logs = _log_factors(by_group, difference)
    growth, wanted = logs.sum(axis=0), -math.log(alpha)
    if _log_wealth(growth) >= wanted:
        return 1.0
    spread = np.zeros_like(growth)
    spread[np.isfinite(growth)] = logs[:, np.isfinite(growth)].std(axis=0) * math.sqrt(len(logs))

    def is_enough(copies: float) -> bool:
        return _log_wealth(copies * growth - _QUINTILE * math.sqrt(copies) * spread) >= wanted

    low, high = 1.0, _MOST_COPIES
    if not is_enough(high):
        return None
    while high / low > 1 + 1e-9:
        middle = math.sqrt(low * high)
        low, high = (low, middle) if is_enough(middle) else (middle, high)
    return high


def _growth(by_group: GroupSums, difference: float) -> np.ndarray:
    """Log wealth of each bet, shape of `BETS`; -inf for a bet that was ruined."""
    return np.asarray(_log_factors(by_group, difference).sum(axis=0))


def _log_factors(by_group: GroupSums, difference: float) -> np.ndarray:
    """What each group multiplies each bet's wealth by, on the logarithm, shape (n_groups, n_bets)."""
    spread, boldest = _spread_loss(by_group.weights, difference)
    with np.errstate(divide="ignore"):
        return np.asarray(np.log(np.maximum(1.0 + np.outer(spread + by_group.sums, BETS * boldest), 0.0)))


def _spread_loss(weights: np.ndarray, difference: float) -> tuple[np.ndarray, float]:
    """The loss hypothesized of each group, and the boldest stake that no group can ruin twice over.

    Any way to part the hypothesized loss among the groups leaves the wealth a mean of at most 1, if one
    stake is laid on all of them: the logarithm of that mean is at most the stake times what the parts
    exceed the truth by, and the parts sum to no more than the truth does. Here each group is asked for
    what it weighs beyond a level, so that the stake is one over the level. No other parting wins more
    when nothing changes: with this one the wealth of the boldest stake is one over the largest
    probability, under the hypothesis, that no group is lost. The level hangs on weights and hypothesis
    alone, never on outcomes, so that the p-value stays valid.

    Returns:
        Shape (n_groups,), summing to minus the difference times all weight; and the stake.
    """
    if difference >= 0:  # a gain: each group is asked for its share
        return -difference * weights, 1.0 / ((1.0 + difference) * float(weights.max()))
    heaviest = np.cumsum(np.sort(weights)[::-1])
    lost = -difference * heaviest[-1]
    level = float(((heaviest - lost) / np.arange(1, len(weights) + 1)).max())
    return np.maximum(weights - level, 0.0), 1.0 / level


def _log_wealth(growth: np.ndarray) -> float:
    return float(special.logsumexp(growth + _LOG_SHARES))
