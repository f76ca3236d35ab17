"""What each example's answer took: seconds by the clock, joules by a meter or else as an estimate.

Answers are given in batches: what the batch took is shared among them, and `Cost.n_together` says among
how many. Memory is a process's and not an example's, so `peak_bytes` stays None, and so does the money of
a machine here, which hangs on how busy it is kept: both are measured by `jettison cost`.
"""

from collections.abc import Sequence

import msgspec

from jettison.backends.ask import ask
from jettison.backends.device import is_on_gpu
from jettison.backends.remote import is_remote
from jettison.backends.shares import shared
from jettison.candidate import Candidate
from jettison.cost.cpu_time import cpu_time_s
from jettison.cost.energy import Energy, estimate_energy
from jettison.cost.joules import Board, Spent, is_shared, open_board
from jettison.cost.meters import WallMeter
from jettison.cost.shared_cpu import SharedCpuClock
from jettison.model import Model, Output
from jettison.record import Cost
from jettison.task import Input


class ExampleCosts:
    """Asks one open model and puts on each answer what it took. Make it once the model is open.

    Args:
        candidate: What is asked.
        is_alone: False where copies of the candidate in this process answer at the same time, and this
            thread only takes their answers: what they take together is then parted among the batches
            under way, and a meter's joules, which cannot be parted so, stay None.
    """

    def __init__(self, candidate: Candidate, *, is_alone: bool = True) -> None:
        self._together = None if is_alone else SharedCpuClock()
        # Of what runs elsewhere its backend knows the time and the price, and nobody here the rest.
        self._is_elsewhere = is_remote(candidate)
        self._board = Board(()) if self._is_elsewhere else open_board("auto")
        threads = int(candidate.settings.get("threads") or 1)
        # The estimate is linear: two coefficients spare reading the processor's name for every answer.
        self._per_cpu_s = estimate_energy(1.0, 0.0, threads=threads)
        self._per_held_s = estimate_energy(0.0, 1.0, threads=threads)

    def ask(self, model: Model, inputs: Sequence[Input]) -> list[Output]:
        """One output per input, as `jettison.backends.ask.ask` gives them, with their costs."""
        if self._is_elsewhere:
            return ask(model, inputs)
        if self._together is not None:
            with self._together.part() as part, WallMeter() as wall:
                outputs = ask(model, inputs)
            timed = _cpu_parted(shared(outputs, wall.cost), part.cpu_s)
            return timed if self._board.meters else self._with_energy(timed, Spent(n_tasks=len(inputs)))
        spent = Spent(n_tasks=len(inputs))
        cpu_from = cpu_time_s()
        with self._board.over(spent), WallMeter() as wall:
            outputs = ask(model, inputs)
        spent.own_s = cpu_time_s() - cpu_from
        timed = shared(outputs, msgspec.structs.replace(wall.cost, cpu_s=spent.own_s))
        return self._with_energy(timed, spent)

    def _with_energy(self, outputs: list[Output], spent: Spent) -> list[Output]:
        costs = [output.cost or Cost() for output in outputs]
        measured = self._board.energies(spent, lambda: None, is_shared=is_shared([spent]))
        if measured:
            known = _parted(measured[0], costs)
        elif is_on_gpu():
            # CPU-seconds say nothing of an accelerator.
            known = costs
        else:
            known = [self._estimated(cost) for cost in costs]
        return [msgspec.structs.replace(o, cost=cost) for o, cost in zip(outputs, known, strict=True)]

    def _estimated(self, cost: Cost) -> Cost:
        if cost.cpu_s is None or cost.latency_s is None:
            return cost
        energy = self._per_cpu_s.energy_j * cost.cpu_s + self._per_held_s.energy_j * cost.latency_s
        return msgspec.structs.replace(cost, energy_j=energy, energy_tier=self._per_cpu_s.tier)


def _cpu_parted(outputs: Sequence[Output], cpu_s: float) -> list[Output]:
    """CPU-seconds of a batch, by the seconds of each answer.

    A cascade times its arms by the process's clock, which counts the neighbours too: that is not kept.
    """
    costs = [output.cost or Cost() for output in outputs]
    total_s = sum(cost.latency_s or 0.0 for cost in costs)
    parts = [(cost.latency_s or 0.0) / total_s if total_s > 0 else 1 / len(costs) for cost in costs]
    return [
        msgspec.structs.replace(output, cost=msgspec.structs.replace(cost, cpu_s=part * cpu_s))
        for output, cost, part in zip(outputs, costs, parts, strict=True)
    ]


def _parted(energy: Energy, costs: Sequence[Cost]) -> list[Cost]:
    """Joules of a batch, by the seconds of each answer."""
    seconds = [cost.latency_s or 0.0 for cost in costs]
    mean_s = sum(seconds) / len(seconds)
    return [
        msgspec.structs.replace(
            cost,
            energy_j=energy.energy_j * (own_s / mean_s if mean_s > 0 else 1.0),
            energy_tier=energy.tier,
        )
        for cost, own_s in zip(costs, seconds, strict=True)
    ]
