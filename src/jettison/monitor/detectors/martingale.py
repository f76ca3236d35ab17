"""The conformal test martingale as a detector: may be looked at any time, alpha holds over all looks."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np

from jettison.monitor.detectors.detector import Reading, checked_bins, checked_reference
from jettison.stats.conformal_martingale import ConformalMartingale


class Martingale:
    """`conformal_martingale`: bets that scores rank among the reference as they used to."""

    is_heuristic: ClassVar[bool] = False
    any_time: ClassVar[bool] = True

    def __init__(
        self, reference: Sequence[int] | np.ndarray, *, alpha: float = 0.01, seed: int = 0
    ) -> None:
        self._bets = ConformalMartingale(checked_reference(reference, alpha), alpha=alpha, seed=seed)
        self._n_bins = len(reference)

    def update(self, scores: Sequence[int] | np.ndarray) -> None:
        self._bets.update(checked_bins(scores, self._n_bins))

    @property
    def alarm(self) -> bool:
        return self._bets.alarm

    def reading(self) -> Reading:
        bets = self._bets
        side = {None: "", True: ", toward small values", False: ", toward large values"}[bets.is_low]
        said = f"capital e^{bets.most_log_e:.1f} of e^{bets.limit:.1f} needed, after {bets.n:,}{side}"
        return Reading(
            alarm=bets.alarm,
            n=bets.n,
            statistic=bets.most_log_e if bets.n else None,
            limit=bets.limit,
            p_value=None,
            reason=said,
        )

    def state(self) -> dict[str, Any]:
        return self._bets.state()

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """Go on where `state` was taken."""
        found = cls(np.maximum(1, np.asarray(state["counts"])), alpha=state["alpha"])
        found._bets = ConformalMartingale.from_state(state)
        return found
