"""Finer maps from logits to honest confidences than one temperature: vector scaling and isotonic."""

import numpy as np
from scipy.optimize import isotonic_regression, minimize

from jettison.model import softmax

SHRINK = 0.02
"""Pull of each scale and bias toward the temperature's, per label, in units of the mean log-loss."""
MOST_KNOTS = 64


def fit_vector(
    logits: np.ndarray, expected: np.ndarray, weights: np.ndarray, *, temperature: float
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Scale and bias of each label's logit at which the expected labels are most likely.

    With few examples a label, both are pulled toward what the temperature gives (1 / temperature and 0):
    where nothing speaks for more, this is temperature scaling.

    Args:
        logits: Shape (n_examples, n_labels).
        expected: Index of the right label, shape (n_examples,).
        weights: Of each example, shape (n_examples,).
        temperature: Fitted on the same examples.

    Source:
        Guo et al. 2017, section 4.2 (vector scaling); shrunk as in Kull et al. 2019.
    """
    rows = np.asarray(logits, np.float64)
    n_labels = rows.shape[1]
    share = weights / weights.sum()
    start = np.concatenate([np.full(n_labels, 1 / temperature), np.zeros(n_labels)])
    at = np.arange(len(rows)), expected

    def loss(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        scales, biases = parameters[:n_labels], parameters[n_labels:]
        probabilities = softmax(rows * scales + biases)
        away = parameters - start
        relative = np.concatenate([away[:n_labels] * temperature, away[n_labels:]])
        value = -share @ np.log(np.maximum(probabilities[at], 1e-300)) + SHRINK * (relative**2).mean()
        error = probabilities * share[:, None]
        error[at] -= share
        gradient = np.concatenate([(error * rows).sum(axis=0), error.sum(axis=0)])
        pull = 2 * SHRINK / len(parameters) * relative
        pull[:n_labels] *= temperature
        return float(value), gradient + pull

    found = minimize(loss, start, jac=True, method="L-BFGS-B")
    return tuple(found.x[:n_labels].tolist()), tuple(found.x[n_labels:].tolist())


def fit_isotonic(
    confidence: np.ndarray, right: np.ndarray, weights: np.ndarray
) -> tuple[tuple[float, float], ...]:
    """Knots of the monotone map from confidence to the share of right answers.

    One answer of the largest confidence counts once more as wrong, and one of the least as right, so that
    no confidence of exactly 0 or 1 comes out.

    Args:
        confidence: Of the answers given, shape (n_examples,).
        right: 1 where the answer was right.
        weights: Of each example.

    Source:
        Zadrozny & Elkan 2002, "Transforming classifier scores into accurate probability estimates".
    """
    x = np.concatenate([confidence, [confidence.max(), confidence.min()]])
    y = np.concatenate([right, [0.0, 1.0]])
    w = np.concatenate([weights, [weights.mean(), weights.mean()]])
    order = np.argsort(x, kind="stable")
    x, y, w = x[order], y[order], w[order]
    # Equal confidences must get one value.
    levels, level_of = np.unique(x, return_inverse=True)
    total = np.bincount(level_of, weights=w)
    mean = np.bincount(level_of, weights=w * y) / total
    fitted = isotonic_regression(mean, weights=total)
    blocks = fitted.blocks
    knots = []
    for start, end in zip(blocks[:-1].tolist(), blocks[1:].tolist(), strict=True):
        center = float(np.average(levels[start:end], weights=total[start:end]))
        knots.append((center, float(fitted.x[start])))
    if len(knots) > MOST_KNOTS:
        kept = np.unique(np.linspace(0, len(knots) - 1, MOST_KNOTS).astype(int))
        knots = [knots[i] for i in kept.tolist()]
    return tuple(knots)
