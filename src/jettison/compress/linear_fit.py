"""Fits a linear model on sparse features to a teacher's logits by Adagrad, with SciPy alone."""

import math
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np

from jettison.compress.deadline import Deadline
from jettison.compress.step import check_time_left
from jettison.errors import StepFailed


class LinearSchedule(msgspec.Struct, frozen=True, kw_only=True):
    """How to train."""

    epochs: int
    patience: int
    batch_size: int
    learning_rate: float
    temperature: float
    gold_weight: float
    dropout: float
    seed: int
    deadline: Deadline | None


class FittedLinear(msgspec.Struct, frozen=True, kw_only=True):
    """The best epoch's weights."""

    weights: np.ndarray
    """Shape (n_features, n_labels), float32."""
    bias: np.ndarray
    """Shape (n_labels,), float32."""
    epochs: int
    best_epoch: int | None
    stopped_by: str
    score: tuple[float, float]
    """Accuracy on dev and minus the cross entropy; (-1, -inf) without dev texts."""


class _State:
    """Weights and the running sums of squared gradients, Adagrad's step sizes."""

    def __init__(self, n_features: int, n_labels: int) -> None:
        self.weights = np.zeros((n_features, n_labels), np.float32)
        self.bias = np.zeros(n_labels, np.float32)
        self._weight_squares = np.full((n_features, n_labels), 1e-8, np.float32)
        self._bias_squares = np.full(n_labels, 1e-8, np.float32)

    def descend(
        self, columns: np.ndarray, gradient: np.ndarray, bias_gradient: np.ndarray, rate: float
    ) -> None:
        """One step on the rows of `columns`, gradient of shape (n_columns, n_labels), and on the bias."""
        squares = self._weight_squares[columns] + gradient * gradient
        self._weight_squares[columns] = squares
        self.weights[columns] -= rate * gradient / np.sqrt(squares)
        self._bias_squares += bias_gradient * bias_gradient
        self.bias -= rate * bias_gradient / np.sqrt(self._bias_squares)


def fit_linear(
    matrix: Any,
    teacher: np.ndarray,
    gold: np.ndarray,
    *,
    dev: Any,
    dev_gold: np.ndarray,
    schedule: LinearSchedule,
    progress: Callable[[str, float | None], None],
) -> FittedLinear:
    """Train on texts as sparse rows and keep the best epoch on dev, by accuracy, then cross entropy.

    Args:
        matrix: CSR, shape (n_texts, n_features).
        teacher: Logits, shape (n_texts, n_labels).
        gold: Index of the known label, shape (n_texts,); -1 where nobody has said.
        dev: CSR, shape (n_dev, n_features); with no rows the last epoch is kept.
        dev_gold: Index of the known label, shape (n_dev,).
        schedule: How to train.
        progress: Called after each epoch.

    Raises:
        StepFailed: The logits stopped being numbers.
        OutOfTime: The deadline is over before it starts.
    """
    check_time_left(schedule.deadline)
    rng = np.random.default_rng(schedule.seed)
    state = _State(matrix.shape[1], teacher.shape[1])
    kept = (state.weights.copy(), state.bias.copy())
    best, best_epoch, stopped_by, epoch = (-1.0, -math.inf), None, "schedule", 0
    for epoch in range(1, schedule.epochs + 1):
        order = rng.permutation(matrix.shape[0])
        rate = schedule.learning_rate * (1 - (epoch - 1) / schedule.epochs)
        for start in range(0, len(order), schedule.batch_size):
            if schedule.deadline is not None and schedule.deadline.is_over():
                stopped_by = "deadline"
                break
            rows = order[start : start + schedule.batch_size]
            _train_step(state, matrix[rows], teacher[rows], gold[rows], schedule, rate, rng)
        score = _dev_score(dev @ state.weights + state.bias, dev_gold)
        if score is None or score > best:
            best, best_epoch, kept = score or best, epoch, (state.weights.copy(), state.bias.copy())
        said = "" if score is None else f", dev accuracy {score[0]:.4f}"
        progress(f"epoch {epoch} of {schedule.epochs}{said}", epoch / schedule.epochs)
        if stopped_by == "deadline":
            break
        if best_epoch is not None and epoch - best_epoch >= schedule.patience:
            stopped_by = "patience"
            break
    return FittedLinear(
        weights=kept[0],
        bias=kept[1],
        epochs=epoch,
        best_epoch=best_epoch,
        stopped_by=stopped_by,
        score=best,
    )


def _train_step(
    state: _State,
    batch: Any,
    teacher: np.ndarray,
    gold: np.ndarray,
    schedule: LinearSchedule,
    rate: float,
    rng: np.random.Generator,
) -> None:
    """One batch, on its own columns: the teacher everywhere, cross entropy where the label is known."""
    columns, inverse = np.unique(batch.indices, return_inverse=True)
    small = batch.copy()
    small.indices = inverse.astype(batch.indices.dtype)
    small.resize((batch.shape[0], len(columns)))
    if schedule.dropout:
        small.data *= (rng.random(len(small.data), np.float32) >= schedule.dropout) / (1 - schedule.dropout)
    logits = small @ state.weights[columns] + state.bias
    if not np.isfinite(logits).all():
        raise StepFailed(
            f"the linear student's logits must stay finite, got {logits[~np.isfinite(logits)][0]}. "
            "Lower `learning_rate`, or look at the teacher's logits."
        )
    t = schedule.temperature
    error = t * (_softmax(logits / t) - _softmax(teacher / t))
    known = np.flatnonzero(gold >= 0)
    if schedule.gold_weight and len(known):
        share = _softmax(logits[known])
        share[np.arange(len(known)), gold[known]] -= 1.0
        error[known] += schedule.gold_weight * share
    error /= len(gold)
    state.descend(columns, small.T @ error, error.sum(0), rate)


def _dev_score(logits: np.ndarray, gold: np.ndarray) -> tuple[float, float] | None:
    """Accuracy where the label is known, and minus the cross entropy; None without such rows."""
    rows = np.flatnonzero(gold >= 0)
    if not len(rows):
        return None
    right = logits[rows].argmax(1) == gold[rows]
    chance = _softmax(logits[rows])[np.arange(len(rows)), gold[rows]]
    return float(right.mean()), float(np.log(np.maximum(chance, 1e-30)).mean())


def _softmax(logits: np.ndarray) -> np.ndarray:
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    found: np.ndarray = shifted / shifted.sum(axis=1, keepdims=True)
    return found
