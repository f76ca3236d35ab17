"""Memory of this process and its children, phase by phase: peaks exact per process, read at a phase's end.

Nothing is sampled while a phase runs, so the measured work is not disturbed: the kernel keeps each
process's peak (VmHWM), which is started over for the next phase.
"""

import os
import resource
from pathlib import Path

import msgspec

from jettison.cost.meters import peak_resident_bytes, reset_peak

PROC = Path("/proc")


class MemoryUse(msgspec.Struct, frozen=True, kw_only=True):
    """Memory of a process with its children over one phase. None where the system does not tell."""

    peak_bytes: int | None
    """Own peak plus the peak of every child: an upper bound where there are children, since their
    peaks need not fall together and pages they share are counted for each."""
    pss_bytes: int | None = None
    """Held at the end of the phase, shared pages divided by those who share them."""
    uss_bytes: int | None = None
    """Held at the end of the phase by these processes alone."""
    n_children: int = 0
    """Living at the end of the phase."""


class PhaseWatch:
    """Reads the memory of one phase after another."""

    def __init__(self, proc: Path = PROC) -> None:
        self._proc = proc
        self._is_first = True
        self._is_reset = False
        self._ended_bytes = _largest_ended_child()

    def end_phase(self) -> MemoryUse:
        """Memory of the phase that ends here; the next begins.

        A peak that could not be started over would be that of an earlier phase: it is None then.
        """
        known = self._is_first or self._is_reset
        family = [str(os.getpid()), *descendants(os.getpid(), self._proc)]
        peaks = [peak_resident_bytes(self._proc / pid / "status") for pid in family]
        # A child that has ended left its peak with its parent: only that of the largest, and for good.
        ended = _largest_ended_child()
        living = sum(peak for peak in peaks if peak is not None)
        use = MemoryUse(
            peak_bytes=living + (ended if ended > self._ended_bytes else 0)
            if known and peaks[0] is not None
            else None,
            pss_bytes=_rollup(family, "Pss", self._proc),
            uss_bytes=_rollup(family, "Private_", self._proc),
            n_children=len(family) - 1,
        )
        self._ended_bytes, self._is_first = ended, False
        resets = [reset_peak(self._proc / pid / "clear_refs") for pid in family]
        self._is_reset = all(resets)
        return use


def descendants(pid: int, proc: Path = PROC) -> list[str]:
    """Ids of all living children and theirs; empty where the system does not tell."""
    found: list[str] = []
    waiting = [str(pid)]
    while waiting:
        children: set[str] = set()
        for task in (proc / waiting.pop() / "task").glob("*/children"):
            try:
                children.update(task.read_text().split())
            except OSError:
                continue
        fresh = sorted(children - set(found))
        found += fresh
        waiting += fresh
    return found


def _largest_ended_child() -> int:
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024


def _rollup(family: list[str], name: str, proc: Path) -> int | None:
    """Sum of the lines of `smaps_rollup` that begin so; None if this process's own cannot be read."""
    total = 0
    for index, pid in enumerate(family):
        try:
            lines = (proc / pid / "smaps_rollup").read_text().splitlines()
        except OSError:
            if index == 0:
                return None
            continue
        wanted = f"{name}:" if not name.endswith("_") else name
        total += sum(
            int(line.split()[1])
            for line in lines
            if line.startswith(wanted) and not line.startswith("Private_Hugetlb")
        )
    return total * 1024
