"""Evidence that a mean fell under a limit at some time, however long it held before.

What gathers evidence from the beginning pays for every good value before the loss: each of them speaks
against it. Here a new gambler begins with every block of values, with a small part of the wealth, and bets
from then on that the values are under the limit. Together they are one nonnegative supermartingale while
the mean was never under it, so that their wealth reaching 1/alpha at any time is an error of at most alpha
over the whole time. The later the loss begins the smaller the part, which costs a logarithm of it.

Source: Shin, Ramdas & Rinaldo 2024, "E-detectors", New England Journal of Statistics in Data Science 2:2,
with weights that sum to 1 in place of 1 each, which bounds the probability of any false alarm instead of
the time to the first (a mixture over the time of change); bets as in Waudby-Smith & Ramdas 2024.
"""

import math
from collections.abc import Mapping
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike

from jettison.errors import InvalidInput

BLOCK = 128
"""Values between two beginnings, and between two looks."""
BETS = np.array([0.03, 0.1, 0.3, 0.9])
"""Shares of the wealth that are staked; one of them grows at least 3/4 as fast as the best between them."""
_MOST = 1e100


class LateLoss:
    """Watches whether values are under a limit by now; updated value by value, looked at a block at a time.

    Args:
        alpha: Probability of a false alarm, ever, while no value's mean, given all before it, is under
            the limit.
        limit: The mean that they must have.
        streams: Shape of independent streams kept side by side; () is one.
    """

    def __init__(self, *, alpha: float, limit: float, streams: tuple[int, ...] = ()) -> None:
        if not 0 < alpha < 1:
            raise InvalidInput(f"alpha must be in (0, 1), got {alpha}.")
        self.alpha, self.limit = alpha, limit
        shape = (len(BETS), *streams)
        self.n = 0
        self._open = np.ones(shape)
        """Growth in the block that is not full yet."""
        self._wealth = np.zeros(shape)
        self._most = np.zeros(streams)
        self._run, self._since = np.ones(shape), np.zeros(shape, np.int64)
        """Growth since the beginning that has gained most, and the number of its first value."""

    def update(self, values: ArrayLike, *, low: ArrayLike = -1.0, high: ArrayLike = 1.0) -> None:
        """Take in values, oldest first; batches may be cut anywhere.

        Args:
            values: Shape (*streams, n_values).
            low: Least value possible, known beforehand; broadcast to the values' shape.
            high: Greatest value possible, above the limit.

        Raises:
            InvalidInput: A value is outside its range, or the limit is.
        """
        z = np.asarray(values, float)
        floor, ceiling = np.asarray(low, float), np.asarray(high, float)
        if not z.shape[-1]:
            return
        if not ((z >= floor - 1e-9) & (z <= ceiling + 1e-9)).all():
            raise InvalidInput("values must be inside their range.")
        if not (ceiling > self.limit).all():
            raise InvalidInput(f"the limit must be under the greatest value, got {self.limit}.")
        # At the greatest value all that is staked is lost.
        short = np.maximum((self.limit - z) / (ceiling - self.limit), -1.0)
        bets = BETS.reshape(-1, *([1] * z.ndim))
        start = 0
        while start < z.shape[-1]:
            used = self.n % BLOCK
            whole = max(1, (z.shape[-1] - start) // BLOCK) if not used else 1
            stop = min(z.shape[-1], start + (BLOCK - used if used else whole * BLOCK))
            self._bet(1 + bets * short[..., start:stop])
            start = stop

    def _bet(self, growth: np.ndarray) -> None:
        """Of the rest of a block, or of whole ones; shape (n_bets, *streams, n)."""
        n = growth.shape[-1]
        if self.n % BLOCK or n < BLOCK:
            # One after the other, so that no digit hangs on how they were cut.
            path = np.multiply.accumulate(np.concatenate([self._open[..., None], growth], axis=-1), axis=-1)
            self._open, self.n = path[..., -1], self.n + n
            if self.n % BLOCK == 0:
                self._close(self._open[None])
                self._open = np.ones_like(self._wealth)
            return
        # Multiplied in order, as above: a test holds it to that.
        grown = np.multiply.reduce(growth.reshape(*growth.shape[:-1], n // BLOCK, BLOCK), axis=-1)
        self.n += n
        self._close(np.ascontiguousarray(np.moveaxis(grown, -1, 0)))

    def _close(self, grown: np.ndarray) -> None:
        """Blocks are full: all that bet in one are paid, who began with it among them.

        Args:
            grown: By what each block multiplied what was staked, shape (n_blocks, n_bets, *streams).
        """
        first = self.n // BLOCK - len(grown)
        if grown.ndim == 2:
            self._close_one(grown.tolist(), first)
            return
        wealth, run, since, path = self._wealth, self._run, self._since, np.empty_like(grown)
        for place, by in enumerate(grown):
            wealth = np.minimum((wealth + weight_of(first + place)) * by, _MOST, out=path[place])
            begins = run <= 1
            since = np.where(begins, (first + place) * BLOCK, since)
            run = np.minimum(np.where(begins, by, run * by), _MOST)
        self._wealth, self._run, self._since = wealth.copy(), run, since
        self._most = np.maximum(self._most, path.mean(axis=1).max(axis=0))

    def _close_one(self, grown: list[list[float]], first: int) -> None:
        """The same of one stream, in Python's own floats: of four numbers at a time that is quicker."""
        wealth, run, since = self._wealth.tolist(), self._run.tolist(), self._since.tolist()
        most = float(self._most)
        for block, growth in enumerate(grown, first):
            weight, total = weight_of(block), 0.0
            for bet, by in enumerate(growth):
                wealth[bet] = min((wealth[bet] + weight) * by, _MOST)
                total += wealth[bet]
                if run[bet] <= 1:
                    run[bet], since[bet] = min(by, _MOST), block * BLOCK
                else:
                    run[bet] = min(run[bet] * by, _MOST)
            most = max(most, total / len(growth))
        self._wealth, self._run, self._since = np.array(wealth), np.array(run), np.array(since)
        self._most = np.array(most)

    @property
    def is_found(self) -> np.ndarray:
        """Whether the values surely were under the limit for some time, shape (*streams,)."""
        return np.asarray(self._most >= 1 / self.alpha)

    @property
    def log_e(self) -> np.ndarray:
        """Greatest log wealth so far, shape (*streams,); alarm at `log_e_limit`."""
        with np.errstate(divide="ignore"):
            return np.asarray(np.log(self._most))

    @property
    def log_e_limit(self) -> float:
        """Log of 1 / alpha."""
        return -math.log(self.alpha)

    @property
    def since(self) -> np.ndarray:
        """About which value the loss began at, by the bet that has gained most, shape (*streams,)."""
        best = self._wealth.argmax(axis=0)
        return np.asarray(np.take_along_axis(self._since, best[None], axis=0)[0])

    def state(self) -> dict[str, Any]:
        """Everything it knows, JSON-like; `from_state` goes on from it to the last digit."""
        arrays = {name: getattr(self, f"_{name}").tolist() for name in _ARRAYS}
        return {"alpha": self.alpha, "limit": self.limit, "n": self.n, **arrays}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """Go on where `state` was taken."""
        found = cls(alpha=state["alpha"], limit=state["limit"], streams=np.shape(state["most"]))
        found.n = int(state["n"])
        for name in _ARRAYS:
            kind = np.int64 if name == "since" else float
            setattr(found, f"_{name}", np.asarray(state[name], kind))
        return found


_ARRAYS = ("open", "wealth", "most", "run", "since")


def weight_of(block: int) -> float:
    """Part of the wealth that a block's gambler begins with; over all blocks they sum to 1."""
    return 1 / math.log2(block + 2) - 1 / math.log2(block + 3)
