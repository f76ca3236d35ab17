"""A mean where the inputs differ: labelled examples of one population, inputs alone of another.

The labelled are weighted by how much more often the other population has inputs like them; a prediction of
each score, fitted on other folds, takes up the slack. Valid where the chance of being right, given the
input, is the same in both (covariate shift); a change in what is right cannot be seen without labels.

Source: Shimodaira 2000 (importance weighting); Bickel et al. 2009 (weights by a classifier); Angelopoulos
et al. 2023 (prediction-powered inference), with weights as in doubly robust estimation.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import optimize

from jettison.errors import InvalidInput, NotEnoughData
from jettison.stats.group_jackknife import Bounds, effective_number, jackknife_mean, number_groups
from jettison.stats.interval import Interval

N_FOLDS = 5
RIDGE = 1.0
MOST_WEIGHT = 20.0
"""Weights are cut there, relative to a mean of 1: one example must not stand for everyone."""
LEAST_LABELLED = 50
LEAST_GROUPS = 2 * N_FOLDS
"""Fewer leave folds of one group, from which nothing is learned of others."""


@dataclass(frozen=True, kw_only=True)
class ShiftedMean:
    """A mean under the other population's inputs."""

    interval: Interval
    labelled_mean: float
    """Of the labelled population, unweighted."""
    by_prediction: float
    """What the predictions alone say."""
    by_weights: Interval
    """What the weights alone say."""
    effective_n: float
    """(sum w)^2 / sum w^2 of labelled groups: so many the weights leave; examples, where none depend."""
    cut_share: float
    """Share of the labelled whose weight was cut, in 0-1."""


def shifted_mean(
    scores: ArrayLike,
    labelled: ArrayLike,
    other: ArrayLike,
    *,
    predicted: tuple[ArrayLike, ArrayLike] | None = None,
    groups: ArrayLike | None = None,
    other_groups: ArrayLike | None = None,
    bounds: Bounds | None = None,
    confidence: float = 0.95,
    seed: int = 0,
) -> ShiftedMean:
    """Estimate the mean score on another population's inputs.

    Args:
        scores: Of the labelled, shape (n,); differences of scores too.
        labelled: Their features, shape (n, n_features).
        other: Features of the other population, shape (n_other, n_features).
        predicted: Predicted scores of both, from elsewhere; None fits them here, on other folds.
        groups: Of each labelled example, shape (n,), where some depend on each other; a group stays in one
            fold. None: none do.
        other_groups: Of the other population's inputs.
        bounds: Between what a score lies (`ONE_SCORE`, `DIFFERENCE`). Where errors or changes are rare, the
            interval covers only with them. None: not known.
        confidence: Coverage wanted, in (0, 1).
        seed: Of the folds.

    Raises:
        InvalidInput: Shapes do not fit.
        NotEnoughData: Fewer than 50 labelled or other inputs, or than 10 groups of the labelled.
    """
    y, x, z = (np.asarray(v, float) for v in (scores, labelled, other))
    if y.ndim != 1 or x.ndim != 2 or z.ndim != 2 or len(y) != len(x) or x.shape[1] != z.shape[1]:
        raise InvalidInput(
            "scores must have shape (n,) and features (n, n_features) and (n_other, n_features), "
            f"got {y.shape}, {x.shape} and {z.shape}."
        )
    if min(len(y), len(z)) < LEAST_LABELLED:
        raise NotEnoughData(
            f"a mean under shift needs at least {LEAST_LABELLED} labelled and other inputs, "
            f"got {len(y)} and {len(z)}."
        )
    group_of, other_group_of = number_groups(groups, len(y)), number_groups(other_groups, len(z))
    n_groups = int(group_of.max()) + 1
    if n_groups < LEAST_GROUPS:
        raise NotEnoughData(
            f"a mean under shift needs at least {LEAST_GROUPS} groups of labelled inputs, got {n_groups}."
        )
    rng = np.random.default_rng(seed)
    fold = (rng.permutation(n_groups) % N_FOLDS)[group_of]
    center, scale = x.mean(axis=0), np.maximum(x.std(axis=0), 1e-9)
    x, z = (x - center) / scale, (z - center) / scale
    w, cut_share = _weights(x, z, fold, rng.permutation(len(z)) % N_FOLDS)
    if predicted is None:
        f, everyone = _predictions(y, x, z, fold)
    else:
        f, everyone = (np.asarray(v, float) for v in predicted)
    by_prediction = float(everyone.mean())
    of_group = np.bincount(other_group_of, weights=everyone - by_prediction)
    return ShiftedMean(
        interval=jackknife_mean(
            y - f,
            w,
            group_of,
            plus=by_prediction,
            plus_variance=float((of_group**2).sum()) / len(z) ** 2,
            bounds=bounds,
            confidence=confidence,
            method="importance-weighted, prediction-powered",
        ),
        labelled_mean=float(y.mean()),
        by_prediction=by_prediction,
        by_weights=jackknife_mean(
            y, w, group_of, bounds=bounds, confidence=confidence, method="importance-weighted"
        ),
        effective_n=effective_number(np.bincount(group_of, weights=w)),
        cut_share=cut_share,
    )


def _weights(
    x: np.ndarray, z: np.ndarray, fold: np.ndarray, other_fold: np.ndarray
) -> tuple[np.ndarray, float]:
    """Density ratio of each labelled example, from a classifier of the two that did not see it; mean 1."""
    found = np.empty(len(x))
    for k in range(N_FOLDS):
        mine, theirs = x[fold != k], z[other_fold != k]
        rows = np.concatenate([mine, theirs])
        is_other = np.append(np.zeros(len(mine)), np.ones(len(theirs)))
        coefficients = fit_logistic(rows, is_other)
        found[fold == k] = np.exp(np.clip(_linear(x[fold == k], coefficients), -30, 30)) * (
            len(mine) / len(theirs)
        )
    found /= found.mean()
    cut = np.minimum(found, MOST_WEIGHT)
    return cut, float((found > MOST_WEIGHT).mean())


def _predictions(
    y: np.ndarray, x: np.ndarray, z: np.ndarray, fold: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Predicted scores of the labelled by models that did not see them, and of the others by all models."""
    f, everyone = np.empty(len(y)), np.zeros(len(z))
    binary = bool(np.isin(y, (0.0, 1.0)).all()) and 0 < y.mean() < 1
    for k in range(N_FOLDS):
        seen = fold != k
        if binary:
            coefficients = fit_logistic(x[seen], y[seen])
            f[fold == k] = _sigmoid(_linear(x[fold == k], coefficients))
            everyone += _sigmoid(_linear(z, coefficients)) / N_FOLDS
        else:
            coefficients = _fit_ridge(x[seen], y[seen])
            low, high = float(y.min()), float(y.max())
            f[fold == k] = np.clip(_linear(x[fold == k], coefficients), low, high)
            everyone += np.clip(_linear(z, coefficients), low, high) / N_FOLDS
    return f, everyone


def fit_logistic(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Coefficients of a ridge logistic regression, the intercept last and not shrunk."""
    rows = np.column_stack([x, np.ones(len(x))])
    shrunk = np.append(np.full(x.shape[1], RIDGE), 0.0)

    def loss(c: np.ndarray) -> tuple[float, np.ndarray]:
        s = rows @ c
        value = np.logaddexp(0.0, s).sum() - y @ s + 0.5 * shrunk @ c**2
        return float(value), rows.T @ (_sigmoid(s) - y) + shrunk * c

    found = optimize.minimize(loss, np.zeros(rows.shape[1]), jac=True, method="L-BFGS-B")
    return np.asarray(found.x)


def _fit_ridge(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    rows = np.column_stack([x, np.ones(len(x))])
    shrunk = np.diag(np.append(np.full(x.shape[1], RIDGE), 0.0))
    return np.linalg.solve(rows.T @ rows + shrunk, rows.T @ y)


def _linear(x: np.ndarray, coefficients: np.ndarray) -> np.ndarray:
    return np.asarray(x @ coefficients[:-1] + coefficients[-1])


def _sigmoid(s: np.ndarray) -> np.ndarray:
    return np.asarray(1 / (1 + np.exp(-np.clip(s, -30, 30))))
