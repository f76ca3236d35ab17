"""CPU time of calls that overlap: parted among those under way, nothing lost and nothing twice."""

import threading
import time
from contextlib import ExitStack

import pytest

from jettison.cost.shared_cpu import SharedCpuClock, less_own


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


class PutOff:
    """Clocks of a process and of one of its threads, which works on whenever their reader is put off.

    The others have taken 5 s. `off_s` is for how long the reader is put off before each of its readings, in
    turn; after those never.
    """

    def __init__(self, *off_s: float) -> None:
        self.own = 2.0
        self._off_s = list(off_s)
        self.n_readings = 0

    def whole_s(self) -> float:
        return self.own_s() + 5.0

    def own_s(self) -> float:
        self.n_readings += 1
        self.own += self._off_s.pop(0) if self._off_s else 2e-6
        return self.own


@pytest.mark.parametrize(
    "off_s",
    [
        (),
        # Before the process's clock; after it; both; twice in a row.
        (0.0, 0.027),
        (0.0, 0.0, 0.027),
        (0.0, 0.027, 0.027),
        (0.0, 0.0, 0.027, 0.027, 0.0),
    ],
)
def test_a_reader_that_is_put_off_between_two_clocks_loses_nothing(off_s: tuple[float, ...]) -> None:
    clocks = PutOff(*off_s)
    assert less_own(clocks.whole_s, clocks.own_s) == pytest.approx(5.0, abs=5e-6)


def test_a_reader_that_is_always_put_off_takes_its_best_reading_and_ends() -> None:
    """The best of many: 3 ms between the process's clock and the thread's, so 3 ms too little."""
    best = (0.010, 0.010) * 4 + (0.0, 0.003) + (0.010, 0.010) * 100
    clocks = PutOff(0.0, *best)
    assert less_own(clocks.whole_s, clocks.own_s) == pytest.approx(4.997, abs=1e-9)
    assert clocks.n_readings < 50


def test_a_reading_that_falls_is_counted_once() -> None:
    """1 s, back by 0.4 s and on by 1 s: 1.6 s were spent, and not 2."""
    readings = iter([10.0, 10.0, 11.0, 10.6, 11.6])
    clock = SharedCpuClock(lambda: next(readings))
    with clock.part() as one, clock.part() as other:
        pass
    # The first second before the other began, nothing while the clock was back, the rest once it had ended.
    assert (one.cpu_s, other.cpu_s) == (pytest.approx(1.6), 0.0)


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
