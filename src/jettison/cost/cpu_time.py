"""CPU-seconds of a process and all that it started, living or ended: the fact under every energy figure.

Only the standard library is imported: the process that is measured counts its imports as loading.
"""

import contextlib
import os
import resource
import time
from pathlib import Path

_PROC = Path("/proc")
TICKS_PER_S = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100


def cpu_time_s() -> float:
    """CPU-seconds of this process, all threads, and of its children and theirs."""
    return time.process_time() + children_time_s()


def children_time_s() -> float:
    """CPU-seconds of this process's children and theirs, ended or still running.

    Children that were waited for are in `getrusage`; of those that live the kernel is asked for each one's
    clock, so that workers of half a second are counted as those of hours are. Takes some 50 µs: for the
    start and the end of a block, not for each task.
    """
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    living = sum(_own_time_s(child) + _waited_for_s(child) for child in living_children(os.getpid()))
    return ended.ru_utime + ended.ru_stime + living


def living_children(pid: int, proc: Path = _PROC) -> list[int]:
    """Processes started by one, and by those, in no order; none where the system does not tell."""
    found: list[int] = []
    waiting = [pid]
    while waiting:
        started = _started_by(waiting.pop(), proc)
        found += started
        waiting += started
    return found


def _started_by(pid: int, proc: Path) -> list[int]:
    """Children of each thread of a process; needs `CONFIG_PROC_CHILDREN`, which distributions set."""
    found: list[int] = []
    with contextlib.suppress(OSError):
        for thread in os.listdir(proc / str(pid) / "task"):
            with contextlib.suppress(OSError):
                found += map(int, (proc / str(pid) / "task" / thread / "children").read_text().split())
    return found


def _own_time_s(pid: int) -> float:
    # The clock of another process's CPU time: see clock_getcpuclockid(3) and the kernel's posix-timers.h.
    with contextlib.suppress(OSError):
        return time.clock_gettime((~pid << 3) | 2)
    return 0.0


def _waited_for_s(pid: int, proc: Path = _PROC) -> float:
    """Of the children that a process has waited for: in ticks, as the kernel tells it of others."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        fields = (proc / str(pid) / "stat").read_text().rpartition(")")[2].split()
        return (int(fields[13]) + int(fields[14])) / TICKS_PER_S
    return 0.0
