"""Bounds for a few planned looks at growing data: O'Brien-Fleming, Pocock, and Lan-DeMets spending.

Where looks are scheduled (each night, at a third of the test split), these cost next to no power against
one look at the end; betting (`sequential.py`) is for looks whenever one likes, and pays for it.
"""

from collections.abc import Callable, Sequence
from functools import cache
from typing import Literal

import numpy as np
from scipy.optimize import brentq
from scipy.special import ndtr, ndtri
from scipy.stats import norm

from jettison.errors import InvalidInput

Spending = Literal["obrien_fleming", "pocock"]
MOST_LOOKS = 50
_POINTS = 121
_TAIL = 8.0
"""Statistics are integrated from this many standard deviations down: 1e-15 lies beyond."""


def classic_bounds(n_looks: int, *, alpha: float = 0.025, shape: Spending = "obrien_fleming") -> np.ndarray:
    """z-values to exceed at equally spaced looks: c / sqrt(k / K), or a constant (Pocock), one-sided.

    Args:
        n_looks: K, 1 to 50.
        alpha: Probability over all looks that a statistic without effect exceeds its bound, in (0, 0.5).
        shape: Which family.

    Returns:
        Shape (n_looks,).

    Source:
        O'Brien & Fleming 1979; Pocock 1977; Jennison & Turnbull 2000, chapters 2 and 19.
    """
    times = np.arange(1, _checked_looks(n_looks) + 1) / n_looks
    _check_alpha(alpha)
    form = 1 / np.sqrt(times) if shape == "obrien_fleming" else np.ones(n_looks)

    def excess(scale: float) -> float:
        return float(crossing_probabilities(times, scale * form).sum()) - alpha

    return np.asarray(float(brentq(excess, 0.1, 8.0, xtol=1e-7)) * form)


def spending_bounds(
    information_shares: Sequence[float], *, alpha: float = 0.025, shape: Spending = "obrien_fleming"
) -> np.ndarray:
    """z-values to exceed at looks that come as they come: alpha is spent by the share of data seen.

    A bound depends on the looks up to its own alone, so that later ones need not be known.

    Args:
        information_shares: Examples seen at each look over those seen at the last one planned, ascending,
            in (0, 1].
        alpha: One-sided, over all looks.
        shape: Of the spending function: like O'Brien-Fleming's bounds, or like Pocock's.

    Returns:
        Shape (n_looks,).

    Source:
        Lan & DeMets 1983, "Discrete sequential boundaries for clinical trials".
    """
    times = np.asarray(information_shares, float)
    _checked_looks(len(times))
    _check_alpha(alpha)
    if not (times > 0).all() or not (np.diff(times) > 0).all() or times[-1] > 1:
        raise InvalidInput(f"information shares must ascend within (0, 1], got {times.tolist()}.")
    spent = _spent(times, alpha, shape)
    bounds: list[float] = []
    for k, increment in enumerate(np.diff(spent, prepend=0.0).tolist()):

        def excess(bound: float, k: int = k, increment: float = increment) -> float:
            tried = np.array([*bounds, bound])
            return float(crossing_probabilities(times[: k + 1], tried)[-1]) - increment

        bounds.append(float(brentq(excess, -4.0, _TAIL, xtol=1e-7)) if increment > 1e-14 else np.inf)
    return np.array(bounds)


def crossing_probabilities(
    information_shares: Sequence[float] | np.ndarray,
    bounds: Sequence[float] | np.ndarray,
    *,
    drift: float = 0.0,
) -> np.ndarray:
    """Probability that z exceeds its bound at each look for the first time.

    Args:
        information_shares: Ascending, in (0, 1], shape (n_looks,).
        bounds: Of z, shape (n_looks,).
        drift: Mean of z when all data is seen: 0 without effect; `sum` is then the error, else the power.

    Source:
        Armitage, McPherson & Rowe 1969: the density of what has not crossed is carried from look to look.
    """
    times, upper = np.asarray(information_shares, float), np.asarray(bounds, float)
    if times.shape != upper.shape or times.ndim != 1:
        raise InvalidInput(f"each look needs one bound, got {times.shape} looks and {upper.shape} bounds.")
    found = np.empty(len(times))
    # The score S = z * sqrt(t) has independent increments of variance t - t_before and mean drift * dt.
    found[0] = 1 - ndtr(upper[0] - drift * np.sqrt(times[0]))
    at, weight = _grid(times[0], upper[0], drift)
    density = weight * norm.pdf(at, drift * times[0], np.sqrt(times[0]))
    for k in range(1, len(times)):
        step = times[k] - times[k - 1]
        mean, spread = at + drift * step, np.sqrt(step)
        limit = upper[k] * np.sqrt(times[k])
        found[k] = float(density @ (1 - ndtr((limit - mean) / spread)))
        to, weight = _grid(times[k], upper[k], drift)
        density = weight * (density @ norm.pdf((to[None, :] - mean[:, None]) / spread) / spread)
        at = to
    return found


def _grid(time: float, bound: float, drift: float) -> tuple[np.ndarray, np.ndarray]:
    """Points of the score below the bound and their Gauss-Legendre weights."""
    low = drift * time - _TAIL * np.sqrt(time)
    high = min(bound * np.sqrt(time), drift * time + _TAIL * np.sqrt(time))
    x, w = _legendre()
    half = max(high - low, 0.0) / 2
    return low + half * (x + 1), half * w


@cache
def _legendre() -> tuple[np.ndarray, np.ndarray]:
    return np.polynomial.legendre.leggauss(_POINTS)


def _spent(times: np.ndarray, alpha: float, shape: Spending) -> np.ndarray:
    spending: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        "obrien_fleming": lambda t: 2 * (1 - ndtr(ndtri(1 - alpha / 2) / np.sqrt(t))),
        "pocock": lambda t: alpha * np.log(1 + (np.e - 1) * t),
    }
    return spending[shape](times)


def _checked_looks(n_looks: int) -> int:
    if not 1 <= n_looks <= MOST_LOOKS:
        raise InvalidInput(f"looks must be 1 to {MOST_LOOKS}, got {n_looks}.")
    return n_looks


def _check_alpha(alpha: float) -> None:
    if not 0 < alpha < 0.5:
        raise InvalidInput(f"alpha must be in (0, 0.5), got {alpha}.")
