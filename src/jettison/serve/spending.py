"""What answers given here take of CPU time, and the estimate of energy that rests on it."""

import os
import time
from collections.abc import Callable, Sequence

from jettison.backends.device import is_on_gpu
from jettison.cost.cpu_time import cpu_time_s, living_children
from jettison.cost.energy import estimate_energy
from jettison.serve.engine_child import WireAnswer


class Spending:
    """Puts on the answers of one call what it took, shared equally.

    Args:
        threads: That the model holds, for the estimate.
        cpu_s: Clock of CPU-seconds; None takes this process's, its children's too where it has some.
    """

    def __init__(self, threads: int = 1, *, cpu_s: Callable[[], float] | None = None) -> None:
        # Asking for children takes as long as a small model does: only where a runtime has started some.
        self._cpu_s = cpu_s or (cpu_time_s if living_children(os.getpid()) else time.process_time)
        # The estimate is linear in both; of an accelerator CPU-seconds say nothing.
        self._per_cpu_s = None if is_on_gpu() else estimate_energy(1.0, 0.0, threads=threads)
        self._per_held_s = estimate_energy(0.0, 1.0, threads=threads).energy_j

    def begin(self) -> tuple[float, float]:
        """CPU and wall seconds before a call."""
        return self._cpu_s(), time.perf_counter()

    def end(self, begun: tuple[float, float], answers: Sequence[WireAnswer]) -> None:
        """Write on each answer its part; answers are changed in place."""
        n = len(answers)
        if not n:
            return
        cpu_s, held_s = (self._cpu_s() - begun[0]) / n, (time.perf_counter() - begun[1]) / n
        energy = self._per_cpu_s
        for answer in answers:
            answer.cpu_s = cpu_s
            if energy is not None:
                answer.energy_j = energy.energy_j * cpu_s + self._per_held_s * held_s
                answer.energy_tier = energy.tier
