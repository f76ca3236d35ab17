"""The middle of a few paired figures, with a bootstrap interval; numbers in, numbers out."""

from collections.abc import Sequence

import numpy as np

from jettison.decision import Interval

MIN_ROUNDS = 6
"""Fewest for a 95 % interval of a median: all of n on one side has chance 2 x 0.5^n, 0.03 at 6."""


def median_interval(
    values: Sequence[float],
    *,
    rng: np.random.Generator,
    confidence: float = 0.95,
    n_resamples: int = 2000,
    method: str = "median of interleaved blocks, bootstrap over rounds",
) -> Interval | None:
    """Estimate the median of values that each came from one round.

    Args:
        values: One figure a round, shape (n_rounds,), such as the ratio of two CPU times.
        rng: Draws the resamples.
        confidence: Coverage wanted, in (0, 1).
        n_resamples: How many times the rounds are drawn again.
        method: Words kept with the interval.

    Returns:
        The median with its percentile bootstrap interval; None with fewer than `MIN_ROUNDS`
        rounds, where an interval would promise more than it can hold.
    """
    found = np.asarray(values, float)
    if len(found) < MIN_ROUNDS:
        return None
    draws = np.median(found[rng.integers(0, len(found), (n_resamples, len(found)))], axis=1)
    low, high = np.quantile(draws, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(
        value=float(np.median(found)),
        low=float(low),
        high=float(high),
        confidence=confidence,
        method=method,
    )


def aa_noise(ratio: float) -> float:
    """How far from 1 a ratio of equals came out, as max(ratio, 1/ratio) - 1."""
    return max(ratio, 1 / ratio) - 1
