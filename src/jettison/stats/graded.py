"""A p-value for graded scores that small changes everywhere cannot fool into overlooking rare harm."""

import numpy as np

from jettison.stats.betting import betting_p
from jettison.stats.clustered import GroupSums, skew_corrected_p


def graded_p(by_group: GroupSums, difference: float) -> float:
    """One-sided p-value of "the mean difference is `difference` or less", of scores in [0, 1].

    The skew-corrected t, but never less than the chance that answers which fall from 1 to 0 stay unseen:
    where F1 changes a little on every example, the variance seen says nothing of a harm that is as rare
    as it is large, and t alone releases it many times too often (`design/graded-scores.md`).
    """
    mean = by_group.mean
    if mean <= difference or mean <= -1:
        return 1.0 if mean <= -1 else skew_corrected_p(by_group, difference)
    # Were the rest of the mean as seen, this share of examples would have to fall from there to -1.
    harm_share = min((mean - difference) / (1 + mean), 1.0)
    unchanged = GroupSums(sums=np.zeros(len(by_group.sums)), weights=by_group.weights, n=by_group.n)
    return max(skew_corrected_p(by_group, difference), betting_p(unchanged, -harm_share))
