"""How far confidences can be trusted: calibration error, Brier score, log loss, risk against coverage."""

import numpy as np
from numpy.typing import ArrayLike

from jettison.errors import InvalidInput, NotEnoughData

LEAST_IN_BIN = 10


def calibration_error(
    confidence: ArrayLike, correct: ArrayLike, *, n_bins: int = 15, debiased: bool = True
) -> float:
    """Expected calibration error: mean distance between confidence and accuracy, in 0-1.

    Bins hold equally many examples, as far as ties let them (`equal_bins`). Even a perfectly
    calibrated model shows a positive error in bins of a few examples; `debiased` takes off what
    sampling noise alone adds.

    Args:
        confidence: Probability that the answer is right, shape (n_examples,).
        correct: Whether it was, shape (n_examples,).
        n_bins: At most; never more than one per ten examples.
        debiased: Subtract the expected excess of a folded normal in each bin, never under 0.

    Source:
        Kumar, Liang & Ma 2019, "Verified uncertainty calibration", the debiased plug-in.
    """
    p, y = _pair(confidence, correct)
    parts = equal_bins(p, n_bins)
    sizes = np.array([len(part) for part in parts])
    right = np.array([y[part].mean() for part in parts])
    sure = np.array([p[part].mean() for part in parts])
    if not debiased:
        return float(sizes / len(p) @ np.abs(right - sure))
    return float(debiased_gap(right, sure, sizes, sizes / len(p)))


def equal_bins(confidence: np.ndarray, n_bins: int) -> list[np.ndarray]:
    """Positions of the examples of each bin, least sure first: equally many, ties never parted.

    Parted ties would let the order of the file say which bin is right how often. An edge that falls within
    a tie goes to the nearer end of it, and one that would leave a bin under `LEAST_IN_BIN` is left out.

    Args:
        confidence: Shape (n_examples,), at least one.
        n_bins: At most; never more than one for each `LEAST_IN_BIN` examples.
    """
    n = len(confidence)
    order = np.argsort(confidence, kind="stable")
    found = confidence[order]
    sizes = [len(part) for part in np.array_split(order, max(1, min(n_bins, n // LEAST_IN_BIN)))]
    edges = [0]
    for edge in np.cumsum(sizes)[:-1]:
        start, end = (int(np.searchsorted(found, found[edge], side)) for side in ("left", "right"))
        nearer = start if edge - start <= end - edge else end
        if min(nearer - edges[-1], n - nearer) >= LEAST_IN_BIN:
            edges.append(nearer)
    return np.split(order, edges[1:])


def debiased_gap(right: np.ndarray, sure: np.ndarray, sizes: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weighted mean distance of bins' confidences and shares of right answers, debiased, never under 0.

    Args:
        right: Share of right answers, shape (..., n_bins).
        sure: Mean confidence, the same shape or (n_bins,).
        sizes: Answers in each bin.
        weights: Of each bin, summing to 1.
    """
    from scipy.special import ndtr

    gap = np.abs(right - sure)
    noise = np.sqrt(right * (1 - right) / sizes)
    safe = np.where(noise > 0, noise, 1.0)
    folded = noise * np.sqrt(2 / np.pi) * np.exp(-(gap**2) / (2 * safe**2)) + gap * (
        1 - 2 * ndtr(-gap / safe)
    )
    expected = np.where(noise > 0, folded, gap)
    return np.asarray(
        np.maximum(0.0, (gap * weights).sum(axis=-1) - ((expected - gap) * weights).sum(axis=-1))
    )


def brier(confidence: ArrayLike, correct: ArrayLike) -> float:
    """Mean squared distance between confidence and being right, in 0-1; lower is better."""
    p, y = _pair(confidence, correct)
    return float(((p - y) ** 2).mean())


def log_loss(confidence: ArrayLike, correct: ArrayLike) -> float:
    """Mean negative log-likelihood of being right, in nats; confidences are kept 1e-12 from 0 and 1."""
    p, y = _pair(confidence, correct)
    p = np.clip(p, 1e-12, 1 - 1e-12)
    return float(-(y * np.log(p) + (1 - y) * np.log1p(-p)).mean())


def risk_coverage_area(confidence: ArrayLike, correct: ArrayLike) -> float:
    """Area under error rate against coverage (AURC), in 0-1: lower when errors have low confidence.

    Ties in confidence share their mean error, so that the order of examples does not matter.
    """
    p, y = _pair(confidence, correct)
    spread = _with_ties_shared(p, 1 - y)
    return float((np.cumsum(spread) / np.arange(1, len(p) + 1)).mean())


def accuracy_at_coverage(confidence: ArrayLike, correct: ArrayLike, coverage: float) -> float:
    """Accuracy on the most confident share of the examples, in 0-1; ties share their mean."""
    p, y = _pair(confidence, correct)
    if not 0 < coverage <= 1:
        raise InvalidInput(f"coverage must be in (0, 1], got {coverage}.")
    return float(_with_ties_shared(p, y)[: max(1, round(coverage * len(p)))].mean())


def _with_ties_shared(p: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Values, most confident first; each is the mean of those of its confidence."""
    levels, level_of = np.unique(-p, return_inverse=True)
    means = np.bincount(level_of, weights=y, minlength=len(levels)) / np.bincount(level_of)
    return np.asarray(means[np.sort(level_of)])


def _pair(confidence: ArrayLike, correct: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    p, y = np.asarray(confidence, float), np.asarray(correct, float)
    if p.shape != y.shape or p.ndim != 1:
        raise InvalidInput(
            f"confidence and correct must share one shape (n_examples,), got {p.shape} and {y.shape}."
        )
    if len(p) == 0:
        raise NotEnoughData("calibration needs at least 1 example, got 0.")
    outside = ~((p >= 0) & (p <= 1))
    if outside.any():
        first = int(np.flatnonzero(outside)[0])
        raise InvalidInput(f"confidence must be in 0-1, got {p[first]} at example {first}.")
    return p, y
