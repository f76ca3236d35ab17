"""Memory by phase, on real processes that hold what they are told to hold."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from jettison.cost.memory import MemoryUse, PhaseWatch, descendants
from jettison.cost.meters import reset_peak
from jettison.cost.subject import most_bytes, phase_memory

MIB = 1 << 20
needs_reset = pytest.mark.skipif(
    not reset_peak(), reason="this system does not let a process start its peak memory over"
)
CHILD = f"held = b'x' * (80 * {MIB}); print('ready', flush=True); input()"


@needs_reset
def test_a_peak_of_one_phase_is_not_carried_into_the_next() -> None:
    watch = PhaseWatch()
    watch.end_phase()
    held = b"x" * (120 * MIB)
    high = watch.end_phase()
    del held
    watch.end_phase()  # from here the block is no longer held
    low = watch.end_phase()
    assert high.peak_bytes is not None
    assert low.peak_bytes is not None
    assert 100 * MIB < high.peak_bytes - low.peak_bytes < 140 * MIB


@needs_reset
def test_a_living_child_is_part_of_peak_pss_and_uss_and_of_none_once_it_has_ended() -> None:
    watch = PhaseWatch()
    before = watch.end_phase()
    with subprocess.Popen(
        [sys.executable, "-c", CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        child.stdout.readline()
        assert str(child.pid) in descendants(os.getpid())
        during = watch.end_phase()
        child.communicate("done\n")
    watch.end_phase()
    after = watch.end_phase()
    for name in ("peak_bytes", "pss_bytes", "uss_bytes"):
        gained = getattr(during, name) - getattr(before, name)
        assert 75 * MIB < gained < 130 * MIB, name
    assert during.n_children == before.n_children + 1
    assert after.peak_bytes is not None
    assert before.peak_bytes is not None
    assert after.peak_bytes < before.peak_bytes + 40 * MIB
    assert during.uss_bytes is not None
    assert during.pss_bytes is not None
    assert during.uss_bytes <= during.pss_bytes


def test_where_the_system_tells_nothing_memory_is_not_measured_rather_than_zero(tmp_path: Path) -> None:
    watch = PhaseWatch(tmp_path)
    assert watch.end_phase() == MemoryUse(peak_bytes=None)
    assert descendants(1, tmp_path) == []


def test_a_peak_that_could_not_be_started_over_is_not_given_for_the_next_phase(tmp_path: Path) -> None:
    own = tmp_path / str(os.getpid())
    own.mkdir()
    (own / "status").write_text("Name: x\nVmHWM:    2048 kB\n")
    (own / "clear_refs").mkdir()  # cannot be written
    watch = PhaseWatch(tmp_path)
    assert watch.end_phase().peak_bytes == 2048 * 1024
    assert watch.end_phase().peak_bytes is None


def test_phases_that_were_not_reached_are_not_measured() -> None:
    loaded = MemoryUse(peak_bytes=5, pss_bytes=4)
    found = phase_memory([[loaded]])
    assert (found.load_peak_bytes, found.warm_up_peak_bytes, found.steady_peak_bytes) == (5, None, None)
    assert found.steady_pss_bytes is None
    assert most_bytes([[loaded], [MemoryUse(peak_bytes=None), MemoryUse(peak_bytes=9)]]) == 9
    assert most_bytes([[MemoryUse(peak_bytes=None)]]) is None


def test_of_each_phase_the_opening_that_took_most_counts() -> None:
    openings = [
        [MemoryUse(peak_bytes=5), MemoryUse(peak_bytes=9, pss_bytes=1)],
        [MemoryUse(peak_bytes=7), MemoryUse(peak_bytes=None), MemoryUse(peak_bytes=8, pss_bytes=2)],
    ]
    found = phase_memory(openings)
    assert (found.load_peak_bytes, found.warm_up_peak_bytes, found.steady_peak_bytes) == (7, 9, 8)
    assert found.steady_pss_bytes == 2
