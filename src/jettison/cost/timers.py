"""How late this machine's timers are: below a few times that, no latency can be claimed."""

import time
from functools import cache

import msgspec
import numpy as np

CLAIM_ABOVE = 5.0
"""Latencies under so many measurement floors are marked."""


class TimerFloor(msgspec.Struct, frozen=True, kw_only=True):
    """How much later than asked a sleeping thread wakes."""

    late_p50_s: float
    late_p99_s: float
    resolution_s: float
    """Smallest step of the clock that was seen."""


@cache
def measure_timers(*, n: int = 200, sleep_s: float = 0.001) -> TimerFloor:
    """Sleep some short times and see how late each ends; takes a quarter of a second."""
    late = []
    for _ in range(n):
        due = time.perf_counter() + sleep_s
        time.sleep(sleep_s)
        late.append(time.perf_counter() - due)
    ticks = [time.perf_counter() for _ in range(1000)]
    steps = np.diff(ticks)
    return TimerFloor(
        late_p50_s=float(np.quantile(late, 0.5)),
        late_p99_s=float(np.quantile(late, 0.99)),
        resolution_s=float(steps[steps > 0].min()) if (steps > 0).any() else 0.0,
    )
