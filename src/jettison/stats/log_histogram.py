"""Quantiles in bounded memory: counts in bins 1 % wide, with bounds that hold at every look."""

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike

from jettison.stats.mixtures import quantile_ranks

SMALLEST, LARGEST, RATIO = 1e-6, 1e6, 1.01
LOG_RATIO = float(np.log(RATIO))
N_BINS = int(np.ceil(np.log(LARGEST / SMALLEST) / LOG_RATIO))


class LogHistogram:
    """Counts of positive numbers; two of them may be added, and nothing hangs on the order."""

    def __init__(self) -> None:
        self.counts = np.zeros(N_BINS + 2, np.int64)
        """The first bin holds what is smaller than `SMALLEST`, the last what is larger than `LARGEST`."""

    @property
    def n(self) -> int:
        """Numbers seen."""
        return int(self.counts.sum())

    def update(self, values: ArrayLike) -> None:
        """Count numbers, shape (n,); those that are not positive count as smallest."""
        x = np.asarray(values, float).ravel()
        with np.errstate(divide="ignore", invalid="ignore"):
            place = np.floor(np.log(x / SMALLEST) / LOG_RATIO) + 1
        place = np.clip(np.nan_to_num(place, nan=0.0, neginf=0.0, posinf=N_BINS + 1), 0, N_BINS + 1)
        self.counts += np.bincount(place.astype(int), minlength=N_BINS + 2)

    def quantile(self, share: float) -> float | None:
        """A quantile, to the width of a bin; None before the first number."""
        n = self.n
        return self._edges(max(1, int(np.ceil(share * n))))[1] if n else None

    def bounds(self, share: float, *, alpha: float) -> tuple[float, float]:
        """Between what a quantile lies, at every look together with probability 1 - alpha.

        Source:
            Ranks by the Beta mixture (`quantile_ranks`), widened to the edges of the bins.
        """
        n = self.n
        low, high = quantile_ranks(n, share, alpha=alpha) if n else (0, 1)
        return (
            self._edges(low)[0] if low >= 1 else 0.0,
            self._edges(high)[1] if high <= n else float("inf"),
        )

    def _edges(self, rank: int) -> tuple[float, float]:
        """Edges of the bin that holds the rank-th smallest number, from 1."""
        place = int(np.searchsorted(np.cumsum(self.counts), rank))
        low = 0.0 if place == 0 else SMALLEST * RATIO ** (place - 1)
        return low, SMALLEST * RATIO**place if place <= N_BINS else float("inf")

    def state(self) -> dict[str, Any]:
        """Everything it knows, JSON-like."""
        filled = np.flatnonzero(self.counts)
        return {"bins": filled.tolist(), "counts": self.counts[filled].tolist()}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """Go on where `state` was taken."""
        found = cls()
        found.counts[np.asarray(state["bins"], int)] = state["counts"]
        return found
