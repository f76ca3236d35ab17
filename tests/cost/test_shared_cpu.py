"""CPU time of calls that overlap: parted among those under way, nothing lost and nothing twice."""

import threading
import time
from contextlib import ExitStack

import pytest

from jettison.cost.shared_cpu import SharedCpuClock


def test_what_is_spent_is_parted_among_the_calls_under_way() -> None:
    """3 s alone, 4 s by two (2 each), 1 s of the second alone: 5 and 3; 10 s while none is: nobody's."""
    spent = [0.0]
    clock = SharedCpuClock(lambda: spent[0])
    with ExitStack() as first, ExitStack() as second:
        one = first.enter_context(clock.part())
        spent[0] += 3
        other = second.enter_context(clock.part())
        spent[0] += 4
        first.close()
        spent[0] += 1
        second.close()
    spent[0] += 10
    with clock.part() as last:
        spent[0] += 1
    assert (one.cpu_s, other.cpu_s, last.cpu_s) == (5.0, 3.0, 1.0)


def test_the_thread_that_takes_the_answers_is_not_counted() -> None:
    clock = SharedCpuClock()

    def burn(seconds: float) -> None:
        until = time.thread_time() + seconds
        while time.thread_time() < until:
            pass

    found = []

    def ask() -> None:
        with clock.part() as part:
            burn(0.05)
        found.append(part)

    asking = threading.Thread(target=ask)
    asking.start()
    burn(0.1)
    asking.join()
    assert found[0].cpu_s == pytest.approx(0.05, abs=0.03)
