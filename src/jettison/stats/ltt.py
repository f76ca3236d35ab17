"""Certifies a cascade's threshold: with confidence 1 - delta the harm stays at most epsilon.

Learn-then-Test (Angelopoulos et al. 2021): each threshold of a grid fixed beforehand is a
hypothesis "more than epsilon of all answers are harmed"; they are tested in a fixed order,
from "all to the fallback" downwards, and the walk stops at the first that is not rejected.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from jettison.errors import InvalidInput, NotEnoughData

GRID = np.unique(np.concatenate([np.linspace(0.0, 1.0, 201), 1.0 - np.geomspace(1e-6, 0.01, 41)]))[::-1]
"""Thresholds tested when none are given: every half point, and finer close to 1; descending."""


@dataclass(frozen=True, kw_only=True)
class Certified:
    """A threshold that may be used, and what it was certified on."""

    threshold: float
    """The lean model's answer is kept where its score is at least this."""
    n_examples: int
    n_harmful: int
    """Kept answers that were wrong where the fallback was right."""
    accepted_share: float
    """Share of the examples that the lean model kept, in 0-1."""


def certify_threshold(
    scores: ArrayLike,
    harmful: ArrayLike,
    *,
    epsilon: float,
    delta: float,
    grid: ArrayLike | None = None,
) -> Certified | None:
    """Find the lowest threshold whose harm is certified.

    Args:
        scores: Confidence of the lean model, shape (n_examples,), on examples that neither
            model nor score was fitted on.
        harmful: Whether the lean answer is wrong where the fallback's is right, shape (n_examples,).
        epsilon: Share of all answers that may be harmed, in (0, 1).
        delta: Probability, in (0, 1), that the certificate does not hold.
        grid: Thresholds, chosen without looking at `harmful`; None takes a fixed grid on [0, 1].

    Returns:
        The certified threshold, or None when not even the highest can be certified.

    Raises:
        InvalidInput: The shapes differ, a score is not finite, or a level is out of range.
        NotEnoughData: No examples.
    """
    s, h = np.asarray(scores, float), np.asarray(harmful).astype(bool)
    if s.shape != h.shape or s.ndim != 1:
        raise InvalidInput(
            f"scores and harmful must share one shape (n_examples,), got {s.shape} and {h.shape}."
        )
    if len(s) == 0:
        raise NotEnoughData("a certificate needs at least 1 example, got 0.")
    if not np.isfinite(s).all():
        first = int(np.flatnonzero(~np.isfinite(s))[0])
        raise InvalidInput(f"scores must be finite, got {s[first]} at example {first}.")
    for name, level in (("epsilon", epsilon), ("delta", delta)):
        if not 0 < level < 1:
            raise InvalidInput(f"{name} must be in (0, 1), got {level}.")

    thresholds = GRID if grid is None else np.sort(np.asarray(grid, float))[::-1]
    n_kept, n_harmful = _count_above(s, thresholds), _count_above(s[h], thresholds)
    failed = np.flatnonzero(stats.binom.cdf(n_harmful, len(s), epsilon) > delta)
    last = (int(failed[0]) if len(failed) else len(thresholds)) - 1
    if last < 0:
        return None
    return Certified(
        threshold=float(thresholds[last]),
        n_examples=len(s),
        n_harmful=int(n_harmful[last]),
        accepted_share=float(n_kept[last] / len(s)),
    )


def _count_above(scores: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """Scores at or above each threshold, shape of the thresholds."""
    return np.asarray(len(scores) - np.searchsorted(np.sort(scores), thresholds, side="left"))


def binomial_p(n_harmful: int, n: int, epsilon: float) -> float:
    """Exact p-value of "the true share of harm is above epsilon", for 0/1 harm."""
    return float(stats.binom.cdf(n_harmful, n, epsilon))


def hoeffding_bentkus_p(risk: float, n: int, epsilon: float) -> float:
    """The p-value of the same hypothesis for any loss in [0, 1]; for 0/1 harm `binomial_p` is smaller.

    Args:
        risk: Mean loss seen, in 0-1.
        n: Examples.
        epsilon: Hypothesized mean loss, in (0, 1).

    Source:
        Bates et al. 2021, "Distribution-free, risk-controlling prediction sets", section 3.1.
    """
    capped = min(risk, epsilon)
    divergence = 0.0
    if capped > 0:
        divergence += capped * np.log(capped / epsilon)
    if capped < 1:
        divergence += (1 - capped) * np.log((1 - capped) / (1 - epsilon))
    hoeffding = np.exp(-n * divergence)
    bentkus = np.e * stats.binom.cdf(np.ceil(n * risk - 1e-9), n, epsilon)
    return float(min(hoeffding, bentkus, 1.0))
