"""Is the traffic split as it was drawn? Tested after every key, on missing answers and per slice too."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
import numpy as np

from jettison.monitor.observed import Units
from jettison.stats.mixtures import SRM_STRENGTH

MOST_SLICES = 50
"""Slice values that are tested, in the order they were first seen."""


class RatioFinding(msgspec.Struct, frozen=True, kw_only=True):
    """Where the test of the sample ratio stands."""

    is_broken: bool
    worst: str
    """`all`, `missing`, or the slice with the strongest evidence against its ratio."""
    log_e: float
    limit: float
    """Log e-value at which the assignment is called broken."""
    control: int
    treatment: int


class SampleRatio:
    """Counts keys by arm and share; the e-values of the phases of a ramp are multiplied.

    A third of `alpha` goes to all keys, a third to the missing answers, a third to all slices.
    """

    def __init__(self, alpha: float) -> None:
        self.alpha = alpha
        self._counts: dict[str, dict[str, list[int]]] = {}
        self._log_e: dict[str, float] = {}
        self._most: dict[str, float] = {}
        self._slices: list[str] = []

    def update(self, units: Units) -> None:
        """Count keys at their first sight, one after the other; batches may be cut anywhere."""
        every = np.arange(len(units))
        self._count("all", units, every)
        self._count("missing", units, np.flatnonzero(units.is_missing))
        for name, places in self._by_slice(units):
            self._count(name, units, places)

    def _by_slice(self, units: Units) -> Iterator[tuple[str, np.ndarray]]:
        """Places of each slice's keys, ascending; new slices in the order they are first seen."""
        of: dict[str, list[np.ndarray]] = {}
        codes = np.flatnonzero(np.bincount(units.slice_codes, minlength=len(units.slices)))
        first = [int((units.slice_codes == code).argmax()) for code in codes]
        for place in np.argsort(first):
            where = None
            for column, value in units.slices[codes[place]].items():
                name = f"{column}={value}"
                if name not in self._slices:
                    if len(self._slices) >= MOST_SLICES:
                        continue
                    self._slices.append(name)
                if where is None:
                    where = np.flatnonzero(units.slice_codes == codes[place])
                of.setdefault(name, []).append(where)
        for name, parts in of.items():
            yield name, np.sort(np.concatenate(parts)) if len(parts) > 1 else parts[0]

    def _count(self, name: str, units: Units, places: np.ndarray) -> None:
        """Multiply by the chance that the counts so far gave each arm, over the one it was drawn with."""
        if not len(places):
            return
        side, share = units.is_treatment[places], units.share[places]
        drawn = np.where(side, share, 1 - share)
        counts = self._counts.setdefault(name, {})
        same, before = np.zeros(len(places)), np.zeros(len(places))
        is_one = bool((share == share[0]).all())
        for value in share[:1] if is_one else np.unique(share):
            here = np.flatnonzero(share == value)
            so_far = counts.setdefault(repr(float(value)), [0, 0])
            treated = side[here]
            n_treatment = so_far[1] + np.cumsum(treated) - treated
            before[here] = sum(so_far) + np.arange(len(here))
            same[here] = np.where(treated, n_treatment, before[here] - n_treatment)
            so_far[0] += int((~treated).sum())
            so_far[1] += int(treated.sum())
        expected = (SRM_STRENGTH * drawn + same) / (SRM_STRENGTH + before)
        path = np.add.accumulate(np.concatenate([[self._log_e.get(name, 0.0)], np.log(expected / drawn)]))
        self._log_e[name] = float(path[-1])
        self._most[name] = max(self._most.get(name, 0.0), float(path[1:].max()))

    def finding(self) -> RatioFinding:
        """The worst of all tests so far."""
        excess = {name: self._most[name] - self._limit(name) for name in self._most}
        worst = max(excess, key=lambda name: excess[name], default="all")
        counts = self._counts.get("all", {}).values()
        return RatioFinding(
            is_broken=bool(excess) and excess[worst] >= 0,
            worst=worst,
            log_e=self._most.get(worst, 0.0),
            limit=self._limit(worst),
            control=sum(c for c, _ in counts),
            treatment=sum(t for _, t in counts),
        )

    def _limit(self, name: str) -> float:
        parts = 1 if name in ("all", "missing") else MOST_SLICES
        return math.log(3 * parts / self.alpha)

    def state(self) -> dict[str, Any]:
        """Everything it knows."""
        return {
            "counts": self._counts,
            "log_e": self._log_e,
            "most": self._most,
            "slices": list(self._slices),
        }

    @classmethod
    def from_state(cls, alpha: float, state: Mapping[str, Any]) -> "SampleRatio":
        """Go on where `state` was taken."""
        found = cls(alpha)
        found._counts = {n: {s: list(c) for s, c in p.items()} for n, p in state["counts"].items()}
        found._log_e, found._most = dict(state["log_e"]), dict(state["most"])
        found._slices = list(state["slices"])
        return found
