"""Is the traffic split as it was drawn? Tested after every key, on missing answers and per slice too."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from jettison.monitor.observe import Unit
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

    def update(self, units: Sequence[Unit]) -> None:
        """Count keys at their first sight, one after the other."""
        for unit in units:
            names = ["all", *(["missing"] if unit.is_missing else [])]
            names += [f"{column}={value}" for column, value in unit.slices.items()]
            for name in names:
                if name in self._counts or len(self._counts) < MOST_SLICES + 2:
                    self._count(name, unit)

    def _count(self, name: str, unit: Unit) -> None:
        """Multiply by the chance that the counts so far gave this arm, over the one it was drawn with."""
        counts = self._counts.setdefault(name, {}).setdefault(repr(unit.share), [0, 0])
        side = int(unit.is_treatment)
        drawn = unit.share if unit.is_treatment else 1 - unit.share
        expected = (SRM_STRENGTH * drawn + counts[side]) / (SRM_STRENGTH + sum(counts))
        counts[side] += 1
        self._log_e[name] = self._log_e.get(name, 0.0) + math.log(expected / drawn)
        self._most[name] = max(self._most.get(name, 0.0), self._log_e[name])

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
        return {"counts": self._counts, "log_e": self._log_e, "most": self._most}

    @classmethod
    def from_state(cls, alpha: float, state: Mapping[str, Any]) -> "SampleRatio":
        """Go on where `state` was taken."""
        found = cls(alpha)
        found._counts = {n: {s: list(c) for s, c in p.items()} for n, p in state["counts"].items()}
        found._log_e, found._most = dict(state["log_e"]), dict(state["most"])
        return found
