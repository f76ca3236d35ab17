"""A confidence sequence for a mean whose truth may drift: empirical Bernstein, predictable weights.

For randomised arms the values are inverse-propensity increments, whose range changes with the share of
traffic that each arm gets. The interval covers the weighted mean of the true effects so far, even when
the effect itself moves.

Source: Waudby-Smith & Ramdas 2024, JRSS B 86:1, theorem 2; Howard et al. 2021, theorem 4. Each value is
scaled by its own range, which must be known before it: the proof goes value by value.
"""

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike

from jettison.errors import InvalidInput
from jettison.stats.interval import Interval
from jettison.stats.predictable import PRIOR_MEAN, PRIOR_VARIANCE, carried

LARGEST_BET = 0.5


class EmpiricalBernsteinSequence:
    """Bounds of a drifting mean, valid together at every sample size; updated value by value.

    Args:
        alpha_low: Probability, over all time, that the lower bound exceeds the mean.
        alpha_high: Probability that the upper bound is under it.
        streams: Shape of independent streams kept side by side; () is one.
    """

    def __init__(
        self, *, alpha_low: float = 0.025, alpha_high: float = 0.025, streams: tuple[int, ...] = ()
    ) -> None:
        for name, level in (("alpha_low", alpha_low), ("alpha_high", alpha_high)):
            if not 0 < level < 1:
                raise InvalidInput(f"{name} must be in (0, 1), got {level}.")
        self.alpha_low, self.alpha_high = alpha_low, alpha_high
        self.n = 0
        self._sums = {
            name: np.zeros(streams) for name in ("total", "squares", "weight", "weighted", "loss")
        }
        self._prior: tuple[float, float] | None = None
        self.low, self.high = np.full(streams, -np.inf), np.full(streams, np.inf)

    def update(self, values: ArrayLike, *, low: ArrayLike = 0.0, high: ArrayLike = 1.0) -> None:
        """Take in values, oldest first; batches may be cut anywhere.

        Args:
            values: Shape (*streams, n_values).
            low: Least value possible, known beforehand; broadcast to the values' shape.
            high: Greatest value possible.

        Raises:
            InvalidInput: A value is outside its range.
        """
        z = np.asarray(values, float)
        z = z[..., None] if z.ndim == self.low.ndim else z
        floor, ceiling = np.broadcast_to(low, z.shape), np.broadcast_to(high, z.shape)
        outside = ~((z >= floor - 1e-9) & (z <= ceiling + 1e-9) & (ceiling > floor))
        if outside.any():
            raise InvalidInput(f"values must be inside their range, got {z[outside][0]}.")
        if not z.shape[-1]:
            return
        if self._prior is None:
            first, width = float(floor.flat[0]), float((ceiling - floor).flat[0])
            self._prior = (first + PRIOR_MEAN * width, PRIOR_VARIANCE * width**2)
        self._take(z, floor, ceiling - floor)

    def _take(self, z: np.ndarray, floor: np.ndarray, width: np.ndarray) -> None:
        assert self._prior is not None
        sums = self._sums
        count = np.arange(self.n + 1, self.n + z.shape[-1] + 1, dtype=float)
        totals = carried(sums["total"], z)
        means = (self._prior[0] + totals) / (np.arange(self.n, self.n + len(count) + 1) + 1.0)
        squares = carried(sums["squares"], (z - means[..., 1:]) ** 2)
        variance = (self._prior[1] + squares[..., :-1]) / count / width**2
        alpha = min(self.alpha_low, self.alpha_high)
        bets = np.sqrt(2 * np.log(1 / alpha) / (variance * count * np.log1p(count)))
        bets = np.minimum(bets, LARGEST_BET)
        guess = np.clip(means[..., :-1], floor, floor + width)
        losses = carried(sums["loss"], ((z - guess) / width) ** 2 * (-np.log1p(-bets) - bets))
        weights = carried(sums["weight"], bets / width)
        weighted = carried(sums["weighted"], bets / width * z)
        center = weighted[..., 1:] / weights[..., 1:]
        below = (np.log(1 / self.alpha_low) + losses[..., 1:]) / weights[..., 1:]
        above = (np.log(1 / self.alpha_high) + losses[..., 1:]) / weights[..., 1:]
        self.low = np.maximum(self.low, (center - below).max(axis=-1))
        self.high = np.minimum(self.high, (center + above).min(axis=-1))
        self._now = center[..., -1] - below[..., -1], center[..., -1] + above[..., -1]
        ends = (totals, squares, weights, weighted, losses)
        self._sums = {name: path[..., -1] for name, path in zip(sums, ends, strict=True)}
        self.n += z.shape[-1]

    def interval(self, *, running: bool = True) -> Interval:
        """Of one stream.

        Args:
            running: Intersect the bounds of all looks, as the decision does when the effect is
                constant; False gives the bounds of this moment, which follow a drifting effect.
        """
        low, high = (self.low, self.high) if running or not self.n else self._now
        return Interval(
            value=float(self._sums["weighted"] / self._sums["weight"]) if self.n else float("nan"),
            low=float(low),
            high=float(high),
            confidence=1 - self.alpha_low - self.alpha_high,
            method="empirical-Bernstein confidence sequence",
        )

    def state(self) -> dict[str, Any]:
        """Everything it knows, JSON-like; `from_state` goes on from it to the last digit."""
        return {
            "alpha_low": self.alpha_low,
            "alpha_high": self.alpha_high,
            "n": self.n,
            "prior": self._prior,
            "sums": {name: value.tolist() for name, value in self._sums.items()},
            "low": _finite(self.low),
            "high": _finite(self.high),
            "now": [value.tolist() for value in self._now] if self.n else None,
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """Go on where `state` was taken."""
        sums = {name: np.asarray(value, float) for name, value in state["sums"].items()}
        found = cls(
            alpha_low=state["alpha_low"], alpha_high=state["alpha_high"], streams=sums["total"].shape
        )
        found.n, found._sums = int(state["n"]), {name: sums[name] for name in found._sums}
        if found.n:
            found._prior = tuple(state["prior"])
            found.low, found.high = np.asarray(state["low"], float), np.asarray(state["high"], float)
            found._now = np.asarray(state["now"][0], float), np.asarray(state["now"][1], float)
        return found


def _finite(bounds: np.ndarray) -> Any:
    """Bounds as JSON can hold them; None before the first value."""
    return bounds.tolist() if np.isfinite(bounds).all() else None


def arm_increments(
    outcome: np.ndarray, is_treatment: np.ndarray, share: np.ndarray, center: np.ndarray
) -> np.ndarray:
    """Inverse-propensity increments, whose mean is the effect of treatment over control.

    Args:
        outcome: In [0, 1], shape (n,).
        is_treatment: Arm of each, shape (n,), bool.
        share: Probability with which each was drawn for treatment, in (0, 1), shape (n,).
        center: What each outcome was expected to be, known beforehand, in [0, 1], shape (n,): any
            guess leaves the mean as it is, a good one takes most of the variance away.

    Returns:
        Shape (n,), within plus or minus 1 / min(share, 1 - share).
    """
    rest = np.asarray(outcome, float) - center
    return np.asarray(np.where(is_treatment, rest / share, -rest / (1 - share)))
