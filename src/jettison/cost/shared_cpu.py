"""CPU-seconds of calls that overlap in one process: shared among those under way, adding up to the whole.

Threads of a runtime cannot be told to belong to one of several models in a process, but copies of one
candidate work alike: what the process takes while k calls are under way is each one's to 1/k.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from jettison.cost.cpu_time import children_time_s, cpu_time_s

# Reading three clocks takes a few µs: more than this and somebody else ran in between.
_TOGETHER_S = 50e-6
_TRIES = 16


@dataclass
class Part:
    """One call's part; whole once the call has ended."""

    cpu_s: float = 0.0


class SharedCpuClock:
    """Parts the CPU time of this process, all threads and children, among calls under way.

    Args:
        spent_s: Clock of what is parted; None takes this process's, less the CPU time of the thread that
            makes this object, which takes the answers and asks nothing.
    """

    def __init__(self, spent_s: Callable[[], float] | None = None) -> None:
        self._spent_s = spent_s or _without_this_thread()
        self._lock = threading.Lock()
        self._under_way: list[Part] = []
        self._last_s = self._spent_s()

    @contextmanager
    def part(self) -> Iterator[Part]:
        """Over one call."""
        own = Part()
        with self._lock:
            self._advance()
            self._under_way.append(own)
        try:
            yield own
        finally:
            with self._lock:
                self._advance()
                # By identity: two parts of the same seconds are equal.
                self._under_way = [one for one in self._under_way if one is not own]

    def _advance(self) -> None:
        # Never back: what a reading that fell had counted would be counted a second time.
        now_s = max(self._last_s, self._spent_s())
        each_s = (now_s - self._last_s) / max(1, len(self._under_way))
        self._last_s = now_s
        for one in self._under_way:
            one.cpu_s += each_s


def less_own(whole_s: Callable[[], float], own_s: Callable[[], float]) -> float:
    """Seconds of `whole_s` that are not `own_s`'s, the clock of a part of it, running while they are read.

    Whoever reads one clock after the other may be put off in between: `own_s` is read before and after
    `whole_s`, and again until it stood nearly still. What it moved meanwhile is taken off, so that the
    answer is never too much, and what it lacks is in the next one.
    """
    tightest_s = found_s = float("inf")
    before_s = own_s()
    for _ in range(_TRIES):
        now_s, after_s = whole_s(), own_s()
        if after_s - before_s < tightest_s:
            tightest_s, found_s = after_s - before_s, now_s - after_s
        if tightest_s <= _TOGETHER_S:
            break
        before_s = after_s
    return found_s


def _without_this_thread() -> Callable[[], float]:
    if not hasattr(time, "pthread_getcpuclockid"):
        return cpu_time_s
    clock = time.pthread_getcpuclockid(threading.get_ident())
    # Children apart: looking for them reads files, and in that time the thread works on.
    return lambda: less_own(time.process_time, lambda: time.clock_gettime(clock)) + children_time_s()
