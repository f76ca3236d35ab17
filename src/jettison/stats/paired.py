"""Tango's score test and interval for paired right-or-wrong answers."""

from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike
from scipy import optimize, stats

from jettison.errors import InvalidInput, NotEnoughData
from jettison.stats.exact import exact_bound, exact_p, nuisance_error
from jettison.stats.interval import Interval, MarginTest

FEW_FLIPS = 10
"""Below so many discordant pairs the exact unconditional test takes the place of Tango's."""


def tango_z(beneficial: ArrayLike, harmful: ArrayLike, n: int, difference: float) -> np.ndarray:
    """Score statistic of the hypothesis that the true difference is `difference`.

    Args:
        beneficial: Pairs with only the candidate right; any shape.
        harmful: Pairs with only the baseline right; same shape.
        n: Pairs in all.
        difference: Hypothesized P(candidate right) - P(baseline right), in (-1, 1).

    Returns:
        z, same shape; large when the candidate is better than hypothesized.

    Source:
        Tango 1998, Statistics in Medicine 17:891-908, equation 5.
    """
    b, c = np.asarray(beneficial, float), np.asarray(harmful, float)
    linear = -b - c + (2 * n - b + c) * difference
    constant = -c * difference * (1 - difference)
    root = np.sqrt(np.maximum(linear**2 - 8 * n * constant, 0.0))
    harmful_share = (root - linear) / (4 * n)
    variance = n * (2 * harmful_share + difference * (1 - difference))
    numerator = b - c - n * difference
    with np.errstate(divide="ignore", invalid="ignore"):
        z = numerator / np.sqrt(np.maximum(variance, 0.0))
    return np.where(numerator == 0, 0.0, z)


def tango_p(beneficial: int, harmful: int, n: int, *, margin: float) -> float:
    """One-sided p-value of "the candidate loses the margin or more", without the small-count safeguard."""
    return float(stats.norm.sf(tango_z(beneficial, harmful, n, -margin)))


def tango_interval(beneficial: int, harmful: int, n: int, *, confidence: float = 0.95) -> Interval:
    """Invert Tango's test: the differences it does not reject.

    Source:
        Tango 1998; the roots equal the closed form of Yang, Sun & Hardin 2012.
    """
    _check_counts(beneficial, harmful, n)
    z = float(stats.norm.isf((1 - confidence) / 2))
    value = (beneficial - harmful) / n
    low = -1.0 if harmful == n else _root(beneficial, harmful, n, z, -1.0, value)
    high = 1.0 if beneficial == n else _root(beneficial, harmful, n, -z, value, 1.0)
    return Interval(value=value, low=low, high=high, confidence=confidence, method="Tango score")


def paired_test(
    beneficial: int, harmful: int, n: int, *, margin: float, alpha: float = 0.025
) -> MarginTest:
    """Judge a loss of right answers against a margin, from paired counts.

    Tango's score test; the exact unconditional test where fewer than `FEW_FLIPS` pairs
    are discordant, since no approximation is safe there.

    Args:
        beneficial: Pairs with only the candidate right.
        harmful: Pairs with only the baseline right.
        n: Pairs in all.
        margin: Loss that still counts as not worse, in 0-1.
        alpha: One-sided error probability; the interval has confidence 1 - 2 alpha.

    Raises:
        InvalidInput: Counts that cannot be, or a margin or alpha out of range.
        NotEnoughData: No pairs.
    """
    _check_counts(beneficial, harmful, n)
    if not 0 < alpha < 0.5:
        raise InvalidInput(f"alpha must be in (0, 0.5), got {alpha}.")
    if not 0 <= margin < 1:
        raise InvalidInput(f"margin must be in [0, 1), got {margin}.")
    return _paired_test(int(beneficial), int(harmful), int(n), margin, alpha)


@lru_cache(maxsize=65536)
def _paired_test(b: int, c: int, n: int, margin: float, alpha: float) -> MarginTest:
    if b + c >= FEW_FLIPS:
        z = float(tango_z(b, c, n, -margin))
        interval = tango_interval(b, c, n, confidence=1 - 2 * alpha)
        p_not_worse, p_worse = float(stats.norm.sf(z)), float(stats.norm.cdf(z))
    else:
        value = (b - c) / n
        interval = Interval(
            value=value,
            low=min(value, exact_bound(b, c, n, alpha=alpha)),
            high=max(value, -exact_bound(c, b, n, alpha=alpha)),
            confidence=1 - 2 * alpha,
            method="exact unconditional",
        )
        nuisance = nuisance_error(alpha)
        p_not_worse = exact_p(b, c, n, -margin, nuisance=nuisance)
        p_worse = exact_p(c, b, n, margin, nuisance=nuisance)
    return MarginTest(
        interval=interval, p_not_worse=p_not_worse, p_worse=p_worse, n=n, n_groups=n, method=interval.method
    )


def mcnemar(beneficial: int, harmful: int, n: int) -> tuple[float, Interval]:
    """McNemar's chi-square and the Wald interval, for reference only: the gate uses neither."""
    _check_counts(beneficial, harmful, n)
    discordant = beneficial + harmful
    if discordant == 0:
        raise NotEnoughData("McNemar's test needs at least 1 discordant pair, got 0.")
    value = (beneficial - harmful) / n
    half = float(stats.norm.isf(0.025)) * np.sqrt(discordant - (beneficial - harmful) ** 2 / n) / n
    interval = Interval(value=value, low=float(value - half), high=float(value + half), method="Wald")
    return (beneficial - harmful) ** 2 / discordant, interval


def _root(b: int, c: int, n: int, z: float, start: float, end: float) -> float:
    def excess(difference: float) -> float:
        return float(tango_z(b, c, n, difference)) - z

    inside = 1e-12
    low, high = max(start, -1 + inside), min(end, 1 - inside)
    if excess(low) <= 0:
        return start if start == -1.0 else low
    if excess(high) >= 0:
        return end if end == 1.0 else high
    return float(optimize.brentq(excess, low, high, xtol=1e-12))


def _check_counts(beneficial: int, harmful: int, n: int) -> None:
    if n < 1:
        raise NotEnoughData(f"a paired test needs at least 1 pair, got {n}.")
    if beneficial < 0 or harmful < 0 or beneficial + harmful > n:
        raise InvalidInput(
            f"flips must be counts that sum to at most n = {n}, "
            f"got {beneficial} beneficial and {harmful} harmful."
        )
