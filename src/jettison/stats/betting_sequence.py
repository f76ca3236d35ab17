"""A confidence sequence for a bounded mean by betting: it holds at every look, however often one looks.

For each mean that might be true, two gamblers bet against it, one that the values are higher and one
that they are lower. Where it is true, neither can expect to win, so a wealth of 1/alpha disproves it at
level alpha (Ville's inequality). The values' conditional mean is taken to be constant; where it drifts,
use `EmpiricalBernsteinSequence`.

Source: Waudby-Smith & Ramdas 2024, JRSS B 86:1, theorem 3, with the bets of equation 26.
"""

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike

from jettison.errors import InvalidInput
from jettison.stats.interval import Interval
from jettison.stats.predictable import bet_sizes, past_of

MEANS = np.linspace(0.0, 1.0, 1001)
_CELLS = 1 << 20
"""Values times means worked on at once: bounds memory."""


class BettingSequence:
    """Bounds of a mean in [0, 1], valid together at every sample size; updated value by value.

    Args:
        alpha_low: Probability, over all time, that the lower bound exceeds the mean.
        alpha_high: Probability that the upper bound is under it.
        means: Hypothetical means to bet against, ascending, in [0, 1]; the bounds are among them.
        cap: Largest share of the wealth staked on one value, in (0, 1).
        streams: Shape of independent streams kept side by side; () is one.
    """

    def __init__(
        self,
        *,
        alpha_low: float = 0.025,
        alpha_high: float = 0.025,
        means: ArrayLike = MEANS,
        cap: float = 0.5,
        streams: tuple[int, ...] = (),
    ) -> None:
        for name, level in (("alpha_low", alpha_low), ("alpha_high", alpha_high), ("cap", cap)):
            if not 0 < level < 1:
                raise InvalidInput(f"{name} must be in (0, 1), got {level}.")
        self.alpha_low, self.alpha_high, self.cap = alpha_low, alpha_high, cap
        self.means = np.asarray(means, float)
        if self.means.ndim != 1 or not ((self.means >= 0) & (self.means <= 1)).all():
            raise InvalidInput("means must be a list of numbers in [0, 1].")
        shape = (*streams, len(self.means))
        self.n = 0
        self._total, self._squares = np.zeros(streams), np.zeros(streams)
        self._above, self._below = np.zeros(shape), np.zeros(shape)
        self._most_above, self._most_below = np.zeros(shape), np.zeros(shape)

    def update(self, values: ArrayLike) -> None:
        """Take in values, shape (*streams, n_values), oldest first; batches may be cut anywhere.

        Raises:
            InvalidInput: A value is not in [0, 1].
        """
        x = checked_values(values, self._total.shape)
        width = max(1, _CELLS // max(1, self._above.size))
        for start in range(0, x.shape[-1], width):
            self._bet(x[..., start : start + width])

    def _bet(self, x: np.ndarray) -> None:
        past = past_of(x, self.n, self._total, self._squares)
        excess = x[..., None] - self.means
        with np.errstate(divide="ignore"):
            most_up, most_down = self.cap / self.means, self.cap / (1 - self.means)
        up = np.minimum(bet_sizes(past, self.alpha_low)[..., None], most_up)
        down = np.minimum(bet_sizes(past, self.alpha_high)[..., None], most_down)
        self._above, self._most_above = _grown(self._above, self._most_above, np.log1p(up * excess))
        self._below, self._most_below = _grown(self._below, self._most_below, np.log1p(-down * excess))
        self.n, self._total, self._squares = self.n + x.shape[-1], past.total, past.squares

    @property
    def is_below(self) -> np.ndarray:
        """Whether each hypothetical mean was disproved as too low, shape (*streams, n_means)."""
        return np.asarray(self._most_above >= -np.log(self.alpha_low))

    @property
    def is_above(self) -> np.ndarray:
        """Whether each hypothetical mean was disproved as too high, shape (*streams, n_means)."""
        return np.asarray(self._most_below >= -np.log(self.alpha_high))

    def interval(self) -> Interval:
        """Of one stream: the mean so far, between the last means disproved on either side.

        All looks so far are in it: a mean once disproved stays so.
        """
        low, high = self.means[self.is_below], self.means[self.is_above]
        return Interval(
            value=float(self._total / self.n) if self.n else float("nan"),
            low=float(low[-1]) if len(low) else 0.0,
            high=float(high[0]) if len(high) else 1.0,
            confidence=1 - self.alpha_low - self.alpha_high,
            method="betting confidence sequence",
        )

    def state(self) -> dict[str, Any]:
        """Everything it knows, JSON-like; `from_state` goes on from it to the last digit."""
        return {
            "alpha_low": self.alpha_low,
            "alpha_high": self.alpha_high,
            "cap": self.cap,
            "means": self.means.tolist(),
            "n": self.n,
            "total": self._total.tolist(),
            "squares": self._squares.tolist(),
            "above": self._above.tolist(),
            "below": self._below.tolist(),
            "most_above": self._most_above.tolist(),
            "most_below": self._most_below.tolist(),
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """Go on where `state` was taken."""
        found = cls(
            alpha_low=state["alpha_low"],
            alpha_high=state["alpha_high"],
            means=state["means"],
            cap=state["cap"],
            streams=np.shape(state["total"]),
        )
        found.n = int(state["n"])
        found._total, found._squares = np.asarray(state["total"]), np.asarray(state["squares"])
        found._above, found._below = np.asarray(state["above"]), np.asarray(state["below"])
        found._most_above, found._most_below = (
            np.asarray(state["most_above"]),
            np.asarray(state["most_below"]),
        )
        return found


def checked_values(values: ArrayLike, streams: tuple[int, ...]) -> np.ndarray:
    """Values in [0, 1] of the right shape, as floats.

    Raises:
        InvalidInput: The shape does not fit the streams, or a value is outside [0, 1].
    """
    x = np.asarray(values, float)
    if x.ndim == len(streams):
        x = x[..., None]
    if x.shape[:-1] != streams:
        raise InvalidInput(f"values must have the shape {(*streams, 'n_values')}, got {x.shape}.")
    outside = ~((x >= 0) & (x <= 1))
    if outside.any():
        raise InvalidInput(f"values must be in [0, 1], got {x[outside][0]}.")
    return x


def _grown(wealth: np.ndarray, most: np.ndarray, growth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Log wealth after each value, and its greatest so far; growth has shape (*streams, n, n_means)."""
    path = np.add.accumulate(np.concatenate([wealth[..., None, :], growth], axis=-2), axis=-2)
    return path[..., -1, :], np.maximum(most, path.max(axis=-2))
