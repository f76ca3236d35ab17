"""CPU-seconds per task against getrusage: a task that starts processes, and one whose workers live on."""

import os
import resource
import subprocess
import sys
from collections.abc import Sequence

import pytest

from jettison.cost.cpu_time import children_time_s, cpu_time_s, living_children
from jettison.cost.play_local import play_local
from jettison.cost.worker import Worker
from jettison.model import Output

BURN = (
    "import resource, sys, time\n"
    "def burn(s):\n"
    "    until = time.process_time() + s\n"
    "    while time.process_time() < until: sum(range(1000))\n"
    "def told():\n"
    "    r = resource.getrusage(resource.RUSAGE_SELF)\n"
    "    print(r.ru_utime + r.ru_stime, flush=True)\n"
)


def own_s() -> float:
    found = resource.getrusage(resource.RUSAGE_SELF)
    return found.ru_utime + found.ru_stime


class Starting:
    """Each task is a process of its own, of half a CPU-second."""

    def __init__(self) -> None:
        self.told_s = 0.0

    def predict(self, inputs: Sequence[str]) -> list[Output]:
        done = subprocess.run(
            [sys.executable, "-c", BURN + "burn(0.5); told()"], capture_output=True, text=True, check=True
        )
        self.told_s += float(done.stdout)
        return [Output(label="a", confidence=1.0) for _ in inputs]


class Pooled:
    """Each task goes to a worker that was there before and stays."""

    def __init__(self, worker: "subprocess.Popen[str]") -> None:
        self._worker = worker
        self.told_s = 0.0

    def ask(self, line: str) -> float:
        assert self._worker.stdin is not None
        assert self._worker.stdout is not None
        self._worker.stdin.write(line + "\n")
        self._worker.stdin.flush()
        return float(self._worker.stdout.readline())

    def predict(self, inputs: Sequence[str]) -> list[Output]:
        before_s = self.ask("0")
        self.told_s += self.ask("0.25") - before_s
        return [Output(label="a", confidence=1.0) for _ in inputs]


def measured_s(model: "Starting | Pooled", n: int) -> "tuple[float, float]":
    """What the worker says of `n` tasks, and what getrusage says of all processes that took part."""
    worker = Worker()
    worker._model, worker._inputs = model, ["one"]
    from_s = own_s()
    found = worker.block([0] * n, repeats=1)
    return found["cpu_s"], own_s() - from_s + model.told_s


@pytest.mark.slow
def test_children_that_live_half_a_second_are_counted_to_two_percent() -> None:
    told_s, truth_s = measured_s(Starting(), 3)
    assert truth_s > 1.5
    assert told_s == pytest.approx(truth_s, rel=0.02)


@pytest.mark.slow
def test_children_under_load_are_counted_to_two_percent() -> None:
    model = Starting()
    from_s = own_s()
    calls = play_local(model.predict, ["one"], [0, 0], [0.0, 0.1], children_time_s=children_time_s)
    assert calls.cpu_s == pytest.approx(own_s() - from_s + model.told_s, rel=0.02)


@pytest.mark.slow
def test_workers_that_live_on_are_counted_to_two_percent() -> None:
    command = [sys.executable, "-c", BURN + "for line in sys.stdin:\n    burn(float(line)); told()"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as worker:
        assert worker.pid in living_children(os.getpid())
        told_s, truth_s = measured_s(Pooled(worker), 4)
        assert truth_s > 1.0
        assert told_s == pytest.approx(truth_s, rel=0.02)
        assert worker.stdin is not None
        worker.stdin.close()


def test_without_children_it_is_what_getrusage_says() -> None:
    before = own_s() - cpu_time_s()
    sum(range(2_000_000))
    assert own_s() - cpu_time_s() == pytest.approx(before, abs=0.005)
