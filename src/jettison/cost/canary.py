"""A fixed piece of work run between blocks: when it gets slower, so did the machine, not the model."""

import time
from collections.abc import Sequence

import numpy as np

from jettison.cost.ratio import median_interval

MOST_DRIFT = 0.03
_LOOPS = 20_000


def run_canary(*, repeats: int = 5) -> float:
    """CPU-seconds of a fixed kernel, the least of a few runs; about 2 ms each."""
    return min(_kernel_s() for _ in range(repeats))


def canary_drift(times_s: Sequence[float]) -> float | None:
    """How far the second half of the run was from the first, as max(ratio, 1/ratio) - 1.

    None with fewer than 8 readings, or where their spread covers no drift at all.
    """
    if len(times_s) < 8:
        return None
    half = len(times_s) // 2
    early, late = np.asarray(times_s[:half]), np.asarray(times_s[-half:])
    # Paired by position, so that the interval is one of a ratio of equals.
    found = median_interval((late / early).tolist())
    if found is None or found.low <= 1.0 <= found.high:
        return None
    return max(found.value, 1 / found.value) - 1


def _kernel_s() -> float:
    started = time.thread_time()
    total = 0
    for number in range(_LOOPS):
        total += number * number
    assert total
    return time.thread_time() - started
