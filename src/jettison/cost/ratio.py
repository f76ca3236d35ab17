"""The middle of a few paired figures, with its interval; numbers in, numbers out.

Two processes of one model differ for as long as they live, by where their memory came to lie, so the
rounds of one pair of processes agree with one another more than with those of the next pair. An interval
that is to hold for the model is taken over fresh processes: one figure an opening.
"""

from collections.abc import Sequence
from math import exp, sqrt

import numpy as np
from scipy import stats

from jettison.decision import Interval

OPENINGS = 6
"""Fresh processes of each target: t's factor is 2.6 with 6, 4.3 with 3, 12.7 with 2."""
MOST_OPENINGS = 100
MIN_ROUNDS = 6
"""Fewest for a 95 % interval of a median: all of n on one side has chance 2 x 0.5^n, 0.03 at 6."""


def median_interval(
    values: Sequence[float],
    *,
    confidence: float = 0.95,
    method: str = "median of interleaved blocks, ranks of the rounds",
) -> Interval | None:
    """Estimate the median of values that each came from one round.

    Args:
        values: One figure a round, shape (n_rounds,), such as the ratio of two CPU times.
        confidence: Coverage wanted, in (0, 1).
        method: Words kept with the interval.

    Returns:
        The median between two of the values; it holds at every number of rounds, whatever their law. None
        with fewer than `MIN_ROUNDS` rounds, or where not even the least and the most would do.

    Source:
        Order statistics: values under the true median are as many as heads of a fair coin (Hoefler &
        Belli 2015, SC'15, section 3.1.3).
    """
    found = np.sort(np.asarray(values, float))
    rank = int(stats.binom.ppf((1 - confidence) / 2, len(found), 0.5)) if len(found) else 0
    if len(found) < MIN_ROUNDS or rank < 1:
        return None
    return Interval(
        value=float(np.median(found)),
        low=float(found[rank - 1]),
        high=float(found[-rank]),
        confidence=confidence,
        method=method,
    )


def openings_interval(
    openings: Sequence[Sequence[float]],
    *,
    twins: Sequence[Sequence[float]] = (),
    confidence: float = 0.95,
    of: str = "figures",
) -> Interval | None:
    """Estimate a figure above 0 from several openings, each a fresh process with rounds of its own.

    Args:
        openings: Figures of the rounds of each opening, shape (n_openings, n_rounds of it), above 0;
            openings without any are left out.
        twins: The same ratios of a target's twin to itself, shape likewise: what varies among equals in
            this run. No interval is narrower than these would make it, as six figures may happen to lie
            close.
        confidence: Coverage wanted, in (0, 1).
        of: Of what, for the words kept with the interval.

    Returns:
        The geometric mean of the openings' medians with a t interval over openings (n_openings - 1
        degrees of freedom). With one opening the median of its rounds and the interval of their ranks,
        which holds for that process and no other; None where that has under `MIN_ROUNDS` rounds.

    Source:
        A random effect of each process on the logarithm, Student's t; the larger of two spreads errs to
        the wide side.
    """
    if sum(1 for rounds in openings if len(rounds)) < 2:
        return median_interval(
            [value for rounds in openings for value in rounds],
            confidence=confidence,
            method=f"median of {of}, ranks of the rounds of one process each",
        )
    logs = _middle_logs(openings)
    if logs is None:
        return None
    n = len(logs)
    spread = max(_spread(logs), _spread(_middle_logs(twins)))
    half = float(stats.t.ppf((1 + confidence) / 2, n - 1)) * spread / sqrt(n)
    middle = float(logs.mean())
    return Interval(
        value=exp(middle),
        low=exp(middle - half),
        high=exp(middle + half),
        confidence=confidence,
        method=f"{of}: mean of {n} openings in fresh processes, t over openings",
    )


def _middle_logs(openings: Sequence[Sequence[float]]) -> np.ndarray | None:
    """Logarithm of each opening's median; None where one is not above 0."""
    middles = np.asarray([float(np.median(rounds)) for rounds in openings if len(rounds)])
    return np.log(middles) if (middles > 0).all() and np.isfinite(middles).all() else None


def _spread(logs: np.ndarray | None) -> float:
    """Their standard deviation; 0 where it is not known."""
    return float(logs.std(ddof=1)) if logs is not None and len(logs) > 1 else 0.0


def aa_noise(ratio: float) -> float:
    """How far from 1 a ratio of equals came out, as max(ratio, 1/ratio) - 1."""
    return max(ratio, 1 / ratio) - 1
