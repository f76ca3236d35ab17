"""Percentiles of latencies of several processes, by hand and by simulation."""

import numpy as np
import pytest

from jettison.cost.latency import latency_percentiles, openings_percentile
from jettison.cost.memory import MemoryUse
from jettison.cost.subject import peak_interval


def test_openings_that_differ_widen_the_interval_and_one_tells_of_itself_alone() -> None:
    """Three processes that take 1, 2 and 4 ms for everything: logs 0, 0.693, 1.386 with sd 0.693.

    t with 2 degrees of freedom is 4.303, so that the openings alone leave a factor of
    exp(4.303 x 0.693 / sqrt(3)) = 5.60 open on either side of 2 ms.
    """
    openings = [[0.001] * 100, [0.002] * 100, [0.004] * 100]
    found = openings_percentile(openings, 0.5, n_inputs=100)
    assert found is not None
    assert found.high is not None
    assert found.value == 0.002
    assert found.low <= 0.002 / 5.59
    assert found.high >= 0.002 * 5.59
    alone = openings_percentile([[0.002] * 100], 0.5, n_inputs=100)
    assert alone is not None
    assert (alone.low, alone.high) == (0.002, 0.002)


def test_a_percentile_that_few_inputs_cannot_bound_keeps_its_lower_end() -> None:
    calls = np.random.default_rng(0).permutation(np.linspace(0.01, 0.02, 600)).tolist()
    found = latency_percentiles([calls[::2], calls[1::2]], n_inputs=200)
    assert set(found.intervals) == {"latency_p50_s", "latency_p95_s"}
    assert set(found.at_least) == {"latency_p99_s"}
    assert 0.0 < found.at_least["latency_p99_s"] < found.values["latency_p99_s"]
    few = latency_percentiles([[0.01] * 20], n_inputs=20)
    assert (few.intervals, few.at_least, few.values) == (
        {},
        {"latency_p50_s": 0.0},
        {"latency_p50_s": 0.01},
    )


@pytest.mark.parametrize("share", [0.5, 0.95])
def test_a_limit_just_under_the_truth_is_hardly_ever_held(share: float) -> None:
    """Processes differ by 4 %, inputs by 10 %: pooled calls alone held it in 14 % of draws at p50."""
    rng = np.random.default_rng(0)

    def drawn(n_openings: int, n_calls: int) -> np.ndarray:
        inputs = rng.normal(0, 0.1, 128)
        own = rng.normal(0, 0.04, (n_openings, 1)) + inputs[rng.choice(128, (n_openings, n_calls))]
        return np.asarray(np.exp(own + rng.normal(0, 0.03, own.shape)))

    spread = np.sqrt(0.04**2 + 0.1**2 + 0.03**2)
    truth = np.exp(spread * {0.5: 0.0, 0.95: 1.6449}[share])
    n_held = 0
    for _ in range(100):
        found = openings_percentile(drawn(6, 64).tolist(), share, n_inputs=128)
        assert found is not None
        n_held += found.high is not None and found.high < truth
    assert n_held <= 7


def test_peaks_of_several_openings_leave_an_interval_that_holds_the_most() -> None:
    openings = [[MemoryUse(peak_bytes=n), MemoryUse(peak_bytes=n - 1)] for n in (100, 110, 120)]
    found = peak_interval(openings)
    assert found is not None
    assert found.value == 120
    assert found.low < 100
    assert found.high > 120
    assert peak_interval(openings[:1]) is None
