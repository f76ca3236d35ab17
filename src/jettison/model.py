"""What a backend must be, and what an answer is."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import msgspec
import numpy as np

from jettison.candidate import Calibration


class Output(msgspec.Struct, frozen=True, kw_only=True):
    """One answer to one input."""

    label: str
    confidence: float
    """Calibrated probability, in 0-1, that the label is right."""
    in_scope: float | None = None
    """Share, in 0-1, of in-scope dev inputs that looked less in scope than this one; small means
    out of scope (a conformal p-value). None when the task has no out-of-scope label."""
    flagged: bool = False
    """Whether `in_scope` is under the share of false alarms the candidate was calibrated to."""
    logits: np.ndarray | None = None
    """Raw scores of the labels, shape (n_labels,), float32, before calibration."""
    arm: str | None = None
    """Which candidate of a cascade answered."""
    escalated: bool = False
    error: str | None = None
    """Why there is no answer; label is then empty and confidence 0."""


@runtime_checkable
class Model(Protocol):
    """Answers inputs: synchronous, batched, in order. All that a backend must be."""

    labels: tuple[str, ...]

    def predict(self, inputs: Sequence[str]) -> list[Output]:
        """One output per input, in the inputs' order. No inputs give no outputs."""

    def close(self) -> None:
        """Give back memory, threads and files. May be called twice."""


class Decoder:
    """Turns logits into outputs by one rule for every backend, so that confidences compare.

    The label is the arg-max. Confidence is the softmax at the calibrated temperature.
    The scope score follows the calibration's rule, and is reported as its rank among
    in-scope dev examples.
    """

    def __init__(self, labels: Sequence[str], out_of_scope: str | None, calibration: Calibration) -> None:
        self.labels = tuple(labels)
        self.calibration = calibration
        self._in_scope = np.array([i for i, label in enumerate(self.labels) if label != out_of_scope])
        quantiles = calibration.scope_quantiles
        self._quantiles = None if quantiles is None else np.asarray(quantiles)
        self._ranks = None if quantiles is None else np.linspace(0.0, 1.0, len(quantiles))

    def outputs(self, logits: np.ndarray) -> list[Output]:
        """Decode logits, shape (n_inputs, n_labels), to one output per row."""
        if len(logits) == 0:
            return []
        probabilities = softmax(logits, self.calibration.temperature)
        top = probabilities.argmax(axis=1)
        scope = self.scope_scores(logits, probabilities)
        rank = self.in_scope_ranks(scope)
        limit = self.calibration.false_alarm_share
        return [
            Output(
                label=self.labels[index],
                confidence=float(probabilities[row, index]),
                in_scope=None if rank is None else float(rank[row]),
                flagged=rank is not None and bool(rank[row] < limit),
                logits=logits[row],
            )
            for row, index in enumerate(top.tolist())
        ]

    def scope_scores(self, logits: np.ndarray, probabilities: np.ndarray | None = None) -> np.ndarray:
        """How much each row of logits looks like an in-scope input, shape (n_inputs,), higher is more."""
        if self.calibration.scope_rule == "energy":
            in_scope = np.asarray(logits, np.float64)[:, self._in_scope]
            top = in_scope.max(axis=1)
            return np.asarray(top + np.log(np.exp(in_scope - top[:, None]).sum(axis=1)))
        if probabilities is None:
            probabilities = softmax(logits, self.calibration.temperature)
        return np.asarray(probabilities[:, self._in_scope].max(axis=1))

    def in_scope_ranks(self, scores: np.ndarray) -> np.ndarray | None:
        """Rank in 0-1 of scope scores among in-scope dev examples; None before calibration."""
        if self._quantiles is None or self._ranks is None:
            return None
        return np.asarray(np.interp(scores, self._quantiles, self._ranks))


def softmax(logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """Row-wise softmax at a temperature, shape (n_inputs, n_labels), float64-safe."""
    scaled = np.asarray(logits, np.float64) / temperature
    scaled -= scaled.max(axis=1, keepdims=True)
    np.exp(scaled, out=scaled)
    scaled /= scaled.sum(axis=1, keepdims=True)
    return scaled
