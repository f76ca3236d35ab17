"""Whether two samples are of one distribution: counts, and vectors known by their moments alone.

Each holds at one look.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from jettison.errors import InvalidInput, NotEnoughData

FEWEST_EXPECTED = 5.0
"""Bins are merged until each sample may be expected to have so many there."""
N_DRAWS = 20_000
RIDGE = 0.05


@dataclass(frozen=True, kw_only=True)
class CountsDiffer:
    """Two samples of counts compared."""

    statistic: float
    p_value: float
    distance: float
    """Total variation distance of the two, in 0-1: so much of the one would have to move."""
    psi: float
    """Population stability index over the merged bins."""
    n_bins: int


def counts_differ(reference: ArrayLike, other: ArrayLike, *, is_ordered: bool = True) -> CountsDiffer:
    """Chi-squared test of homogeneity on binned samples, neighbours merged where they are thin.

    Args:
        reference: Counts, shape (n_bins,).
        other: Counts in the same bins.
        is_ordered: Whether neighbours may be merged; else the rarest are, together.

    Raises:
        InvalidInput: The shapes differ or a count is negative.
        NotEnoughData: One is empty.
    """
    a, b = np.asarray(reference, float), np.asarray(other, float)
    if a.shape != b.shape or a.ndim != 1 or (a < 0).any() or (b < 0).any():
        raise InvalidInput(
            f"counts must share one shape (n_bins,) and not be negative, got {a.shape}, {b.shape}."
        )
    if not a.sum() or not b.sum():
        raise NotEnoughData("two samples are compared where both hold something, got an empty one.")
    if not is_ordered:
        order = np.argsort(a + b, kind="stable")
        a, b = a[order], b[order]
    is_filled = a + b > 0
    a, b = a[is_filled], b[is_filled]
    a, b = _merged(a, b)
    n, m = a.sum(), b.sum()
    both = (a + b) / (n + m)
    statistic = float(((a - n * both) ** 2 / (n * both)).sum() + ((b - m * both) ** 2 / (m * both)).sum())
    p, q = (a + 0.5) / (n + 0.5 * len(a)), (b + 0.5) / (m + 0.5 * len(b))
    return CountsDiffer(
        statistic=statistic,
        p_value=float(stats.chi2.sf(statistic, len(a) - 1)) if len(a) > 1 else 1.0,
        distance=float(np.abs(a / n - b / m).sum() / 2),
        psi=float(((p - q) * np.log(p / q)).sum()),
        n_bins=len(a),
    )


def _merged(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Neighbouring bins put together, by the pooled counts alone, which the null leaves free."""
    needed = FEWEST_EXPECTED * (a.sum() + b.sum()) / min(a.sum(), b.sum())
    pooled = np.cumsum(a + b)
    groups, last = np.zeros(len(a), int), 0.0
    group = 0
    for place, so_far in enumerate(pooled):
        groups[place] = group
        if so_far - last >= needed:
            group, last = group + 1, so_far
    if last < pooled[-1] and group > 0:  # the rest is too thin to stand alone
        groups[groups == group] = group - 1
    size = int(groups.max()) + 1
    return np.bincount(groups, a, size), np.bincount(groups, b, size)


@dataclass(frozen=True, kw_only=True)
class MeansDiffer:
    """Two samples of vectors compared by their means."""

    statistic: float
    """Squared distance of the means; of random features it is the squared MMD."""
    p_value: float
    moved: float
    """How much better than chance a score along the difference tells the two apart, in 0-1: twice the area
    under its curve, less 1, by the normal law; what chance alone makes of the distance is taken off."""


def means_differ(
    mean: np.ndarray, covariance: np.ndarray, n: int, *, other: np.ndarray, seed: int = 0
) -> MeansDiffer:
    """Squared distance of two means, with its law where both are of one distribution.

    Args:
        mean: Of the reference, shape (n_features,).
        covariance: Of the reference, shape (n_features, n_features).
        n: Vectors in the reference.
        other: Vectors, shape (n_other, n_features).
        seed: Of the draws of that law.

    Raises:
        NotEnoughData: Fewer than 30 vectors on either side.

    Source:
        Gretton et al. 2012, section 3.3: with random features the null is a sum of chi-squares weighted
        by the eigenvalues of their covariance; drawn here, its far tail by a matched gamma.
    """
    m = len(other)
    if min(n, m) < 30:
        raise NotEnoughData(f"means are compared from 30 vectors on each side, got {n} and {m}.")
    pooled = (n * covariance + m * np.cov(other, rowvar=False)) / (n + m)
    weights = np.clip(np.linalg.eigvalsh(pooled), 0, None) * (1 / n + 1 / m)
    difference = other.mean(axis=0) - mean
    statistic = float((difference**2).sum())
    rng = np.random.default_rng(seed)
    drawn = rng.chisquare(1, (N_DRAWS, len(weights))) @ weights
    p = (1 + int((drawn >= statistic).sum())) / (1 + N_DRAWS)
    if p < 10 / N_DRAWS:
        total, squares = weights.sum(), (weights**2).sum()
        p = min(p, float(stats.gamma.sf(statistic, total**2 / (2 * squares), scale=2 * squares / total)))
    along = float(difference @ pooled @ difference) / statistic if statistic > 0 else 0.0
    surplus = max(0.0, statistic - float(weights.sum()))
    moved = 2 * float(stats.norm.cdf(np.sqrt(surplus / (2 * along)))) - 1 if along > 0 else 0.0
    return MeansDiffer(statistic=statistic, p_value=max(p, 1e-300), moved=moved)


@dataclass(frozen=True, kw_only=True)
class ClassifierDiffers:
    """A classifier of "reference or not", learned on one part and tested on the rest."""

    z: float
    p_value: float
    auc: float
    """How well it tells them apart, by the normal law of its scores: 0.5 is not at all."""
    contributions: np.ndarray
    """Part of each feature in the difference of the scores, shape (n_features,); they sum to 1."""


def classifier_differs(
    mean: np.ndarray,
    covariance: np.ndarray,
    n: int,
    *,
    other: np.ndarray,
    is_own_covariance: bool = True,
    seed: int = 0,
) -> ClassifierDiffers:
    """Classifier two-sample test by a linear discriminant, from the reference's moments alone.

    The discriminant is learned on the reference and on a part of `other`, at most as many; the rest is
    tested against all of these together. Against the reference alone it would be too eager: the chance
    differences of the reference that the discriminant has learned would be found again in the test.
    Under the null the mean of all that was learned on is uncorrelated with what was learned. The
    reference's scores are taken to vary no less than those tested: its own covariance, by whose inverse
    the direction was learned, makes them a quarter to a half too narrow.

    Args:
        mean: Of the reference, shape (n_features,).
        covariance: Of the reference.
        n: Vectors in the reference.
        other: Vectors, shape (n_other, n_features): a part fits, the rest is tested.
        is_own_covariance: Whether `covariance` is the reference's. One of like vectors will do to learn
            by; the reference's scores are then taken to vary as those of `other` do.
        seed: Of the parts.

    Raises:
        NotEnoughData: Fewer than 60 vectors, or 30 in the reference.

    Source:
        Lopez-Paz & Oquab 2017; Kim et al. 2021, "Classification accuracy as a proxy for two-sample
        testing", section 3 (linear discriminant).
    """
    if n < 30 or len(other) < 60:
        raise NotEnoughData(
            f"a classifier needs 30 reference and 60 other vectors, got {n} and {len(other)}."
        )
    n_fitted = min(len(other) // 2, n)
    order = np.random.default_rng(seed).permutation(len(other))
    fitted, tested = other[order[:n_fitted]], other[order[n_fitted:]]
    scale = np.sqrt(np.maximum(np.diag(covariance), 1e-12))
    spread = covariance / np.outer(scale, scale)
    shift = (fitted.mean(axis=0) - mean) / scale
    direction = np.linalg.solve(spread + RIDGE * np.eye(len(mean)), shift) / scale
    learned = (n * mean + n_fitted * fitted.mean(axis=0)) / (n + n_fitted)
    var_fitted, var_tested = (float((some @ direction).var(ddof=1)) for some in (fitted, tested))
    # The direction was learned by the reference's covariance, along which it looks narrower than it is.
    var_own = float(direction @ covariance @ direction) if is_own_covariance else var_tested
    var_reference = max(var_own, var_tested)
    var_learned = (n * var_reference + n_fitted * var_fitted) / (n + n_fitted) ** 2
    # What was learned on holds a part of `other`: the difference from the reference is larger by so much.
    apart = direction * (tested.mean(axis=0) - learned) * (n + n_fitted) / n
    difference = float(apart.sum())
    error = np.sqrt(var_learned + var_tested / len(tested)) * (n + n_fitted) / n
    z = difference / error if error > 0 else 0.0
    wide = np.sqrt(var_reference + var_tested)
    return ClassifierDiffers(
        z=float(z),
        p_value=float(stats.norm.sf(z)),
        auc=float(stats.norm.cdf(difference / wide)) if wide > 0 else 0.5,
        contributions=apart / difference if difference else np.zeros(len(mean)),
    )
