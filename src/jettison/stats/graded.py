"""P-values that small changes everywhere cannot fool into overlooking rare, large harm."""

from jettison.stats.betting import unseen_loss_p
from jettison.stats.clustered import GroupSums, skew_corrected_p


def graded_p(by_group: GroupSums, difference: float, *, fall: float = 1.0) -> float:
    """One-sided p-value of "the mean difference is `difference` or less", of graded scores.

    The skew-corrected t, but never less than the chance that answers which fall from 1 to 0 stay unseen:
    where F1 changes a little on every example, the variance seen says nothing of a harm that is as rare
    as it is large, and t alone releases it many times too often (`design/graded-scores.md`).

    Args:
        by_group: Differences, summed by group.
        difference: Hypothesized mean.
        fall: The largest loss on one example: 1 of scores in [0, 1].
    """
    return max(skew_corrected_p(by_group, difference), unseen_fall_p(by_group, difference, fall=fall))


def weighted_p(by_group: GroupSums, difference: float) -> float:
    """The same of right-or-wrong examples, each of a weight of its own.

    Never less than the chance that examples go wrong unseen, were the rest as seen: where many light ones
    change, t says nothing of a few heavy ones that have not yet.
    """
    return max(skew_corrected_p(by_group, difference), unseen_weight_p(by_group, difference))


def unseen_weight_p(by_group: GroupSums, difference: float, *, copies: float = 1.0) -> float:
    """Chance that no example shows that it went wrong, were the rest as seen and the truth `difference`."""
    hidden = min(by_group.mean - difference, 1.0)
    return 1.0 if hidden <= 0 else float(unseen_loss_p(by_group.weights, hidden) ** copies)


def unseen_fall_p(
    by_group: GroupSums, difference: float, *, fall: float = 1.0, copies: float = 1.0
) -> float:
    """`unseen_harm_p` of scores that can fall by `fall`."""
    if fall <= 0:
        return 0.0
    scaled = GroupSums(sums=by_group.sums / fall, weights=by_group.weights, n=by_group.n)
    return float(unseen_harm_p(scaled, difference / fall) ** copies)


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
