"""A mean from many predictions and few labels, which correct the predictions.

Source: Angelopoulos et al. 2023, Science 382 ("Prediction-powered inference"); PPI++ of Angelopoulos, Duchi
& Zrnic 2023; weights for a shifted population as in doubly robust estimation.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from jettison.errors import InvalidInput, NotEnoughData
from jettison.stats.interval import Interval


@dataclass(frozen=True, kw_only=True)
class Powered:
    """An estimate with what it leans on."""

    interval: Interval
    n_labels: int
    n_predictions: int
    correction: Interval | None
    """Mean of label minus prediction: how far the predictions alone are off."""
    weight: float
    """How much the predictions count: 1 in full, 0 not at all."""
    effective_labels: float
    """(sum w)^2 / sum w^2: labels that the weights leave."""


def powered_mean(
    labels: ArrayLike,
    predicted: ArrayLike,
    predicted_all: ArrayLike,
    *,
    weights: ArrayLike | None = None,
    tune: bool = False,
    guarded: bool = False,
    confidence: float = 0.95,
) -> Powered:
    """Estimate the mean label of a population from its predictions and a labelled sample.

    Args:
        labels: Shape (n_labels,).
        predicted: Predictions of the same, in the same order, by a model not fitted on them.
        predicted_all: Predictions of the whole population, shape (n_all,).
        weights: Of the labelled, where they are of another population: its density ratio, or one over the
            probability with which each was drawn. None: drawn evenly from the population.
        tune: Choose the predictions' weight that makes the interval shortest (PPI++), in [0, 1].
        guarded: For labels in [0, 1]: widen by two invented labels at the ends of the scale, each against
            the prediction furthest from it (Agresti & Coull 1998), and by Student's t on the effective
            labels. The published interval covers 70 to 80 % instead of 95 % with 30 labels of which
            95 % are right.
        confidence: Coverage wanted at one look, in (0, 1).

    Raises:
        InvalidInput: The shapes differ, or a value is not finite.
        NotEnoughData: Fewer than two labels or predictions.
    """
    y, f, everyone = (np.asarray(x, float) for x in (labels, predicted, predicted_all))
    w = np.ones(len(y)) if weights is None else np.asarray(weights, float)
    if y.shape != f.shape or y.shape != w.shape or y.ndim != 1:
        raise InvalidInput(
            f"labels, predictions and weights must share one shape, got {y.shape}, {f.shape}."
        )
    if len(y) < 2 or len(everyone) < 2:
        raise NotEnoughData(
            f"an estimate needs at least 2 labels and 2 predictions, got {len(y)} and {len(everyone)}."
        )
    if not (np.isfinite(y).all() and np.isfinite(f).all() and np.isfinite(everyone).all()):
        raise InvalidInput("labels and predictions must be finite, got nan or infinity.")
    n, n_all = len(y), len(everyone)
    share = _best_weight(y, f, everyone) if tune else 1.0
    rest = y - share * f
    mean_rest = float(w @ rest / w.sum())
    value = share * float(everyone.mean()) + mean_rest
    effective = float(w.sum() ** 2 / (w**2).sum())
    tail = (1 - confidence) / 2
    wide = float(stats.t.isf(tail, max(effective - 1, 1)) if guarded else stats.norm.isf(tail))
    left = _variance(rest, w, (-share, 1.0) if guarded else ())
    half = wide * float(np.sqrt(share**2 * everyone.var() / n_all + left))
    off = y - f
    mean_off = float(w @ off / w.sum())
    half_off = wide * float(np.sqrt(_variance(off, w, (-1.0, 1.0) if guarded else ())))
    return Powered(
        interval=Interval(
            value=value,
            low=value - half,
            high=value + half,
            confidence=confidence,
            method="prediction-powered",
        ),
        n_labels=n,
        n_predictions=n_all,
        correction=Interval(
            value=mean_off,
            low=mean_off - half_off,
            high=mean_off + half_off,
            confidence=confidence,
            method="normal",
        ),
        weight=share,
        effective_labels=effective,
    )


def _variance(rest: np.ndarray, w: np.ndarray, invented: tuple[float, ...]) -> float:
    """Of the weighted mean of rest; invented ones join at the mean weight."""
    values = np.append(rest, invented)
    weights = np.append(w, np.full(len(invented), w.mean()))
    mean = float(weights @ values / weights.sum())
    return float((weights**2 * (values - mean) ** 2).sum() / w.sum() ** 2)


def _best_weight(y: np.ndarray, f: np.ndarray, everyone: np.ndarray) -> float:
    """Cov(Y, f) / ((1 + n/N) Var f), the variance over all predictions, kept in [0, 1]."""
    spread = float(np.concatenate([f, everyone]).var(ddof=1))
    if spread == 0:
        return 0.0
    covariance = float(np.mean((y - y.mean()) * (f - f.mean())))
    return float(np.clip(covariance / ((1 + len(y) / len(everyone)) * spread), 0.0, 1.0))
