"""Page-Hinkley: a cumulative sum of what lies above the reference's mean. A heuristic, quick and simple."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np

from jettison.monitor.detectors.detector import Reading, checked_bins, checked_reference

SLACK = 0.1
"""In standard deviations: smaller shifts than twice this are let pass."""


class PageHinkley:
    """`page_hinkley`: sums of deviations from the reference's mean, both ways, each against a limit.

    The limit is log(2/alpha) / (2 slack) standard deviations, at which a random walk with that drift
    and normal steps ends up with probability alpha from any one start; it begins anew all the
    time, so that false alarms come again and again on a long stream. A heuristic: nothing is promised.

    Source:
        Page 1954; Siegmund 1985, for the limit.
    """

    is_heuristic: ClassVar[bool] = True
    any_time: ClassVar[bool] = False

    def __init__(
        self, reference: Sequence[int] | np.ndarray, *, alpha: float = 0.01, seed: int = 0
    ) -> None:
        del seed
        self._counts = checked_reference(reference, alpha)
        self.alpha = alpha
        bins = np.arange(len(self._counts))
        self._mean = float(self._counts @ bins / self._counts.sum())
        spread = float(np.sqrt(self._counts @ (bins - self._mean) ** 2 / self._counts.sum()))
        self._scale = max(spread, 1e-9)
        self._up, self._down, self._most, self._n = 0.0, 0.0, 0.0, 0

    @property
    def _limit(self) -> float:
        return float(np.log(2 / self.alpha) / (2 * SLACK))

    def update(self, scores: Sequence[int] | np.ndarray) -> None:
        for z in ((checked_bins(scores, len(self._counts)) - self._mean) / self._scale).tolist():
            self._up = max(0.0, self._up + z - SLACK)
            self._down = max(0.0, self._down - z - SLACK)
            self._most = max(self._most, self._up, self._down)
            self._n += 1

    @property
    def alarm(self) -> bool:
        return self._most >= self._limit

    def reading(self) -> Reading:
        return Reading(
            alarm=self.alarm,
            n=self._n,
            statistic=self._most if self._n else None,
            limit=self._limit,
            p_value=None,
            reason=f"sum {self._most:.1f} of {self._limit:.1f} after {self._n:,} (a heuristic)",
        )

    def state(self) -> dict[str, Any]:
        sums = [self._up, self._down, self._most, self._n]
        return {"reference": self._counts.tolist(), "alpha": self.alpha, "sums": sums}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """Go on where `state` was taken."""
        found = cls(state["reference"], alpha=state["alpha"])
        found._up, found._down, found._most, found._n = state["sums"]
        return found
