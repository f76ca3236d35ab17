"""The exact unconditional test for paired right-or-wrong answers, for few discordant pairs.

All tables as favorable as the one seen are summed, at the flip rate that makes them
likeliest: valid at every sample size. The flip rate is searched below its own upper
confidence bound, whose error is added to the p-value (Berger & Boos 1994, JASA 89:1012).
"""

from functools import lru_cache, partial

import numpy as np
from scipy import optimize, special, stats

NUISANCE_ERROR = 1e-4
"""The most error spent on bounding the flip rate."""
TAIL = 1e-5
"""Probability of tables left out of the sum, as a share of that error; it counts as favorable."""
N_RATES = 60


def nuisance_error(alpha: float) -> float:
    """Error to spend on bounding the flip rate in a test at `alpha`: at most a tenth of it.

    It is a floor under the p-value: at 1e-4 for all, no test at a smaller alpha could ever pass. Less of
    it is no gain, since the flip rate is then searched further up: with a 200th, alpha 0.001 takes 6 %
    more examples to pass when no answer changes.
    """
    return min(NUISANCE_ERROR, alpha / 10)


@lru_cache(maxsize=65536)
def exact_p(
    beneficial: int, harmful: int, n: int, difference: float, *, nuisance: float = NUISANCE_ERROR
) -> float:
    """One-sided p-value of "the true difference is `difference` or less".

    Tables are ordered by Tango's statistic.

    Args:
        beneficial: Pairs with only the candidate right.
        harmful: Pairs with only the baseline right.
        n: Pairs in all.
        difference: Hypothesized P(candidate right) - P(baseline right), in (-1, 1).
        nuisance: Error spent on bounding the flip rate, which is in the p-value. It must not hang on the
            data: `nuisance_error` of the alpha at which the p-value is read.
    """
    from jettison.stats.paired import tango_z

    flips = beneficial + harmful
    flip_bound = 1.0 if flips >= n else float(stats.beta.isf(nuisance, flips + 1, n - flips))
    if flip_bound <= abs(difference):
        # So large a difference needs more flips than there can be: a loss is ruled out, a gain is not.
        return nuisance if difference < 0 else 1.0
    most = int(min(n, stats.binom.isf(TAIL * nuisance, n, flip_bound) + 1))
    b, c = _tables(most)
    seen = float(tango_z(beneficial, harmful, n, difference))
    favorable = tango_z(b, c, n, difference) >= seen - 1e-9
    b, c = b[favorable], c[favorable]

    weight = _log_coefficient(b, c, n)

    def log_probability(rate: float) -> float:
        p_harmful, p_beneficial = (rate - difference) / 2, (rate + difference) / 2
        logs = weight + _log_powers(b, c, n, p_beneficial, p_harmful)
        top = logs.max(initial=-np.inf)
        return float(top + np.log(np.exp(logs - top).sum())) if np.isfinite(top) else -np.inf

    rates = np.linspace(abs(difference), flip_bound, N_RATES)
    values = np.array([log_probability(rate) for rate in rates])
    top = int(values.argmax())
    around = (rates[max(top - 1, 0)], rates[min(top + 1, N_RATES - 1)])
    found = optimize.minimize_scalar(lambda rate: -log_probability(rate), bounds=around, method="bounded")
    highest = max(values[top], -float(found.fun))
    return float(min(1.0, np.exp(highest) + (1 + TAIL) * nuisance))


@lru_cache(maxsize=65536)
def exact_bound(beneficial: int, harmful: int, n: int, *, alpha: float) -> float:
    """Lower bound of the difference: the smallest one the exact test does not reject at `alpha`."""
    value = (beneficial - harmful) / n
    low, high = -1.0 + 1e-9, value
    p_at = partial(exact_p, beneficial, harmful, n, nuisance=nuisance_error(alpha))
    if p_at(low) > alpha:
        return -1.0
    while high - low > 1e-6:
        middle = (low + high) / 2
        low, high = (low, middle) if p_at(middle) > alpha else (middle, high)
    return low


@lru_cache(maxsize=64)
def _tables(most: int) -> tuple[np.ndarray, np.ndarray]:
    b, c = np.meshgrid(np.arange(most + 1), np.arange(most + 1), indexing="ij")
    kept = b + c <= most
    return b[kept], c[kept]


def _log_pmf(b: np.ndarray, c: np.ndarray, n: int, p_b: float, p_c: float) -> np.ndarray:
    return np.asarray(_log_coefficient(b, c, n) + _log_powers(b, c, n, p_b, p_c))


def _log_coefficient(b: np.ndarray, c: np.ndarray, n: int) -> np.ndarray:
    """Log of the number of ways to place b and c among n."""
    parts = special.gammaln(b + 1) + special.gammaln(c + 1) + special.gammaln(n - b - c + 1)
    return np.asarray(special.gammaln(n + 1) - parts)


def _log_powers(b: np.ndarray, c: np.ndarray, n: int, p_b: float, p_c: float) -> np.ndarray:
    """Log of p_b^b p_c^c p_rest^rest; 0^0 is 1."""
    p_rest = max(1.0 - p_b - p_c, 0.0)
    if min(p_b, p_c, p_rest) > 0:
        return np.asarray(b * np.log(p_b) + c * np.log(p_c) + (n - b - c) * np.log(p_rest))
    return np.asarray(
        special.xlogy(b, max(p_b, 0.0)) + special.xlogy(c, max(p_c, 0.0)) + special.xlogy(n - b - c, p_rest)
    )
