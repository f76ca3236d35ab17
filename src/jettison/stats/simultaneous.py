"""Lower bounds of several slices' differences that hold together, for a list of certified slices."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from jettison.errors import InvalidInput, NotEnoughData

N_DRAWS = 4_000
FEWEST_CHANGED = 10
"""Groups with a change below which a slice is refused: no normal law holds there."""


@dataclass(frozen=True, kw_only=True)
class SimultaneousBounds:
    """One row a slice."""

    difference: np.ndarray
    """Mean difference of each slice, shape (n_slices,)."""
    low: np.ndarray
    """Lower bounds that all hold together with the confidence asked for."""
    critical: float
    """Standard errors below the mean, before skewness is corrected for; one slice needs less."""


def max_t_bounds(
    difference: ArrayLike,
    members: Sequence[ArrayLike],
    *,
    groups: ArrayLike | None = None,
    alpha: float = 0.025,
    n_draws: int = N_DRAWS,
    seed: int = 0,
) -> SimultaneousBounds:
    """Bounds by the largest studentized deviation over all slices, which overlap and depend on each other.

    Never used to ship: that needs every slice, each at full alpha. A slice in which few groups changed has
    a normal approximation that is no good and is refused; give those to the exact test and Holm.
    Harm is rare and one-sided, so that t is skewed: Hall's cubic takes the skewness out and Student's t has
    as many degrees as effective groups less one, both as in the gate's own t, and each draw of the
    bootstrap is divided by its own standard error. The level is still a large-sample one: asked for 2.5 %,
    ten overlapping slices of 1,500 examples erred in at most 3.2 % of 1,500 simulated draws
    (`tests/guarantees/test_release_guarantees.py`).

    Args:
        difference: Candidate minus incumbent, shape (n_examples,).
        members: For each slice whether each example is in it, shape (n_examples,).
        groups: Group of each example; whole groups are drawn.
        alpha: Probability, in (0, 0.5), that any bound lies above its true difference.
        n_draws: Draws of the multiplier bootstrap.
        seed: Of the draws.

    Raises:
        InvalidInput: Shapes differ, or there are too few draws for alpha.
        NotEnoughData: A slice has fewer than `FEWEST_CHANGED` groups in which anything changed, or all
            of its groups changed alike.

    Source:
        Romano & Wolf 2005, JASA 100:94; multiplier bootstrap of the maximum, Chernozhukov et al. 2013;
        Hall 1992, JRSS B 54:221, on the removal of skewness.
    """
    d = np.asarray(difference, float)
    masks = np.asarray([np.asarray(m, bool) for m in members])
    if masks.ndim != 2 or masks.shape[1:] != d.shape:
        raise InvalidInput(f"members must have shape (n_slices, {len(d)}), got {masks.shape}.")
    rank = math.ceil((1 - alpha) * (n_draws + 1))
    if rank > n_draws:
        least = math.ceil(1 / alpha) - 1
        raise InvalidInput(f"alpha {alpha:g} needs at least {least} draws, got {n_draws}.")
    labels = np.arange(len(d)) if groups is None else np.asarray(groups)
    _, group_of = np.unique(labels, return_inverse=True)
    size = masks.sum(axis=1)
    mean = (masks * d).sum(axis=1) / np.maximum(size, 1)
    residual = np.stack(
        [np.bincount(group_of, weights=m * (d - middle)) for m, middle in zip(masks, mean, strict=True)]
    )
    n_groups = np.array([len(np.unique(group_of[m])) for m in masks])
    squares = (residual**2).sum(axis=1)
    _check_changes(d, masks, group_of, squares)
    error = np.sqrt(n_groups / (n_groups - 1) * squares) / size
    draws = _studentized(residual / np.sqrt(squares)[:, None], n_groups, n_draws, seed)
    critical = float(np.sort(draws.max(axis=1))[rank - 1])
    skew = (residual**3).sum(axis=1) / squares**1.5
    effective = squares**2 / (residual**4).sum(axis=1)
    wider = stats.t.isf(stats.norm.sf(critical), df=np.maximum(effective - 1, 1))
    return SimultaneousBounds(
        difference=mean, low=mean - _before_cubic(wider, skew) * error, critical=critical
    )


def _check_changes(d: np.ndarray, masks: np.ndarray, group_of: np.ndarray, squares: np.ndarray) -> None:
    for k, mask in enumerate(masks):
        changed = len(np.unique(group_of[mask & (d != 0)]))
        if changed < FEWEST_CHANGED or squares[k] <= 1e-12:
            raise NotEnoughData(
                f"slice {k} has {changed} groups in which anything changed, needs {FEWEST_CHANGED} that "
                "are not all alike. Give it to the exact test and Holm's correction."
            )


def _studentized(unit: np.ndarray, n_groups: np.ndarray, n_draws: int, seed: int) -> np.ndarray:
    """t of each slice under random signs of whole groups, shape (n_draws, n_slices).

    Args:
        unit: Residuals of each slice, scaled to a sum of squares of 1, shape (n_slices, n_groups).
        n_groups: Of each slice.
        n_draws: Rows.
        seed: Of the signs.
    """
    rng = np.random.default_rng(seed)
    sums = np.concatenate(
        [
            rng.choice((-1.0, 1.0), (min(500, n_draws - i), unit.shape[1])) @ unit.T
            for i in range(0, n_draws, 500)
        ]
    )
    # Signs leave the squares as they are: only the mean of the draw has to be taken out of its variance.
    left = np.maximum(1.0 - sums**2 / n_groups, 1e-12)
    return np.asarray(sums * np.sqrt((n_groups - 1) / n_groups / left))


def _before_cubic(critical: np.ndarray, skew: np.ndarray) -> np.ndarray:
    """The t of each slice that Hall's cubic takes to its critical value, shape of skew.

    The cubic t + a t^2/3 + a^2 t^3/27 + a/6 is ((1 + a t/3)^3 - 1) / a + a/6.
    """
    a = np.where(np.abs(skew) < 1e-9, 1e-9, skew)
    return np.asarray(3 / a * (np.cbrt(1 + a * (critical - a / 6)) - 1))
