"""A p-value for graded scores that small changes everywhere cannot fool into overlooking rare harm."""

from jettison.stats.clustered import GroupSums, skew_corrected_p


def graded_p(by_group: GroupSums, difference: float) -> float:
    """One-sided p-value of "the mean difference is `difference` or less", of scores in [0, 1].

    The skew-corrected t, but never less than the chance that answers which fall from 1 to 0 stay unseen:
    where F1 changes a little on every example, the variance seen says nothing of a harm that is as rare
    as it is large, and t alone releases it many times too often (`design/graded-scores.md`).
    """
    return max(skew_corrected_p(by_group, difference), unseen_harm_p(by_group, difference))


def unseen_harm_p(by_group: GroupSums, difference: float) -> float:
    """Chance that no group shows a fall to -1, were the rest as seen and the truth `difference`.

    Groups of unlike weight count as fewer, all as heavy as the heaviest: falls may strike there.
    """
    mean = by_group.mean
    if mean <= difference:
        return 1.0
    harm_share = min((mean - difference) / (1 + mean), 1.0)
    n_groups = float(by_group.weights.sum() / by_group.weights.max())
    return float((1 - harm_share) ** n_groups)
