"""What a detector must be: made from counts of a reference, fed scores, asked for an alarm."""

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import msgspec
import numpy as np

from jettison import registry
from jettison.errors import InvalidInput


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """What a detector says now."""

    alarm: bool
    n: int
    """Scores seen."""
    statistic: float | None
    """None before there is anything to say."""
    limit: float | None
    """Of the statistic, from which there is an alarm."""
    p_value: float | None
    """Of one look; None where a detector may be looked at any time."""
    reason: str


@runtime_checkable
class Detector(Protocol):
    """Watches one score, given as the number of its bin, oldest first.

    A class is made with `(reference, *, alpha, seed)`: counts of the bins in the reference, shape
    (n_bins,); the share of false alarms; and a seed. Batches may be cut anywhere, and one that goes on
    from `state` must be the same to the last digit.
    """

    is_heuristic: bool
    """Whether nothing is promised of the share of false alarms."""
    any_time: bool
    """Whether alpha holds over all looks together; else at one look."""

    def update(self, scores: Sequence[int] | np.ndarray) -> None:
        """Take in bins, shape (n,); InvalidInput where one is out of range."""

    @property
    def alarm(self) -> bool:
        """Whether the score no longer comes as it used to."""

    def reading(self) -> Reading:
        """What it says now, in figures and words."""

    def state(self) -> dict[str, Any]:
        """Everything it knows, JSON-like, for the class's `from_state`."""


def open_detector(
    use: str, reference: Sequence[int] | np.ndarray, *, alpha: float, seed: int = 0
) -> Detector:
    """Make a detector by name.

    Raises:
        UnknownName: There is none of that name.
        InvalidInput: The reference or alpha will not do.
    """
    made = registry.load("detectors", use)(reference, alpha=alpha, seed=seed)
    if not isinstance(made, Detector):
        raise InvalidInput(f"jettison.detectors {use!r} must make a Detector, got {type(made).__name__}.")
    return made


def checked_reference(reference: Sequence[int] | np.ndarray, alpha: float) -> np.ndarray:
    """Counts of a reference as integers.

    Raises:
        InvalidInput: They are none, negative or all zero, or alpha is not in (0, 1).
    """
    counts = np.asarray(reference, np.int64)
    if counts.ndim != 1 or not len(counts) or (counts < 0).any() or not counts.sum():
        raise InvalidInput("reference must be counts of at least one score, none negative, not all zero.")
    if not 0 < alpha < 1:
        raise InvalidInput(f"alpha must be in (0, 1), got {alpha}.")
    return counts


def checked_bins(scores: Sequence[int] | np.ndarray, n_bins: int) -> np.ndarray:
    """Scores as bins.

    Raises:
        InvalidInput: One is no bin.
    """
    x = np.asarray(scores).ravel()
    if len(x) and not (np.isfinite(x.astype(float)).all() and x.min() >= 0 and x.max() < n_bins):
        raise InvalidInput(f"scores must be in 0-{n_bins - 1}, got {x.min()} to {x.max()}.")
    return x.astype(np.int64)
