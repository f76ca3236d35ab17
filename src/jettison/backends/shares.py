"""What one call of a model took, shared among the answers that it gave at once."""

import time
from collections.abc import Sequence

import msgspec

from jettison.model import Output
from jettison.record import Cost


class CallClock:
    """Wall and CPU seconds of this process, all threads, since it was made."""

    def __init__(self) -> None:
        self._wall_s, self._cpu_s = time.perf_counter(), time.process_time()

    def spent(self) -> Cost:
        """Until now."""
        return Cost(latency_s=time.perf_counter() - self._wall_s, cpu_s=time.process_time() - self._cpu_s)


def shared(outputs: Sequence[Output], spent: Cost) -> list[Output]:
    """Outputs of one call, each with an equal part of its times, but for those that bring their own.

    Args:
        outputs: All that the call gave.
        spent: Seconds of the whole call, on the wall and of CPU.
    """
    n = len(outputs)
    if not n:
        return []
    times = {
        "latency_s": None if spent.latency_s is None else spent.latency_s / n,
        "cpu_s": None if spent.cpu_s is None else spent.cpu_s / n,
        "n_together": n,
    }
    return [
        output
        if output.cost is not None and output.cost.latency_s is not None
        else msgspec.structs.replace(output, cost=msgspec.structs.replace(output.cost or Cost(), **times))
        for output in outputs
    ]


def one_after_the_other(first: Cost | None, second: Cost | None) -> Cost | None:
    """The second call's cost with the seconds of the first on top; a time that one lacks is not known.

    Joules add up where both have them of one tier, as answers given again from records do.
    """
    if first is None or second is None:
        return second
    same_tier = first.energy_tier == second.energy_tier
    return msgspec.structs.replace(
        second,
        latency_s=_sum(first.latency_s, second.latency_s),
        cpu_s=_sum(first.cpu_s, second.cpu_s),
        energy_j=_sum(first.energy_j, second.energy_j) if same_tier else None,
        energy_tier=second.energy_tier if same_tier else None,
    )


def _sum(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else one + other
