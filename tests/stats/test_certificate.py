"""Thresholds certified by Learn-then-Test, shares with their intervals."""

import numpy as np
import pytest
from scipy.stats import binomtest

from jettison.errors import InvalidInput, NotEnoughData
from jettison.stats.binomial import clopper_pearson, wilson
from jettison.stats.ltt import GRID, binomial_p, certify_threshold, hoeffding_bentkus_p

HARMFUL = (3, 8, 12, 15, 17, 19, 22)


def test_p_values_of_500_examples_equal_the_reference_row() -> None:
    exact = [binomial_p(k, 500, 0.05) for k in HARMFUL]
    assert exact == pytest.approx([0, 0.00006, 0.00261, 0.01986, 0.05592, 0.12723, 0.3121], abs=6e-6)
    bound = [hoeffding_bentkus_p(k / 500, 500, 0.05) for k in HARMFUL]
    assert bound == pytest.approx([0, 0.00015, 0.0071, 0.05398, 0.15199, 0.34586, 0.82109], abs=6e-6)


def test_p_values_equal_those_of_mapie() -> None:
    # MAPIE 1.x: compute_hoeffding_bentkus_p_value(.03, 500, .05) and its binary counterpart.
    assert hoeffding_bentkus_p(0.03, 500, 0.05) == pytest.approx(0.0539807, abs=5e-8)
    assert binomial_p(15, 500, 0.05) == pytest.approx(0.0198584, abs=5e-8)


def test_the_walk_stops_where_harm_first_exceeds_what_delta_allows() -> None:
    # Binomial tails at 500 and 0.05: 18 harmful give 0.0869, 19 give 0.1272, so delta 0.1 allows 18.
    scores = np.linspace(0.999, 0.001, 500)
    harmful = np.zeros(500, bool)
    harmful[100:120] = True
    found = certify_threshold(scores, harmful, epsilon=0.05, delta=0.1, grid=scores)
    assert found is not None
    assert found.n_harmful == 18
    assert found.threshold == scores[117]
    assert found.accepted_share == pytest.approx(118 / 500)


def test_a_harmless_tail_behind_a_harmful_stretch_is_not_reached() -> None:
    scores, harmful = np.linspace(1, 0, 400), np.zeros(400, bool)
    harmful[:60] = True
    found = certify_threshold(scores, harmful, epsilon=0.05, delta=0.1)
    assert found is not None
    assert found.threshold > scores[40]


def test_too_few_examples_certify_nothing() -> None:
    assert certify_threshold([0.9] * 20, [False] * 20, epsilon=0.05, delta=0.1) is None


def test_the_grid_was_fixed_before_any_data_and_runs_downwards() -> None:
    assert GRID[0] == 1.0
    assert GRID[-1] == 0.0
    assert (np.diff(GRID) < 0).all()


def test_the_certificate_holds_as_often_as_it_says() -> None:
    # Harm at score s is 0.4 (1 - s)^2, so keeping all above t harms 0.4 (1 - t)^3 / 3 of the answers.
    rng = np.random.default_rng(0)
    broken = 0
    for _ in range(250):
        score = rng.random(500)
        found = certify_threshold(score, rng.random(500) < 0.4 * (1 - score) ** 2, epsilon=0.05, delta=0.1)
        assert found is not None
        broken += 0.4 * (1 - found.threshold) ** 3 / 3 > 0.05
    assert binomtest(broken, 250, 0.1, alternative="greater").pvalue > 1e-4


def test_no_hit_in_a_thousand_still_has_an_upper_bound() -> None:
    assert clopper_pearson(0, 1000).high == pytest.approx(0.0037, abs=5e-5)
    assert wilson(0, 1000).high == pytest.approx(0.0038, abs=5e-5)
    assert clopper_pearson(10, 10).high == 1.0
    assert wilson(5, 10).value == 0.5


def test_bad_certificates_are_refused() -> None:
    with pytest.raises(InvalidInput, match=r"epsilon must be in \(0, 1\), got 0"):
        certify_threshold([0.5], [False], epsilon=0, delta=0.1)
    with pytest.raises(InvalidInput, match="scores must be finite, got nan at example 0"):
        certify_threshold([float("nan")], [False], epsilon=0.1, delta=0.1)
    with pytest.raises(InvalidInput, match="must share one shape"):
        certify_threshold([0.5], [False, True], epsilon=0.1, delta=0.1)
    with pytest.raises(NotEnoughData, match="at least 1 example, got 0"):
        certify_threshold([], [], epsilon=0.1, delta=0.1)
    with pytest.raises(InvalidInput, match="hits must be a count from 0 to n = 3, got 4"):
        clopper_pearson(4, 3)
    with pytest.raises(NotEnoughData, match="at least 1 example, got 0"):
        wilson(0, 0)
