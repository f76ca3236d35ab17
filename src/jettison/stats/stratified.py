"""Which labels to buy: strata drawn more often where a label narrows the interval most.

Every input has a known, positive chance to be drawn, so that weighting each label by one over it keeps the
estimate unbiased, whatever the guess that the chances were made of.

Source: Neyman 1934 (optimal allocation); Horvitz & Thompson 1952.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from jettison.errors import InvalidInput, NotEnoughData
from jettison.stats.interval import Interval

LEAST_PER_STRATUM = 2
UNIFORM_SHARE = 0.2
"""Share of the budget spent evenly, whatever is guessed: a wrong guess then costs no more than that."""


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """What to label."""

    positions: tuple[int, ...]
    propensities: tuple[float, ...]
    """Chance of each to have been drawn, in (0, 1]."""


def allocate(sizes: ArrayLike, spread: ArrayLike, budget: int) -> np.ndarray:
    """Labels for each stratum: proportional to size times spread, a part of them evenly; shape of sizes.

    Args:
        sizes: Inputs in each stratum.
        spread: Guessed standard deviation of what is to be labelled in each.
        budget: Labels in all.

    Raises:
        InvalidInput: The budget does not give two labels to each stratum that has them.
    """
    n: np.ndarray = np.asarray(sizes, int)
    s = np.maximum(np.asarray(spread, float), 1e-6)
    least = np.minimum(n, LEAST_PER_STRATUM)
    if budget < least.sum():
        raise InvalidInput(
            f"a budget must give {LEAST_PER_STRATUM} labels to each of {len(n)} strata, "
            f"got {budget}. Raise it, or take fewer strata."
        )
    if budget >= n.sum():
        return np.asarray(n)
    want = budget * ((1 - UNIFORM_SHARE) * n * s / (n * s).sum() + UNIFORM_SHARE * n / n.sum())
    found: np.ndarray = np.clip(np.floor(want).astype(int), least, n)
    while (rest := budget - int(found.sum())) != 0:
        more = np.where(found < n, want - found, -np.inf)
        fewer = np.where(found > least, found - want, -np.inf)
        found[int(np.argmax(more if rest > 0 else fewer))] += 1 if rest > 0 else -1
    return found


def stratified_mean(
    values: ArrayLike, stratum: ArrayLike, sizes: ArrayLike, *, confidence: float = 0.95
) -> Interval:
    """Mean of all inputs from labels of some, drawn within strata.

    Args:
        values: Of the labelled, shape (n_labels,).
        stratum: Of each, in 0..n_strata-1.
        sizes: Inputs in each stratum, shape (n_strata,).
        confidence: Coverage wanted, in (0, 1).

    Raises:
        NotEnoughData: A stratum has fewer than two labels, and not all of its inputs are labelled.
    """
    y, k, n_all = np.asarray(values, float), np.asarray(stratum, int), np.asarray(sizes, int)
    value = variance = 0.0
    free = 0
    for i, size in enumerate(n_all.tolist()):
        mine = y[k == i]
        if not size:
            continue
        if len(mine) < min(size, LEAST_PER_STRATUM):
            raise NotEnoughData(
                f"each stratum needs {LEAST_PER_STRATUM} labels, got {len(mine)} of {size} inputs in "
                f"stratum {i}. Label the rest of the file."
            )
        share = size / n_all.sum()
        value += share * float(mine.mean())
        if len(mine) > 1:
            # One made-up label either way (Agresti & Coull 1998): a stratum where all or nearly all agree
            # is not taken for surer than it is.
            apart = 0.5 if mine.min() == mine.max() else 0.0
            spread = float(np.append(mine, (mine.min() - apart, mine.max() + apart)).var(ddof=1))
            variance += share**2 * (1 - len(mine) / size) * spread / len(mine)
            free += len(mine) - 1
    half = float(stats.t.isf((1 - confidence) / 2, max(free, 1)) * np.sqrt(variance))
    return Interval(
        value=value, low=value - half, high=value + half, confidence=confidence, method="stratified"
    )


def draw_stratified(stratum: Sequence[int], spread: ArrayLike, budget: int, *, seed: int = 0) -> Drawn:
    """Draw inputs without replacement within strata.

    Args:
        stratum: Of each input, in 0..n_strata-1.
        spread: Guessed standard deviation in each stratum, shape (n_strata,).
        budget: Labels in all.
        seed: Of the draw.
    """
    strata = np.asarray(stratum, int)
    sizes = np.bincount(strata, minlength=len(np.asarray(spread)))
    wanted = allocate(sizes, spread, budget)
    rng = np.random.default_rng(seed)
    positions, chances = [], []
    for k, n in enumerate(wanted.tolist()):
        members = np.flatnonzero(strata == k)
        chosen = np.sort(rng.choice(members, n, replace=False))
        positions += chosen.tolist()
        chances += [n / len(members)] * n
    return Drawn(positions=tuple(positions), propensities=tuple(chances))
