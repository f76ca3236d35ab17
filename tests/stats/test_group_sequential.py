"""Bounds of planned looks against the textbook, and the error they promise."""

import numpy as np
import pytest
from scipy.stats import binomtest

from jettison.errors import InvalidInput
from jettison.stats.group_sequential import classic_bounds, crossing_probabilities, spending_bounds


def test_classic_bounds_equal_the_textbook() -> None:
    # Jennison & Turnbull 2000, tables 2.1 and 2.3, and R's gsDesign and rpact: one-sided 2.5 %.
    assert classic_bounds(3) == pytest.approx([3.471, 2.454, 2.004], abs=5e-4)
    assert classic_bounds(5) == pytest.approx([4.562, 3.226, 2.634, 2.281, 2.040], abs=5e-4)
    assert classic_bounds(3, shape="pocock") == pytest.approx([2.289] * 3, abs=5e-4)
    assert classic_bounds(1) == pytest.approx([1.959964], abs=1e-6)


def test_spending_bounds_equal_gsdesign() -> None:
    # gsDesign(k=3, test.type=1, sfu=sfLDOF) and sfLDPocock, alpha = 0.025.
    assert spending_bounds([1 / 3, 2 / 3, 1]) == pytest.approx([3.7103, 2.5114, 1.9930], abs=5e-4)
    pocock = spending_bounds([1 / 3, 2 / 3, 1], shape="pocock")
    assert pocock == pytest.approx([2.2794, 2.2949, 2.2959], abs=5e-4)


def test_a_bound_depends_on_no_later_look() -> None:
    assert spending_bounds([0.3, 0.5])[:2] == pytest.approx(spending_bounds([0.3, 0.5, 0.6, 1.0])[:2])
    assert np.isinf(spending_bounds([0.01, 1.0])[0])  # nothing to spend yet: never stops there


def test_crossings_add_up_to_alpha_without_effect_and_to_the_power_with_one() -> None:
    times = np.array([1, 2, 3]) / 3
    bounds = spending_bounds(times)
    assert crossing_probabilities(times, bounds).sum() == pytest.approx(0.025, abs=1e-6)
    # A drift of z(.975) + z(.8) gives one look a power of 80 %; three planned looks cost under a point.
    power = crossing_probabilities(times, bounds, drift=1.959964 + 0.841621).sum()
    assert 0.79 < power < 0.8
    rng = np.random.default_rng(0)
    walks = np.cumsum(rng.normal(0, np.sqrt(1 / 3), (40_000, 3)), axis=1) / np.sqrt(times)
    crossed = int((walks >= bounds).any(axis=1).sum())
    assert binomtest(crossed, 40_000, 0.025).pvalue > 1e-4


def test_shares_that_do_not_ascend_are_refused() -> None:
    with pytest.raises(InvalidInput, match=r"must ascend within \(0, 1\], got \[0.5, 0.4\]"):
        spending_bounds([0.5, 0.4])
    with pytest.raises(InvalidInput, match="looks must be 1 to 50, got 0"):
        classic_bounds(0)
    with pytest.raises(InvalidInput, match=r"alpha must be in \(0, 0.5\), got 0.5"):
        classic_bounds(2, alpha=0.5)
    with pytest.raises(InvalidInput, match="each look needs one bound"):
        crossing_probabilities([0.5, 1], [2.0])
