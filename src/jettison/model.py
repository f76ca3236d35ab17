"""What a backend must be, and what an answer is."""

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import msgspec
import numpy as np

from jettison.candidate import Calibration
from jettison.record import Cost


class Output(msgspec.Struct, frozen=True, kw_only=True):
    """One answer to one input."""

    label: str
    """The answer: a label, the choice taken, or the text or JSON generated."""
    confidence: float
    """Calibrated probability, in 0-1, that the answer is right."""
    in_scope: float | None = None
    """Share, in 0-1, of in-scope dev inputs that looked less in scope than this one; small means
    out of scope (a conformal p-value). None when the task has no out-of-scope label."""
    flagged: bool = False
    """Whether `in_scope` is under the share of false alarms the candidate was calibrated to."""
    abstained: bool = False
    """The label is the out-of-scope one because the candidate abstains from what it flags; the
    confidence is that of the answer withheld."""
    logits: np.ndarray | None = None
    """Raw scores of the labels, or of the example's choices, shape (n_labels,), float32, before
    calibration; of a generated answer, None."""
    logprob: float | None = None
    """Natural log of the probability of the whole generated answer, all tokens together, where the model
    says it; None of several samples and of labels weighed by their likelihood, which are in `logits`."""
    arm: str | None = None
    """Which candidate of a cascade answered."""
    escalated: bool = False
    error: str | None = None
    """Why there is no answer; label is then empty and confidence 0."""
    unanswered: bool = False
    """With `error`: the answer was lost on the way, so that nobody knows what it would have been. It
    is not judged; any other error is an answer that the model failed to give."""
    cost: Cost | None = None
    """What the backend itself knows of this call: tokens, time to the first, price, bytes."""


@runtime_checkable
class Model(Protocol):
    """Answers inputs: synchronous, batched, in order. All that a backend must be.

    A backend for tasks whose inputs bring their own choices is handed `jettison.task.Question`s;
    one for the task's labels is handed texts, and `labels` is empty where answers are free text.
    """

    labels: tuple[str, ...]

    def predict(self, inputs: Sequence[Any]) -> list[Output]:
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
        self._outside = self.labels.index(out_of_scope) if out_of_scope in self.labels else None
        # A product with ones adds up a row in half of the time that a sum takes.
        self._ones = np.ones(len(self.labels))
        self._ranks = ScopeRanks.of(calibration)
        self._vector = (
            None
            if isinstance(calibration.scales, msgspec.UnsetType)
            or isinstance(calibration.biases, msgspec.UnsetType)
            else (np.asarray(calibration.scales), np.asarray(calibration.biases))
        )
        self._knots = None if isinstance(calibration.knots, msgspec.UnsetType) else calibration.knots

    def outputs(self, logits: np.ndarray) -> list[Output]:
        """Decode logits, shape (n_inputs, n_labels), to one output per row."""
        if len(logits) == 0:
            return []
        if len(logits) == 1 and self._vector is None and self._knots is None:
            return [self._one(logits[0])]
        probabilities = softmax(logits, self.calibration.temperature)
        top = logits.argmax(axis=1).tolist()
        scope = self.scope_scores(logits, probabilities).tolist()
        sure = self._sure(logits, probabilities)[np.arange(len(top)), top].tolist()
        return [self._output(logits[row], index, sure[row], scope[row]) for row, index in enumerate(top)]

    def _sure(self, logits: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
        """Confidence in each label, shape of the logits, by the calibration's own rule."""
        if self._vector is not None:
            return softmax(np.asarray(logits, np.float64) * self._vector[0] + self._vector[1])
        if self._knots is not None:
            x, y = zip(*self._knots, strict=True)
            return np.asarray(np.interp(probabilities, x, y))
        return probabilities

    def _one(self, row: np.ndarray) -> Output:
        """The same for one row, shape (n_labels,), in a third of the time: a static student feels it."""
        top = int(row.argmax())
        peak = row.item(top)
        below = row.astype(np.float64)
        below -= peak
        energy = self._ranks is not None and self.calibration.scope_rule == "energy"
        scaled = below.copy() if energy else below
        scaled /= self.calibration.temperature
        np.exp(scaled, scaled)
        confidence = 1.0 / float(scaled.dot(self._ones))
        if self._ranks is None:
            return self._output(row, top, confidence, 0.0)
        if energy:
            np.exp(below, below)
            if self._outside is not None:
                below[self._outside] = 0.0
            inside = float(below.dot(self._ones))
            scope = peak + math.log(inside) if inside > 0.0 else -math.inf
        elif top == self._outside:
            scaled[top] = 0.0
            scope = confidence * float(scaled.max())
        else:
            scope = confidence
        return self._output(row, top, confidence, scope)

    def _output(self, row: np.ndarray, index: int, confidence: float, scope: float) -> Output:
        if confidence != confidence:  # NaN alone differs from itself
            return Output(label="", confidence=0.0, error="logits must be finite, got nan or inf")
        if self._ranks is None:
            return Output(label=self.labels[index], confidence=confidence, logits=row)
        rank = self._ranks.rank(scope)
        return Output(
            label=self.labels[index],
            confidence=confidence,
            in_scope=rank,
            flagged=rank < self._ranks.limit,
            logits=row,
        )

    def scope_scores(self, logits: np.ndarray, probabilities: np.ndarray | None = None) -> np.ndarray:
        """How much each row of logits looks like an in-scope input, shape (n_inputs,), higher is more."""
        if self.calibration.scope_rule == "energy":
            in_scope = np.asarray(logits, np.float64)[:, self._in_scope]
            top = in_scope.max(axis=1)
            return np.asarray(top + np.log(np.exp(in_scope - top[:, None]).sum(axis=1)))
        if probabilities is None:
            probabilities = softmax(logits, self.calibration.temperature)
        return np.asarray(probabilities[:, self._in_scope].max(axis=1))


class ScopeRanks:
    """Ranks of one number at a time; `np.interp` takes longer than all the rest of a cascade."""

    def __init__(self, quantiles: Sequence[float], limit: float) -> None:
        self._quantiles = list(quantiles)
        self._levels = np.linspace(0.0, 1.0, len(quantiles)).tolist()
        self.limit = limit

    @classmethod
    def of(cls, calibration: Calibration | None) -> "ScopeRanks | None":
        if calibration is None or calibration.scope_quantiles is None:
            return None
        return cls(calibration.scope_quantiles, calibration.false_alarm_share)

    def rank(self, score: float) -> float:
        """Equal to `np.interp(score, quantiles, levels)`."""
        quantiles, levels = self._quantiles, self._levels
        if score < quantiles[0]:
            return 0.0
        if score >= quantiles[-1]:
            return 1.0
        above = bisect_right(quantiles, score)
        low, high = quantiles[above - 1], quantiles[above]
        share = (score - low) / (high - low)
        return float(levels[above - 1] + share * (levels[above] - levels[above - 1]))


CONFIDENCE_MAP = "confidence_map"
"""Setting of a candidate without logits: slope and intercept that make its confidence honest."""


def mapped_confidence(confidence: float, settings: Mapping[str, Any]) -> float:
    """A raw confidence in 0-1 as calibrated on dev: a logistic map of its log-odds. Platt 1999."""
    found = settings.get(CONFIDENCE_MAP)
    if found is None:
        return confidence
    slope, intercept = found
    return float(1.0 / (1.0 + math.exp(-(slope * log_odds(confidence) + intercept))))


def log_odds(confidence: float) -> float:
    """Log-odds of a probability, finite at both ends."""
    inside = min(max(confidence, 1e-6), 1.0 - 1e-6)
    return math.log(inside / (1.0 - inside))


def softmax(logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """Row-wise softmax at a temperature, shape (n_inputs, n_labels), float64-safe."""
    scaled = np.asarray(logits, np.float64) / temperature
    scaled -= scaled.max(axis=1, keepdims=True)
    np.exp(scaled, out=scaled)
    scaled /= scaled.sum(axis=1, keepdims=True)
    return scaled
