"""Detectors of one look on binned scores: chi-squared and the population stability index."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np
from scipy import stats

from jettison.monitor.detectors.detector import Reading, checked_bins, checked_reference
from jettison.stats.two_samples import CountsDiffer, counts_differ


class ChiSquared:
    """`chi_squared`: are these counts of the reference's distribution? Alpha holds at one look."""

    is_heuristic: ClassVar[bool] = False
    any_time: ClassVar[bool] = False

    def __init__(
        self, reference: Sequence[int] | np.ndarray, *, alpha: float = 0.01, seed: int = 0
    ) -> None:
        del seed
        self._reference = checked_reference(reference, alpha)
        self._counts = np.zeros_like(self._reference)
        self.alpha = alpha

    def update(self, scores: Sequence[int] | np.ndarray) -> None:
        bins = checked_bins(scores, len(self._reference))
        self._counts += np.bincount(bins, minlength=len(self._reference))

    @property
    def alarm(self) -> bool:
        return self.reading().alarm

    def reading(self) -> Reading:
        n = int(self._counts.sum())
        if not n:
            return Reading(
                alarm=False, n=0, statistic=None, limit=None, p_value=None, reason="nothing seen"
            )
        return self._read(counts_differ(self._reference, self._counts), n)

    def _read(self, found: CountsDiffer, n: int) -> Reading:
        return Reading(
            alarm=found.p_value <= self.alpha,
            n=n,
            statistic=found.statistic,
            limit=float(stats.chi2.isf(self.alpha, max(1, found.n_bins - 1))),
            p_value=found.p_value,
            reason=f"{found.distance:.1%} of it moved, p = {found.p_value:.2g}, n = {n:,}",
        )

    def state(self) -> dict[str, Any]:
        return {
            "reference": self._reference.tolist(),
            "alpha": self.alpha,
            "counts": self._counts.tolist(),
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """Go on where `state` was taken."""
        found = cls(state["reference"], alpha=state["alpha"])
        found._counts = np.asarray(state["counts"], np.int64)
        return found


class StabilityIndex(ChiSquared):
    """`psi`: the population stability index against its own null instead of the folklore 0.1 and 0.25.

    Source:
        Yurdakul & Naranjo 2020: about chi-squared with B - 1 degrees, times 1/n + 1/m.
    """

    def _read(self, found: CountsDiffer, n: int) -> Reading:
        scale = 1 / n + 1 / int(self._reference.sum())
        degrees = max(1, found.n_bins - 1)
        limit = float(stats.chi2.isf(self.alpha, degrees)) * scale
        p = float(stats.chi2.sf(found.psi / scale, degrees))
        reason = f"PSI {found.psi:.3f} of {limit:.3f} at n = {n:,}"
        return Reading(
            alarm=found.psi >= limit, n=n, statistic=found.psi, limit=limit, p_value=p, reason=reason
        )
