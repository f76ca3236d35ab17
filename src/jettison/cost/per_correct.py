"""What one correct answer costs: the cost of a task over the share of answers that are right."""

from collections.abc import Sequence
from math import exp, log, sqrt

import numpy as np
from scipy import stats

from jettison.decision import Interval

METHOD = "mean cost / share correct, delta method on the logarithm"


def correct_share(correct: Sequence[float], *, confidence: float = 0.95) -> Interval | None:
    """Share of right answers with Wilson's interval; None without any judged answer.

    Args:
        correct: 1 for a right answer, 0 for a wrong or failed one, shares between for partial credit,
            one figure an example, shape (n_examples,).
        confidence: Coverage wanted, in (0, 1).
    """
    n = len(correct)
    if n == 0:
        return None
    share = float(np.mean(correct))
    z2 = float(stats.norm.ppf((1 + confidence) / 2)) ** 2
    middle = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = sqrt(z2 * share * (1 - share) / n + z2 * z2 / (4 * n * n)) / (1 + z2 / n)
    return Interval(
        value=share,
        low=max(0.0, middle - half),
        high=min(1.0, middle + half),
        confidence=confidence,
        method="Wilson",
    )


def per_correct(
    cost: Sequence[float], correct: Sequence[float], *, confidence: float = 0.95
) -> Interval | None:
    """Estimate the cost of one correct answer.

    Args:
        cost: Cost per task, one figure a block or a run, shape (n_blocks,), each above 0. A single
            figure is taken as known: only the share's doubt is then in the interval.
        correct: Score of each example in 0-1, shape (n_examples,).
        confidence: Coverage wanted, in (0, 1).

    Returns:
        mean(cost) / mean(correct) with its interval; None when nothing was right or judged, or a
        cost is not above 0.

    Source:
        Delta method: the relative variances of two independent means add up.
    """
    costs, scores = np.asarray(cost, float), np.asarray(correct, float)
    if not len(costs) or not len(scores) or not (costs > 0).all() or not np.isfinite(costs).all():
        return None
    share, mean = float(scores.mean()), float(costs.mean())
    if share <= 0:
        return None
    relative = float(scores.var()) / len(scores) / share**2
    if len(costs) > 1:
        relative += float(costs.var(ddof=1)) / len(costs) / mean**2
        factor = float(stats.t.ppf((1 + confidence) / 2, len(costs) - 1))
    else:
        factor = float(stats.norm.ppf((1 + confidence) / 2))
    value = mean / share
    half = factor * sqrt(relative)
    return Interval(
        value=value,
        low=exp(log(value) - half),
        high=exp(log(value) + half),
        confidence=confidence,
        method=METHOD,
    )
