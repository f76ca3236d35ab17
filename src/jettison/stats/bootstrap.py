"""Percentile bootstrap intervals, for display only: at a gate's margin they release far too often."""

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from jettison.errors import NotEnoughData
from jettison.stats.group_jackknife import effective_number
from jettison.stats.interval import Interval

Statistic = Callable[[np.ndarray], float]


def bootstrap_ci(
    statistic: Statistic,
    n: int,
    *,
    groups: ArrayLike | None = None,
    confidence: float = 0.95,
    n_draws: int = 1000,
    seed: int = 0,
) -> Interval:
    """Interval of any statistic of the examples, resampled whole groups at a time.

    Args:
        statistic: Takes the positions of the drawn examples, shape (about n,), gives a number;
            reading candidate and baseline at the same positions makes it paired.
        n: Examples.
        groups: Group of each example, shape (n,); None draws examples singly.
        confidence: Coverage wanted, in (0, 1).
        n_draws: Resamples.
        seed: Of the draws.

    Source:
        Expanded percentiles: Hesterberg 2015, The American Statistician 69:371. Draws of n vary too little
        and tell nothing of Student's t; n is here the effective number of groups.
    """
    if n < 2:
        raise NotEnoughData(f"a bootstrap needs at least 2 examples, got {n}.")
    rng = np.random.default_rng(seed)
    n_effective = float(n)
    if groups is None:
        draws = (rng.integers(0, n, n) for _ in range(n_draws))
    else:
        _, group_of = np.unique(np.asarray(groups), return_inverse=True)
        n_effective = effective_number(np.bincount(group_of))
        members = [np.flatnonzero(group_of == g) for g in range(int(group_of.max()) + 1)]
        draws = (
            np.concatenate([members[g] for g in rng.integers(0, len(members), len(members))])
            for _ in range(n_draws)
        )
    values = np.array([statistic(drawn) for drawn in draws])
    t = float(stats.t.isf((1 - confidence) / 2, max(n_effective - 1, 1)))
    tail = float(stats.norm.sf(t * np.sqrt(n_effective / max(n_effective - 1, 1))))
    low, high = np.quantile(values, [tail, 1 - tail])
    return Interval(
        value=float(statistic(np.arange(n))),
        low=float(low),
        high=float(high),
        confidence=confidence,
        method="percentile bootstrap",
    )
