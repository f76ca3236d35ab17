"""Which map of confidences to take: the temperature, unless a finer one is better on other folds."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import msgspec
import numpy as np

from jettison.candidate import Calibration
from jettison.evaluate.calibration_maps import fit_isotonic, fit_vector
from jettison.model import softmax

N_FOLDS = 5
LEAST_FINER = 500
"""Fewer examples fit no more than a temperature."""
Map = Literal["temperature", "vector", "isotonic"]
FitTemperature = Callable[[np.ndarray, np.ndarray, np.ndarray], float]


@dataclass(frozen=True, kw_only=True)
class Answers:
    """What confidences are fitted on."""

    logits: np.ndarray
    """Shape (n_examples, n_labels)."""
    expected: np.ndarray
    """Index of the right label, shape (n_examples,)."""
    weights: np.ndarray
    """Shape (n_examples,)."""
    outside: int | None = None
    """Index of the out-of-scope label, of which no example is among these."""

    def judged(self, temperature: float) -> tuple[np.ndarray, np.ndarray]:
        """Confidence of each answer at a temperature, and 1 where it is right."""
        best = self.logits.argmax(axis=1)
        confidence = softmax(self.logits, temperature)[np.arange(len(best)), best]
        return confidence, (best == self.expected).astype(float)

    def part(self, mask: np.ndarray) -> "Answers":
        """Some of the examples."""
        return replace(
            self, logits=self.logits[mask], expected=self.expected[mask], weights=self.weights[mask]
        )

    def fitted_vector(self, temperature: float) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Scales and biases; the out-of-scope label, never right here, keeps the temperature."""
        inside = [i for i in range(self.logits.shape[1]) if i != self.outside]
        place = np.searchsorted(inside, self.expected)
        found = fit_vector(self.logits[:, inside], place, self.weights, temperature=temperature)
        scales, biases = np.full(self.logits.shape[1], 1 / temperature), np.zeros(self.logits.shape[1])
        scales[inside], biases[inside] = found
        return tuple(scales.tolist()), tuple(biases.tolist())


def chosen_method(known: Answers, fit_temperature: FitTemperature) -> Map:
    """The map with the least log loss of being right, cross-fitted, unless the temperature is as good.

    Args:
        known: At least 500 examples give the finer maps a chance. A map must be better than the
            temperature by more than one standard error.
        fit_temperature: Of logits, right labels and weights.

    Source:
        The one-standard-error rule of Breiman et al. 1984, section 3.4.3.
    """
    if len(known.expected) < LEAST_FINER:
        return "temperature"
    folds = np.random.default_rng(0).permutation(len(known.expected)) % N_FOLDS
    loss: dict[Map, np.ndarray] = {}
    for fold in range(N_FOLDS):
        fit, rest = known.part(folds != fold), known.part(folds == fold)
        for name, confidence in _confidences(fit, rest, fit_temperature).items():
            p = np.clip(confidence, 1e-6, 1 - 1e-6)
            right = rest.judged(1.0)[1]
            of_fold = -(right * np.log(p) + (1 - right) * np.log1p(-p))
            loss.setdefault(name, np.zeros(len(folds)))[folds == fold] = of_fold
    shares = known.weights / known.weights.sum()
    best: Map = min(loss, key=lambda name: float(shares @ loss[name]))
    gain = loss["temperature"] - loss[best]
    error = np.sqrt((shares**2 * (gain - shares @ gain) ** 2).sum())
    return best if shares @ gain > error else "temperature"


def map_of(calibration: Calibration) -> Map:
    """Which map a calibration holds."""
    if not isinstance(calibration.scales, msgspec.UnsetType):
        return "vector"
    return "temperature" if isinstance(calibration.knots, msgspec.UnsetType) else "isotonic"


def _confidences(fit: Answers, rest: Answers, fit_temperature: FitTemperature) -> dict[Map, np.ndarray]:
    """Confidences of the rest by each map, fitted on the other folds."""
    temperature = fit_temperature(fit.logits, fit.expected, fit.weights)
    plain = rest.judged(temperature)[0]
    scales, biases = fit.fitted_vector(temperature)
    scaled = softmax(rest.logits * np.array(scales) + np.array(biases))
    x, y = zip(*fit_isotonic(*fit.judged(temperature), fit.weights), strict=True)
    best = rest.logits.argmax(axis=1)
    return {
        "temperature": plain,
        "vector": scaled[np.arange(len(best)), best],
        "isotonic": np.interp(plain, x, y),
    }
