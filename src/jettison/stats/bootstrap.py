"""Percentile bootstrap intervals, for display only: at a gate's margin they release far too often."""

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

from jettison.errors import NotEnoughData
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
    """
    if n < 2:
        raise NotEnoughData(f"a bootstrap needs at least 2 examples, got {n}.")
    rng = np.random.default_rng(seed)
    if groups is None:
        draws = (rng.integers(0, n, n) for _ in range(n_draws))
    else:
        _, group_of = np.unique(np.asarray(groups), return_inverse=True)
        members = [np.flatnonzero(group_of == g) for g in range(int(group_of.max()) + 1)]
        draws = (
            np.concatenate([members[g] for g in rng.integers(0, len(members), len(members))])
            for _ in range(n_draws)
        )
    values = np.array([statistic(drawn) for drawn in draws])
    low, high = np.quantile(values, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(
        value=float(statistic(np.arange(n))),
        low=float(low),
        high=float(high),
        confidence=confidence,
        method="percentile bootstrap",
    )
