"""Meters: `with meter() as window: ...` then `window.cost`. One a quantity; what it cannot see is None."""

import time
from abc import ABC, abstractmethod
from pathlib import Path
from types import TracebackType
from typing import Self

from jettison.record import Cost

_STATUS = Path("/proc/self/status")
_CLEAR_REFS = Path("/proc/self/clear_refs")


class Meter(ABC):
    """A window over some work. `cost` is there once the block has ended."""

    def __init__(self) -> None:
        self.cost = Cost()

    @abstractmethod
    def _start(self) -> None:
        """Read the clock or counter before the work."""

    @abstractmethod
    def _stop(self) -> Cost:
        """Read it again and say what the work took."""

    def __enter__(self) -> Self:
        self._start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cost = self._stop()


class WallMeter(Meter):
    """Seconds that pass on the wall."""

    def _start(self) -> None:
        self._from_ns = time.perf_counter_ns()

    def _stop(self) -> Cost:
        return Cost(latency_s=(time.perf_counter_ns() - self._from_ns) / 1e9)


class CpuMeter(Meter):
    """CPU-seconds of this process, all its threads."""

    def _start(self) -> None:
        self._from_ns = time.process_time_ns()

    def _stop(self) -> Cost:
        return Cost(cpu_s=(time.process_time_ns() - self._from_ns) / 1e9)


class MemoryMeter(Meter):
    """Most resident memory while the window was open; None where the system will not start over."""

    def _start(self) -> None:
        self._is_reset = reset_peak()

    def _stop(self) -> Cost:
        return Cost(peak_bytes=peak_resident_bytes() if self._is_reset else None)


class EnergyMeter(Meter):
    """Joules of the window, and what they are of. One of your own tells its tier: a wall analyzer is M1."""

    tier: str = "M2"
    boundary: str = ""
    """What is inside: chip, board, server or facility."""
    source: str = ""

    @abstractmethod
    def _read(self) -> None:
        """Remember the counters as the window opens."""

    @abstractmethod
    def _joules(self) -> float | None:
        """Joules since then; None where a counter was lost."""

    def _start(self) -> None:
        self._read()

    def _stop(self) -> Cost:
        energy_j = self._joules()
        return Cost(energy_j=energy_j, energy_tier=None if energy_j is None else self.tier)


class NoMeter(Meter):
    """Measures nothing, and says so: every field is None."""

    def _start(self) -> None:
        """Nothing to read."""

    def _stop(self) -> Cost:
        return Cost()


def peak_resident_bytes(status: Path = _STATUS) -> int | None:
    """Most resident memory this process held (VmHWM), in bytes; None where the system does not tell."""
    try:
        lines = status.read_text().splitlines()
    except OSError:
        return None
    found = [line.split()[1] for line in lines if line.startswith("VmHWM:")]
    return int(found[0]) * 1024 if found else None


def reset_peak(clear_refs: Path = _CLEAR_REFS) -> bool:
    """Start VmHWM over from what is resident now; False where that is not allowed."""
    try:
        clear_refs.write_text("5")
    except OSError:
        return False
    return True
