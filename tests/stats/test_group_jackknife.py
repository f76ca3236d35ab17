"""How many made-up examples weigh against real ones: known answers. Coverage: `tests/guarantees`."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import t

from jettison.stats.group_jackknife import (
    DIFFERENCE,
    ONE_SCORE,
    effective_number,
    independent_number,
    jackknife_mean,
)

WEIGHTS = st.lists(st.floats(0.01, 20), min_size=2, max_size=30).map(np.array)


def test_a_heavy_example_leaves_fewer_by_skewness_than_by_kish() -> None:
    # Sums of weights, squares, cubes: 4, 6, 10. 4 * 6 / 10 = 2.4; Kish: 16 / 6.
    weights = np.array([1.0, 1.0, 2.0])
    assert independent_number(weights, np.arange(3), 1.0, 1.0, ONE_SCORE) == pytest.approx(2.4)
    of_difference = independent_number(weights, np.arange(3), 1.0, 1.0, DIFFERENCE)
    assert of_difference == effective_number(weights) == pytest.approx(16 / 6)


@given(WEIGHTS)
def test_never_more_than_by_kish_and_all_where_equal(weights: np.ndarray) -> None:
    alone = np.arange(len(weights))
    found = independent_number(weights, alone, 1.0, 1.0, ONE_SCORE)
    assert 1 - 1e-9 <= found <= effective_number(weights) * (1 + 1e-9)
    assert independent_number(np.full(7, weights[0]), np.arange(7), 1.0, 1.0, ONE_SCORE) == pytest.approx(7)


def test_members_that_pull_one_way_count_as_one() -> None:
    # Two groups of two; pulls of groups squared are twice those of single ones: 4 / 2. At most 4 / 2, too.
    group_of = np.array([0, 0, 1, 1])
    assert independent_number(np.ones(4), group_of, 1.0, 2.0, ONE_SCORE) == pytest.approx(2)
    assert independent_number(np.ones(4), group_of, 1.0, 9.0, DIFFERENCE) == pytest.approx(2)
    assert independent_number(np.ones(4), group_of, 1.0, 0.5, ONE_SCORE) == pytest.approx(4)


def test_weighted_scores_by_hand() -> None:
    # Nine of weight 1 right, one of weight 3 wrong: mean 9/12; residuals 0.25, -2.25; shares 1/12, 1/4.
    values, weights = np.array([1.0] * 9 + [0.0]), np.array([1.0] * 9 + [3.0])
    variance = 11 / 12 * (9 * (0.25 / (11 / 12)) ** 2 + (2.25 / 0.75) ** 2) / 144
    quantile = t.ppf(0.975, 144 / 18 - 1)
    n, k = 12 * 18 / 36, quantile**2 / 2
    half = quantile * np.sqrt(n**2 * variance + k * (0.25**2 + 0.75**2)) / (n + 2 * k)
    found = jackknife_mean(values, weights, np.arange(10), bounds=ONE_SCORE)
    middle = (n * 0.75 + k) / (n + 2 * k)
    assert (found.value, found.low) == pytest.approx((0.75, middle - half))
    assert found.high == pytest.approx(min(1.0, middle + half))
