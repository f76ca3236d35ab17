"""Percentiles with intervals under queueing: known ranks, refusals, failures as misses."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from jettison.errors import InvalidInput, NotEnoughData
from jettison.stats.tail import percentile, percentile_interval


def test_the_percentile_is_the_smallest_value_that_the_share_does_not_exceed() -> None:
    # 1..20: 19 of 20 are at most 19, so p95 is 19; half are at most 10.
    assert percentile(np.arange(1, 21), 0.95) == 19
    assert percentile(np.arange(1, 21), 0.5) == 10


def test_samples_spread_evenly_get_the_width_of_independent_ones() -> None:
    # Every batch of 50 holds each residue alike, so batch means do not vary and the floor rules:
    # h = t(0.975, 19) sqrt(0.9 x 0.1 / 1000) = 2.0930 x 0.0094868 = 0.019856;
    # ranks floor(880.14) = 880 and ceil(919.86) = 920 of the sorted values.
    samples = np.tile(np.arange(50), 20) * 20 + np.repeat(np.arange(20), 50)
    found = percentile_interval(samples, 0.9)
    ordered = np.sort(samples)
    assert (found.low, found.value, found.high) == (ordered[879], ordered[899], ordered[919])


def test_inputs_that_come_again_tell_no_more_of_those_to_come() -> None:
    # As above, but of 50 inputs, 20 times each: h = 2.0930 x sqrt(0.9 x 0.1 / 50) = 0.0888;
    # of 1000, ranks 811 and 989.
    samples = np.tile(np.arange(50), 20) * 20 + np.repeat(np.arange(20), 50)
    ordered = np.sort(samples)
    found = percentile_interval(samples, 0.9, n_inputs=50)
    assert (found.low, found.value, found.high) == (ordered[810], ordered[899], ordered[988])
    # Of p95 nothing bounds the end: (2.0930 x sqrt(0.95 x 0.05 / 50) / 0.05) squared x 50 is 83.2 inputs.
    few = percentile_interval(samples, 0.95, n_inputs=50)
    assert (few.high, few.n_missing) == (None, 34)


def test_a_slow_stretch_widens_the_interval_until_it_declines() -> None:
    rng = np.random.default_rng(0)
    calm = rng.exponential(1.0, 2000)
    stalled = calm.copy()
    stalled[500:600] += 50  # one stall holds the whole tail: all 5 % beyond p95 come from one batch
    assert percentile_interval(calm, 0.95).high is not None
    found = percentile_interval(stalled, 0.95)
    assert found.high is None
    assert found.n_missing is not None
    # The half width is t(0.975, 19) times that of one batch of 20 that holds all: it halves with 4 x n.
    assert found.n_missing > 1000
    assert found.words == f"p95 not certifiable from this run: at least {found.n_missing:,} more."


def test_a_run_of_a_hundred_cannot_certify_p99() -> None:
    found = percentile_interval(np.arange(100.0), 0.99)
    # One exceeds, in a batch of 5: batch means are 0.2 once and 0 else, their variance 0.002, v = 0.0001.
    # h = 2.0930 x 0.01, and (h / 0.01) squared x 100 = 438.1: 439, of which 100 are there.
    assert found.high is None
    assert found.n_missing == 339


def test_failures_count_as_beyond_every_limit() -> None:
    samples = np.concatenate([np.linspace(1, 2, 900), np.full(100, np.inf)])
    rng = np.random.default_rng(0)
    rng.shuffle(samples)
    found = percentile_interval(samples, 0.95)
    assert found.value == np.inf
    assert found.high is None
    assert found.n_missing is None
    assert found.words == "p95 lies among the requests that failed."
    assert percentile_interval(samples, 0.5).high is not None


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([0.5, 0.9, 0.95]), st.floats(0.001, 1000))
def test_the_interval_holds_the_percentile_and_scales_with_the_unit(
    seed: int, share: float, scale: float
) -> None:
    samples = np.random.default_rng(seed).exponential(1.0, 600)
    one, other = percentile_interval(samples, share), percentile_interval(samples * scale, share)
    assert one.low <= one.value <= (one.high or np.inf)
    assert other.value == pytest.approx(one.value * scale)
    assert other.low == pytest.approx(one.low * scale)


def test_independent_samples_are_covered_as_often_as_it_says() -> None:
    rng = np.random.default_rng(5)
    truth = -np.log(0.05)
    hits = 0
    for _ in range(600):
        found = percentile_interval(rng.exponential(1.0, 2000), 0.95)
        hits += found.low <= truth <= (found.high or np.inf)
    assert stats.binomtest(hits, 600, 0.95).pvalue > 1e-4


def test_latencies_of_inputs_to_come_are_covered_though_the_same_were_asked_again_and_again() -> None:
    # How long an input takes varies by half its size from input to input and by a tenth from call to call.
    rng = np.random.default_rng(0)
    truth = np.exp(stats.norm.ppf(0.95) * np.hypot(0.6, 0.1))
    hits = {200: 0, None: 0}
    for _ in range(300):
        of_input = rng.normal(0, 0.6, 200)
        calls = [rng.permutation(of_input) + rng.normal(0, 0.1, 200) for _ in range(15)]
        for n_inputs in hits:
            found = percentile_interval(np.exp(np.concatenate(calls)), 0.95, n_inputs=n_inputs)
            hits[n_inputs] += found.low <= truth <= (found.high or np.inf)
    assert hits[200] / 300 > 0.95
    assert hits[None] / 300 < 0.6  # as if each call were of an input of its own


def test_bad_samples_are_refused() -> None:
    with pytest.raises(InvalidInput, match=r"samples must be numbers of shape \(n,\), got shape"):
        percentile_interval([1.0, np.nan] * 50, 0.9)
    with pytest.raises(InvalidInput, match=r"share and confidence must be in \(0, 1\)"):
        percentile_interval(np.arange(100), 1.0)
    with pytest.raises(NotEnoughData, match=r"needs 40 samples or more, got 39"):
        percentile_interval(np.arange(39), 0.9)
