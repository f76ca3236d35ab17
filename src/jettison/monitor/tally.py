"""What a part of the traffic log adds up to, by day, arm and role: counts that may be added in any order.

Amounts are summed as whole numbers of 1e-12 of their unit, so that the same records give the same sums
to the last digit however they are cut and in whatever order they come.
"""

from collections import Counter
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from jettison.release.sketch import SCORE_EDGES
from jettison.stats.log_histogram import LogHistogram

AMOUNTS = ("cpu_s", "energy_j", "price_usd", "prompt_tokens", "completion_tokens", "wire_bytes")
"""Fields of `Cost` that are added up."""
PICO = 10**12
SCORES = ("confidence", "in_scope", "tokens", "length")
"""Whose distributions are counted, in the bins of the release's sketch."""
OTHER = "any other"
"""Outputs that are none of the labels, counted together."""
FLAGS = ("errors", "unanswered", "escalated", "guarded")


class Cell(NamedTuple):
    """What a tally counts apart."""

    day: int | None
    """Days since 1970-01-01, UTC; None where a record has no time."""
    arm: str
    """`` where there is none."""
    role: str
    is_lean: bool
    """An answer of the release itself, not of its fallback."""


@dataclass(kw_only=True)
class Counts:
    """Of one cell."""

    n: int = 0
    flags: Counter[str] = field(default_factory=Counter)
    """`FLAGS` → how often."""
    n_known: Counter[str] = field(default_factory=Counter)
    """`AMOUNTS` → records that bring it."""
    pico: Counter[str] = field(default_factory=Counter)
    """`AMOUNTS` → sum, in 1e-12 of its unit."""
    tiers: set[str] = field(default_factory=set)
    """How the energy is known."""
    scores: dict[str, np.ndarray] = field(default_factory=dict)
    """`SCORES` → answers by bin of `SCORE_EDGES`; without errors."""
    labels: Counter[str] = field(default_factory=Counter)
    latency: LogHistogram = field(default_factory=LogHistogram)
    """Of what was answered."""

    def add(self, other: "Counts") -> None:
        """Take another's counts in."""
        self.n += other.n
        for name in ("flags", "n_known", "pico", "labels"):
            getattr(self, name).update(getattr(other, name))
        self.tiers |= other.tiers
        for name, counts in other.scores.items():
            self.scores[name] = self.scores[name] + counts if name in self.scores else counts.copy()
        self.latency.counts += other.latency.counts

    def amount(self, name: str) -> float | None:
        """Sum of one of `AMOUNTS` over the records that bring it; None where none does."""
        return self.pico[name] / PICO if self.n_known[name] else None


class Tally:
    """Counts by cell; `add` joins two."""

    def __init__(self) -> None:
        self.cells: dict[Cell, Counts] = {}

    def at(self, cell: Cell) -> Counts:
        """The counts of a cell, made if need be."""
        return self.cells.setdefault(cell, Counts())

    def add(self, other: "Tally") -> None:
        """Take in what another part of the log adds up to."""
        for cell, counts in other.cells.items():
            self.at(cell).add(counts)

    def days(self) -> list[int]:
        """All days, the first one first."""
        return sorted({cell.day for cell in self.cells if cell.day is not None})

    def arms(self) -> list[str]:
        """All arms, by name."""
        return sorted({cell.arm for cell in self.cells})


def edges_of(score: str) -> tuple[float, ...]:
    """Upper edges of a score's bins."""
    return SCORE_EDGES[score]
