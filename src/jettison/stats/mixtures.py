"""Mixture martingales with a closed form: counts against known shares, and normal mixtures.

Each is a likelihood ratio averaged over alternatives. It starts at 1 and cannot be expected to grow
where the hypothesis is true, so that its reaching 1/alpha at any time is an error of at most alpha.
"""

import math

import numpy as np
from numpy.typing import ArrayLike
from scipy import optimize, special, stats

from jettison.errors import InvalidInput, NotEnoughData
from jettison.stats.interval import Interval

SRM_ALPHA = 0.001
SRM_STRENGTH = 10_000.0
FEWEST_FLIPS = 50
"""Below so many nonzero differences the asymptotic sequence errs far more than alpha."""


def sample_ratio_log_e(counts: ArrayLike, shares: ArrayLike, *, strength: float = SRM_STRENGTH) -> float:
    """Log e-value of "the arms get these shares"; at log(1/alpha) or more they do not.

    Args:
        counts: Units seen in each arm, shape (n_arms,).
        shares: What each should get, in (0, 1), summing to 1, shape (n_arms,).
        strength: Of the Dirichlet prior around the shares. The flat prior (about 2) looks for gross
            faults; 1e4 finds imbalances of a percent soonest.

    Raises:
        InvalidInput: A share or count that cannot be.

    Source:
        Lindon & Malek 2022, "Anytime-valid inference for multinomial count data", equation 5.
    """
    n, p = np.asarray(counts, float), np.asarray(shares, float)
    if n.shape != p.shape or n.ndim != 1 or len(n) < 2:
        raise InvalidInput(
            f"counts and shares must share one shape (n_arms,), got {n.shape} and {p.shape}."
        )
    if (n < 0).any() or not (p > 0).all() or abs(float(p.sum()) - 1) > 1e-9:
        raise InvalidInput(f"shares must be positive and sum to 1, got {p.tolist()}.")
    prior = strength * p
    posterior = special.gammaln(prior + n).sum() - special.gammaln(strength + n.sum())
    before = special.gammaln(prior).sum() - special.gammaln(strength)
    return float(posterior - before - (n * np.log(p)).sum())


def share_sequence(n_hits: int, n: int, *, alpha: float = 0.05) -> Interval:
    """Confidence sequence of a constant share: the shares that a Beta(1, 1) mixture does not disprove.

    Args:
        n_hits: Hits so far.
        n: Trials so far.
        alpha: Two-sided error probability over all time.

    Source:
        Robbins 1970; the mixture of Lindon & Malek 2022 with two arms.
    """
    if n < 1:
        raise NotEnoughData(f"a share needs at least 1 trial, got {n}.")
    if not 0 <= n_hits <= n:
        raise InvalidInput(f"hits must be a count from 0 to n = {n}, got {n_hits}.")

    def excess(share: float) -> float:
        known = special.xlogy(n_hits, share) + special.xlog1py(n - n_hits, -share)
        return float(special.betaln(n_hits + 1, n - n_hits + 1) - known + math.log(alpha))

    seen, edge = n_hits / n, 1e-15
    low = 0.0 if n_hits == 0 else float(optimize.brentq(excess, edge, seen, xtol=1e-12))
    high = 1.0 if n_hits == n else float(optimize.brentq(excess, seen, 1 - edge, xtol=1e-12))
    return Interval(value=seen, low=low, high=high, confidence=1 - alpha, method="Beta-mixture sequence")


def quantile_ranks(n: int, share: float, *, alpha: float, strength: float = 100.0) -> tuple[int, int]:
    """Between which ranks of n values a quantile lies, at every n together.

    Of n values, the number at or under the true quantile is a sum of coins with that share; the
    mixture says how far it can stray. Ties only make the bounds wider.

    Args:
        n: Values so far.
        share: The quantile wanted, in (0, 1).
        alpha: Two-sided error probability over all time.
        strength: Of the Beta prior around the share.

    Returns:
        (r, s): the quantile is at least the r-th smallest value and at most the s-th;
        0 and n + 1 mean that there is no bound yet.
    """
    prior = strength * share, strength * (1 - share)
    start = special.betaln(*prior)

    def kept(hits: int) -> bool:
        ratio = special.betaln(prior[0] + hits, prior[1] + n - hits) - start
        return bool(ratio - hits * math.log(share) - (n - hits) * math.log1p(-share) < -math.log(alpha))

    middle = min(n, max(0, round(n * share)))
    return _edge(kept, middle, -1, 0), _edge(kept, middle, 1, n) + 1


def _edge(kept: "object", middle: int, step: int, end: int) -> int:
    """The last count from the middle towards the end that is kept; kept counts lie together."""
    assert callable(kept)
    low, high = 0, abs(end - middle)
    while low < high:
        half = (low + high + 1) // 2
        low, high = (half, high) if kept(middle + step * half) else (low, half - 1)
    return middle + step * low


def normal_mixture_rho(variance: float, alpha: float) -> float:
    """Prior precision at which the two-sided bound is tightest when `variance` has been gathered."""
    log_level = 2 * math.log(1 / alpha)
    return variance / (log_level + math.log1p(log_level))


def normal_mixture_bound(variance: float, rho: float, alpha: float, *, one_sided: bool = False) -> float:
    """How far a sum of so much variance may stray from its mean, at any time, with probability alpha.

    Source:
        Howard et al. 2021, propositions 5 and 6 (Robbins' mixture).
    """
    if not one_sided:
        return math.sqrt((variance + rho) * math.log((variance + rho) / (rho * alpha**2)))

    def excess(total: float) -> float:
        spread = math.sqrt(variance + rho)
        growth = 0.5 * math.log(4 * rho / (variance + rho)) + total**2 / (2 * (variance + rho))
        return growth + float(stats.norm.logcdf(total / spread)) + math.log(alpha)

    widest = normal_mixture_bound(variance, rho, alpha / 2)
    return float(optimize.brentq(excess, 0.0, 2 * widest, xtol=1e-10))


def normal_mixture_log_e(total: float, variance: float, rho: float) -> float:
    """Log of the two-sided normal mixture: the mSPRT of Johari et al. 2022 with rho = s2 / tau2."""
    return 0.5 * math.log(rho / (variance + rho)) + total**2 / (2 * (variance + rho))


def asymptotic_sequence(values: ArrayLike, *, alpha: float = 0.05, tightest_at: int = 500) -> Interval:
    """Confidence sequence of a mean that needs no bound on the values, but many of them.

    Args:
        values: Differences, shape (n,); zeros are answers that did not change.
        alpha: Two-sided error probability over all time, in the limit.
        tightest_at: Sample size at which the interval is tightest.

    Raises:
        NotEnoughData: Fewer than `FEWEST_FLIPS` values differ from zero: it is not to be trusted.

    Source:
        Waudby-Smith et al. 2024, Annals of Statistics 52:6, theorem 2.2.
    """
    x = np.asarray(values, float)
    n_flips = int((x != 0).sum())
    if n_flips < FEWEST_FLIPS:
        raise NotEnoughData(
            f"an asymptotic sequence needs at least {FEWEST_FLIPS} values other than 0, got {n_flips}. "
            "The betting sequence holds at every number."
        )
    n = len(x)
    log_level = -2 * math.log(alpha)
    rho2 = (log_level + math.log1p(log_level)) / tightest_at
    inner = 2 * (n * rho2 + 1) / (n**2 * rho2) * math.log(math.sqrt(n * rho2 + 1) / alpha)
    half = float(x.std()) * math.sqrt(inner)
    mean = float(x.mean())
    return Interval(
        value=mean, low=mean - half, high=mean + half, confidence=1 - alpha, method="asymptotic sequence"
    )
