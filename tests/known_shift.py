"""The known simulation: inputs shift by one standard deviation, and the predictor is miscalibrated.

Labelled mean .791, truth after the shift .649, the predictions alone .775. Being right has the chance
sigmoid(A - B x), with A and B solved for the two means; the predictor answers 0.1 times as steeply.
"""

import numpy as np
from scipy import optimize

NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(80)
WEIGHTS = WEIGHTS / WEIGHTS.sum()
N, N_OTHER = 400, 5000


def chance(x: np.ndarray, a: float, b: float) -> np.ndarray:
    return 1 / (1 + np.exp(-(a - b * x)))


def mean_at(shift: float, a: float, b: float) -> float:
    return float(WEIGHTS @ chance(NODES + shift, a, b))


A, B = optimize.fsolve(lambda p: [mean_at(0, *p) - 0.791, mean_at(1, *p) - 0.649], [1.5, 0.8])
TRUTH = mean_at(1, A, B)
FLAT = optimize.brentq(lambda a: mean_at(1, a, 0.1) - 0.775, -5, 5)


def draw(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores and features of the labelled, and features of the others."""
    x, z = rng.normal(0, 1, N), rng.normal(1, 1, N_OTHER)
    y = (rng.random(N) < chance(x, A, B)).astype(float)
    return y, x[:, None], z[:, None]


def predicted(x: np.ndarray) -> np.ndarray:
    """The miscalibrated predictor."""
    return chance(x[:, 0], FLAT, 0.1)
