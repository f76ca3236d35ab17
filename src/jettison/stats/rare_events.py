"""Rare events: an exact upper bound of their rate, and evidence that it is above a limit."""

import math

import numpy as np
from scipy import special, stats

from jettison.errors import InvalidInput, NotEnoughData

FACTORS = (1.25, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0, 100.0, 300.0, 1000.0)
"""How many times the limit the rate may be, each as likely as the others."""


def rate_upper_bound(n_hits: int, n: int, *, confidence: float = 0.95) -> float:
    """Exact one-sided upper bound of a rate at one look; of none in n about 3 / n.

    Args:
        n_hits: Trials in which the event happened.
        n: Trials.
        confidence: Coverage, in (0, 1).

    Raises:
        NotEnoughData: No trial.
        InvalidInput: More hits than trials.

    Source:
        Clopper & Pearson 1934. Of none: 1 - (1 - confidence)^(1 / n), the rule of three.
    """
    _check(n_hits, n)
    if n_hits == n:
        return 1.0
    return float(stats.beta.isf(1 - confidence, n_hits + 1, n - n_hits))


def rate_above_log_e(n_hits: int, n: int, *, limit: float) -> float:
    """Log e-value of "at no time was the rate above the limit"; at log(1/alpha) it surely was.

    The likelihood ratio of a higher rate to the limit, averaged over `FACTORS`. Where each trial's rate is
    at most the limit, none of them can be expected to grow, so that the first look at which it reaches
    1/alpha errs with probability alpha at most. The rate need not be constant.

    Args:
        n_hits: Trials in which the event happened.
        n: Trials.
        limit: Largest rate that is allowed, in (0, 1).

    Raises:
        InvalidInput: A limit or count that cannot be.

    Source:
        Ville's inequality for a mixture of likelihood ratios; Robbins 1970.
    """
    if not 0 < limit < 1:
        raise InvalidInput(f"the limit of a rate must be in (0, 1), got {limit}.")
    if not 0 <= n_hits <= n:
        raise InvalidInput(f"hits must be a count from 0 to n = {n}, got {n_hits}.")
    rates = [limit + (1 - limit) * 0.5] + [limit * k for k in FACTORS if limit * k < 1]
    grown = [
        n_hits * math.log(rate / limit) + (n - n_hits) * math.log((1 - rate) / (1 - limit))
        for rate in rates
    ]
    return float(special.logsumexp(grown) - np.log(len(grown)))


def _check(n_hits: int, n: int) -> None:
    if n < 1:
        raise NotEnoughData(f"a rate needs at least 1 trial, got {n}.")
    if not 0 <= n_hits <= n:
        raise InvalidInput(f"hits must be a count from 0 to n = {n}, got {n_hits}.")
