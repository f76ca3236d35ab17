"""A p-value for a bounded mean that holds at every sample size, by betting against the hypothesis.

Used where approximations fail: few groups with any change, or few graded scores.
The wealth of a mixture of fixed bets has mean at most 1 under the hypothesis, so
1 / wealth is a p-value (Waudby-Smith & Ramdas 2024, JRSS B 86:1). Half the stake is on
the boldest bet, which keeps the test near the exact binomial one when nothing was harmed.
"""

import numpy as np
from scipy import special

from jettison.stats.clustered import GroupSums

BETS = np.append(np.linspace(0.02, 0.98, 49), 1.0)
"""Stakes, as a share of the largest that cannot be ruined by one outcome."""
_LOG_SHARES = np.log(np.append(np.full(49, 0.5 / 49), 0.5))


def betting_p(by_group: GroupSums, difference: float) -> float:
    """One-sided p-value of "the mean difference is `difference` or less".

    Args:
        by_group: Differences of scores in [0, 1], summed by group.
        difference: Hypothesized mean, in (-1, 1).

    Returns:
        A p-value valid for independent groups of any size up to the largest one seen.
    """
    largest = by_group.weights.max()
    excess = (by_group.sums - difference * by_group.weights) / largest
    worst = 1.0 + difference  # a group whose every score falls from 1 to 0 loses this much
    if worst <= 0:
        return 0.0  # no mean of differences in [-1, 1] is so low
    with np.errstate(divide="ignore"):
        growth = np.log(np.maximum(1.0 + np.outer(BETS / worst, excess), 0.0)).sum(axis=1)
    log_wealth = float(special.logsumexp(growth + _LOG_SHARES))
    return float(min(1.0, np.exp(-log_wealth)))
