"""Adjusts p-values when several claims are listed together.

"Ship only if every slice holds" needs none of this: it is an intersection-union test,
each slice at full alpha. A list "these slices are certified" does.
"""

import numpy as np
from numpy.typing import ArrayLike

from jettison.errors import InvalidInput


def holm(p_values: ArrayLike) -> np.ndarray:
    """Adjusted p-values in the order given; rejecting those up to alpha keeps the family error at alpha."""
    p = _checked(p_values)
    order = np.argsort(p, kind="stable")
    steps = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(steps, 1.0)
    return adjusted


def hommel(p_values: ArrayLike) -> np.ndarray:
    """Adjusted p-values by closed testing with Simes' test, in the order given.

    At least as powerful as Holm's; valid for independent or positively dependent p-values.

    Source:
        Hommel 1988, Biometrika 75:383; the adjustment of Wright 1992, Biometrics 48:1005.
    """
    p = _checked(p_values)
    n = len(p)
    order = np.argsort(p, kind="stable")
    ranked = p[order]
    if n < 2:
        return p
    lowest = float((n * ranked / np.arange(1, n + 1)).min())
    adjusted = np.full(n, lowest)
    for size in range(n - 1, 1, -1):
        first, last = ranked[: n - size + 1], ranked[n - size + 1 :]
        simes = float((size * last / np.arange(2, size + 1)).min())
        step = np.concatenate([np.minimum(size * first, simes), np.full(len(last), 0.0)])
        step[n - size + 1 :] = step[n - size]
        adjusted = np.maximum(adjusted, step)
    result = np.empty(n)
    result[order] = np.minimum(np.maximum(adjusted, ranked), 1.0)
    return result


def _checked(p_values: ArrayLike) -> np.ndarray:
    p = np.asarray(p_values, float)
    if p.ndim != 1 or not ((p >= 0) & (p <= 1)).all():
        raise InvalidInput(f"p-values must be one list of numbers in 0-1, got {p_values!r}.")
    return p
