"""Counts of live traffic by time and arm, in bounded memory: what the overview is made of.

Minutes are kept for three hours and hours for two weeks. Everything comes from the log's records alone.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

from jettison.record import Record

ARMS = 8
"""Arms told apart; further ones are counted together as `other`."""
NO_ARM = "no arm"
"""What is told of a route with one model, and of failures before any was asked."""
_RATIO = math.log(1.05)


@dataclass
class ArmCount:
    """What one arm answered in one stretch of time."""

    n: int = 0
    n_errors: int = 0
    n_escalated: int = 0
    usd: float = 0.0
    n_priced: int = 0
    joules: float = 0.0
    n_metered: int = 0
    latencies: dict[int, int] = field(default_factory=dict)
    """Bin of the logarithm → answers; bins are 5 % wide."""

    def take(self, record: Record) -> None:
        """Count one answer."""
        cost = record.cost
        self.n += 1
        self.n_errors += record.error is not None
        self.n_escalated += record.escalated
        if cost.price_usd is not None:
            self.usd, self.n_priced = self.usd + cost.price_usd, self.n_priced + 1
        if cost.energy_j is not None:
            self.joules, self.n_metered = self.joules + cost.energy_j, self.n_metered + 1
        if cost.latency_s is not None and record.error is None:
            at = math.floor(math.log(max(cost.latency_s, 1e-6)) / _RATIO)
            self.latencies[at] = self.latencies.get(at, 0) + 1

    def add(self, other: "ArmCount") -> None:
        """Count in what another one counted."""
        for name in ("n", "n_errors", "n_escalated", "usd", "n_priced", "joules", "n_metered"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for at, n in other.latencies.items():
            self.latencies[at] = self.latencies.get(at, 0) + n

    def latency_s(self, quantile: float) -> float | None:
        """A quantile, within 2.5 %; None where nothing was timed."""
        wanted, seen = quantile * sum(self.latencies.values()), 0
        for at, n in sorted(self.latencies.items()):
            seen += n
            if seen >= wanted:
                return math.exp((at + 0.5) * _RATIO)
        return None

    @property
    def usd_each(self) -> float | None:
        """Known price by answer: at least so much where `n_priced` is under `n`; None: none is known."""
        return self.usd / self.n if self.n_priced else None

    @property
    def joules_each(self) -> float | None:
        """Mean energy of those whose energy was measured."""
        return self.joules / self.n_metered if self.n_metered else None

    @property
    def error_share(self) -> float | None:
        """Of the answers."""
        return self.n_errors / self.n if self.n else None

    @property
    def escalated_share(self) -> float | None:
        """Of the answers."""
        return self.n_escalated / self.n if self.n else None


@dataclass
class Stretch:
    """One minute or hour."""

    arms: dict[str, ArmCount] = field(default_factory=dict)
    usd_all: float = 0.0
    """Of all calls, shadows and audits included, as far as their price is known."""
    n_priced: int = 0

    @property
    def whole(self) -> ArmCount:
        """All arms together."""
        found = ArmCount()
        for one in self.arms.values():
            found.add(one)
        return found

    @property
    def usd_each(self) -> float | None:
        """Price of everything that was asked, by answered request."""
        n = sum(one.n for one in self.arms.values())
        return self.usd_all / n if n and self.n_priced else None


class Tally:
    """All stretches of one width, the newest `kept` of them."""

    def __init__(self, width_s: float, kept: int) -> None:
        self.width_s, self.kept = width_s, kept
        self.stretches: dict[int, Stretch] = {}
        self._arms: set[str] = set()

    def take(self, records: Iterable[Record]) -> None:
        """Count records; those without a time or older than what is kept are left out."""
        for record in records:
            if record.time is None:
                continue
            at = int(record.time // self.width_s)
            stretch = self.stretches.get(at)
            if stretch is None:
                stretch = self._begin(at)
                if stretch is None:
                    continue
            if record.cost.price_usd is not None:
                stretch.usd_all += record.cost.price_usd
                stretch.n_priced += 1
            if record.role in (None, "answer"):
                stretch.arms.setdefault(self._arm(record), ArmCount()).take(record)

    def _begin(self, at: int) -> Stretch | None:
        if self.stretches and at <= max(self.stretches) - self.kept:
            return None
        stretch = self.stretches[at] = Stretch()
        for old in [one for one in self.stretches if one <= at - self.kept]:
            del self.stretches[old]
        return stretch

    def _arm(self, record: Record) -> str:
        name = record.arm or NO_ARM
        if name not in self._arms:
            if len(self._arms) >= ARMS:
                return "other"
            self._arms.add(name)
        return name

    @property
    def arms(self) -> list[str]:
        """All that are in it, the busiest first."""
        whole = self.whole().arms
        return sorted(whole, key=lambda name: (-whole[name].n, name))

    def whole(self) -> Stretch:
        """Everything that is kept as one stretch."""
        found = Stretch()
        for one in self.stretches.values():
            found.usd_all += one.usd_all
            found.n_priced += one.n_priced
            for name, count in one.arms.items():
                found.arms.setdefault(name, ArmCount()).add(count)
        return found
