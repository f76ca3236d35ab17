"""Running mean and variance that know only the past, for many streams at once, the same in any batches.

Sums are carried by `np.add.accumulate`, which adds one value after the other: cutting a stream into
other batches, or stopping and going on from a saved state, changes no digit.
"""

from dataclasses import dataclass

import numpy as np

PRIOR_MEAN = 0.5
PRIOR_VARIANCE = 0.25
"""One imagined observation, like a fair coin (Waudby-Smith & Ramdas 2024, eq. 15)."""


@dataclass(frozen=True, kw_only=True)
class Past:
    """What was known before each value of a batch, and the sums after it."""

    count: np.ndarray
    """Position of each value in its stream, from 1, shape (n,)."""
    mean: np.ndarray
    """Mean before each value, shape (*streams, n)."""
    variance: np.ndarray
    """Variance before each value, shape (*streams, n)."""
    total: np.ndarray
    """Sum after the batch, shape (*streams,)."""
    squares: np.ndarray
    """Sum of squared deviations from the mean of their time, after the batch, shape (*streams,)."""


def past_of(values: np.ndarray, n: int, total: np.ndarray, squares: np.ndarray) -> Past:
    """Go on from sums over the first `n` values of each stream.

    Args:
        values: In [0, 1], shape (*streams, n_values), oldest first.
        n: Values of each stream seen before.
        total: Their sum, shape (*streams,).
        squares: Their squared deviations, shape (*streams,).
    """
    count = np.arange(n + 1, n + values.shape[-1] + 1, dtype=float)
    totals = carried(total, values)
    means = (PRIOR_MEAN + totals) / (np.arange(n, n + len(count) + 1) + 1.0)
    deviations = carried(squares, (values - means[..., 1:]) ** 2)
    variances = (PRIOR_VARIANCE + deviations[..., :-1]) / count
    return Past(
        count=count,
        mean=means[..., :-1],
        variance=variances,
        total=totals[..., -1],
        squares=deviations[..., -1],
    )


def carried(start: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Running sums along the last axis, the start first: shape (*streams, n_values + 1)."""
    return np.asarray(np.add.accumulate(np.concatenate([start[..., None], values], axis=-1), axis=-1))


def bet_sizes(past: Past, alpha: float) -> np.ndarray:
    """Size of each bet before it is capped: sqrt(2 log(1/alpha) / (variance t log(1 + t)))."""
    return np.asarray(np.sqrt(2 * np.log(1 / alpha) / (past.variance * past.count * np.log1p(past.count))))
