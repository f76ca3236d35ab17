"""Intervals of a share."""

import numpy as np
from scipy import stats

from jettison.errors import InvalidInput, NotEnoughData
from jettison.stats.interval import Interval


def clopper_pearson(n_hits: int, n: int, *, confidence: float = 0.95) -> Interval:
    """Exact interval of a share; 0 of 1000 gives [0, 0.0037], never a width of zero."""
    _check(n_hits, n)
    tail = (1 - confidence) / 2
    low = 0.0 if n_hits == 0 else float(stats.beta.ppf(tail, n_hits, n - n_hits + 1))
    high = 1.0 if n_hits == n else float(stats.beta.isf(tail, n_hits + 1, n - n_hits))
    return Interval(value=n_hits / n, low=low, high=high, confidence=confidence, method="Clopper-Pearson")


def wilson(n_hits: int, n: int, *, confidence: float = 0.95) -> Interval:
    """Score interval of a share, for display; close to nominal coverage at every share."""
    _check(n_hits, n)
    z2 = float(stats.norm.isf((1 - confidence) / 2)) ** 2
    share = n_hits / n
    center = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = float(np.sqrt(z2 * (share * (1 - share) / n + z2 / (4 * n * n)))) / (1 + z2 / n)
    low = 0.0 if n_hits == 0 else center - half
    high = 1.0 if n_hits == n else center + half
    return Interval(value=share, low=low, high=high, confidence=confidence, method="Wilson")


def _check(n_hits: int, n: int) -> None:
    if n < 1:
        raise NotEnoughData(f"a share needs at least 1 example, got {n}.")
    if not 0 <= n_hits <= n:
        raise InvalidInput(f"hits must be a count from 0 to n = {n}, got {n_hits}.")
