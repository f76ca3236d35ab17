"""What the machine's meters saw while a target worked, made into the energy of one task."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from jettison import registry
from jettison.cost.cpu_time import TICKS_PER_S
from jettison.cost.energy import FACTORS, Energy
from jettison.cost.meter_nvml import NvmlMeter
from jettison.cost.meter_rapl import POWERCAP, RaplMeter
from jettison.cost.meters import EnergyMeter
from jettison.errors import InvalidInput, MissingExtra, Unsupported

LEAST_WINDOW_S = 5.0
"""Shorter than this in all, counters that are refreshed ten times a second say little."""
OWN_SHARE = 0.9
"""A target with less of the machine's busy CPU time than this has the counter shared by CPU time."""


@dataclass
class Spent:
    """Sums over the blocks of one target."""

    energy_j: dict[str, float] | None = None
    """Meter → joules; None where no meter was read, or one was lost."""
    wall_s: float = 0.0
    busy_s: float = 0.0
    """CPU-seconds of the whole machine."""
    own_s: float = 0.0
    """CPU-seconds of the target and of whoever asked it."""
    n_tasks: int = 0
    is_lost: bool = False


class Board:
    """The meters of one run."""

    def __init__(self, meters: Sequence[EnergyMeter], *, stat: Path = Path("/proc/stat")) -> None:
        self.meters = tuple(meters)
        self._stat = stat

    @contextmanager
    def over(self, spent: Spent) -> Iterator[None]:
        """Add what the meters see in a block to a target's sums; the caller adds its tasks and own time."""
        busy_from, started = _busy_cpu_s(self._stat), time.perf_counter()
        for meter in self.meters:
            meter.__enter__()
        try:
            yield
        finally:
            found = {}
            for meter in self.meters:
                meter.__exit__(None, None, None)
                found[meter.source] = meter.cost.energy_j
            spent.wall_s += time.perf_counter() - started
            spent.busy_s += _busy_cpu_s(self._stat) - busy_from
            if self.meters:
                self._add(spent, found)

    def _add(self, spent: Spent, found: dict[str, float | None]) -> None:
        spent.is_lost = spent.is_lost or None in found.values()
        sums = spent.energy_j or {}
        known = {name: sums.get(name, 0.0) + (joules or 0.0) for name, joules in found.items()}
        spent.energy_j = None if spent.is_lost else known

    def energies(
        self, spent: Spent, estimate: Callable[[], Energy | None], *, is_shared: bool
    ) -> tuple[Energy, ...]:
        """Energy of one task: measured and estimated apart, the measured first; empty where none is known.

        Args:
            spent: Sums over the target's blocks.
            estimate: Makes the estimate from CPU-seconds; called only where no meter sees the processor.
            is_shared: Whether the processor's counter is to be shared by CPU time.
        """
        measured = self._measured(spent, is_shared=is_shared)
        if measured is not None and self.sees_chip:
            return (measured,)
        guessed = estimate()
        return tuple(energy for energy in (measured, guessed) if energy is not None)

    @property
    def sees_chip(self) -> bool:
        """Whether the processor's own energy is measured, not the accelerators' alone."""
        return any(not isinstance(meter, NvmlMeter) for meter in self.meters)

    def _measured(self, spent: Spent, *, is_shared: bool) -> Energy | None:
        if not spent.energy_j or not spent.n_tasks:
            return None
        total_j, tiers = 0.0, []
        for meter in self.meters:
            share = 1.0
            if is_shared and isinstance(meter, RaplMeter):
                share = min(1.0, spent.own_s / spent.busy_s) if spent.busy_s > 0 else 1.0
            tiers.append("M3" if share < 1 else meter.tier)
            total_j += share * spent.energy_j[meter.source]
        tier = max(tiers)
        words = "; ".join(meter.source for meter in self.meters)
        if "M3" in tiers:
            words += f"; shared by CPU time, as other work had {1 - spent.own_s / spent.busy_s:.0%} of it"
        return Energy(
            energy_j=total_j / spent.n_tasks,
            tier=tier,
            factor=FACTORS[tier],
            boundary=" + ".join(meter.boundary for meter in self.meters),
            source=words,
        )


def is_shared(everyone: Sequence[Spent]) -> bool:
    """Whether other work was busy beside any target: then all are shared alike, so that they compare."""
    return any(spent.busy_s > 0 and spent.own_s < OWN_SHARE * spent.busy_s for spent in everyone)


def short_words(spent: Spent) -> tuple[str, ...]:
    """Say so when the windows were too short for the counters."""
    if spent.energy_j is None or spent.wall_s >= LEAST_WINDOW_S:
        return ()
    return (
        f"energy was metered over {spent.wall_s:.1f} s in all; counters want {LEAST_WINDOW_S:g} s or more.",
    )


def open_board(meter: str = "auto", *, powercap: Path = POWERCAP) -> Board:
    """The meters of this machine.

    Args:
        meter: `auto` takes RAPL where it is readable and NVML's boards that are in use; `none` takes none;
            else the name of a plugin of `jettison.meters` that measures energy: `rapl`, `nvml`, `zeus`.
        powercap: Where RAPL's counters stand.

    Raises:
        InvalidInput: The plugin measures no energy.
        UnknownName: There is none of that name.
        MissingExtra: It needs a library that is not installed.
        Unsupported: It was asked for by name and cannot measure here.
    """
    if meter == "none":
        return Board(())
    if meter != "auto":
        opened = registry.load("meters", meter)()
        if not isinstance(opened, EnergyMeter):
            raise InvalidInput(
                f"the meter must be one of energy, such as rapl, nvml or zeus, got {meter!r}."
            )
        return Board((opened,))
    found: list[EnergyMeter] = []
    for make in (lambda: RaplMeter(powercap), lambda: NvmlMeter(only_used=True)):
        try:
            found.append(make())
        except (Unsupported, MissingExtra):
            continue
    return Board(found)


def _busy_cpu_s(stat: Path) -> float:
    """CPU-seconds in which any processor was not idle; 0 where the system does not tell."""
    try:
        fields = [int(part) for part in stat.read_text().partition("\n")[0].split()[1:8]]
    except (OSError, ValueError):
        return 0.0
    user, nice, system, _, _, interrupts, soft_interrupts = fields
    return (user + nice + system + interrupts + soft_interrupts) / TICKS_PER_S
