"""Whether confidences are refuted, by hand and against exact enumeration."""

from itertools import product

import numpy as np
import pytest
from scipy.stats import binom

from jettison.errors import InvalidInput, NotEnoughData
from jettison.stats.calibration import calibration_error
from jettison.stats.calibration_check import calibration_difference, check_calibration, right_near


def halves(*right_of_ten: int) -> np.ndarray:
    """Ten answers a bin, so many of them right."""
    return np.concatenate([[1] * k + [0] * (10 - k) for k in right_of_ten])


def test_what_is_right_as_often_as_it_says_is_not_refuted():
    found = check_calibration(np.full(40, 0.5), halves(5, 5, 5, 5))
    assert (found.n, found.p_value) == (40, 1.0)
    assert (found.ece.value, found.ece.low) == (0.0, 0.0)
    assert found.ece.high > 0.05
    assert found.gap.value == 0.0


def test_the_p_value_is_the_exact_one():
    # Four bins of ten coin tosses; the statistic is the sum of |heads - 5|. Here 4 + 2 + 1 + 2 = 9.
    chance = binom.pmf(np.arange(11), 10, 0.5)
    off = np.abs(np.arange(11) - 5)
    exact = sum(np.prod(chance[list(k)]) for k in product(range(11), repeat=4) if off[list(k)].sum() >= 9)
    apart = 0.5 + 1e-9 * np.arange(40)  # ties would be one bin
    found = check_calibration(apart, halves(9, 3, 6, 3))
    assert found.p_value == pytest.approx(exact, abs=0.1)  # 999 draws: a standard error of 0.03


def test_true_confidences_that_tie_are_not_refuted_by_the_order_of_the_file():
    right = np.concatenate([np.arange(300) % 20 > 0, np.arange(300) % 20 > 6]).astype(float)
    found = check_calibration(np.full(600, 0.8), right)
    assert found.p_value > 0.5
    assert found.ece.low == 0.0


def test_confidences_that_are_too_sure_are_refuted_by_how_much():
    found = check_calibration(np.full(200, 0.9), np.tile([1, 1, 1, 0, 0], 40))
    assert found.p_value == 0.002
    assert found.gap.value == pytest.approx(0.3)
    assert found.ece.value == pytest.approx(0.3, abs=0.01)
    assert 0.2 < found.ece.low < 0.3 < found.ece.high < 0.4
    assert found.ece.value == calibration_error(np.full(200, 0.9), np.tile([1, 1, 1, 0, 0], 40))


def test_copies_of_one_answer_are_no_more_evidence_than_the_answer():
    rng = np.random.default_rng(0)
    sure = rng.uniform(0.5, 1, 100)
    right = (rng.random(100) < sure - 0.1) * 1.0
    alone = check_calibration(sure, right)
    copied = [np.repeat(one, 10) for one in (sure, right, np.arange(100))]
    naive = check_calibration(copied[0], copied[1])
    grouped = check_calibration(copied[0], copied[1], groups=copied[2])
    assert naive.p_value < 0.003 < grouped.p_value
    assert alone.gap.low == pytest.approx(grouped.gap.low, abs=1e-9)
    assert grouped.ece.high - grouped.ece.low > 1.5 * (naive.ece.high - naive.ece.low)


def test_answers_all_right_in_few_groups_of_copies_do_not_refute():
    # Twenty answers, three copies of each: all are right with a chance of 0.9 ** 20 = 0.12, not 0.9 ** 60.
    sure, group = np.full(60, 0.9), np.repeat(np.arange(20), 3)
    assert check_calibration(sure, np.ones(60)).p_value < 0.05
    assert check_calibration(sure, np.ones(60), groups=group).p_value > 0.05


def test_groups_that_do_not_depend_cost_little():
    rng = np.random.default_rng(3)
    sure = rng.uniform(0.6, 1, 600)
    right = (rng.random(600) < sure - 0.07) * 1.0
    assert check_calibration(sure, right).p_value < 0.01
    assert check_calibration(sure, right, groups=np.repeat(np.arange(200), 3)).p_value < 0.02


def test_confidences_of_certainty_are_checked_by_group_too():
    group = np.repeat(np.arange(20), 3)
    assert check_calibration(np.ones(60), np.ones(60), groups=group).p_value == 1.0
    one_wrong = np.arange(60) > 0
    assert check_calibration(np.ones(60), one_wrong * 1.0, groups=group).p_value == 0.002


def test_the_names_and_the_order_of_groups_say_nothing():
    rng = np.random.default_rng(4)
    sure = rng.uniform(0.5, 1, 150)
    right = (rng.random(150) < sure) * 1.0
    group = rng.integers(0, 50, 150)
    found = check_calibration(sure, right, groups=group)
    named = check_calibration(sure, right, groups=[f"chat {g:03}" for g in group])
    assert named.p_value == found.p_value
    turned = check_calibration(sure[::-1], right[::-1], groups=group[::-1])
    assert turned.p_value == pytest.approx(found.p_value, abs=0.1)


def test_a_difference_is_mirrored_when_the_models_change_places():
    rng = np.random.default_rng(1)
    sure = rng.uniform(0.5, 1, 300)
    right = (rng.random(300) < sure) * 1.0
    too_sure = np.minimum(1.0, sure + 0.15)
    there = calibration_difference(too_sure, right, sure, right)
    back = calibration_difference(sure, right, too_sure, right)
    assert there.ece.low > 0
    assert there.gap.value == pytest.approx((too_sure - sure).mean())
    assert (back.ece.value, back.ece.low) == pytest.approx((-there.ece.value, -there.ece.high), abs=1e-9)
    itself = calibration_difference(sure, right, sure, right)
    assert (itself.ece.value, itself.ece.low, itself.ece.high) == (0.0, 0.0, 0.0)


def test_answers_near_nine_tenths_are_counted():
    sure = np.concatenate([np.full(50, 0.9), np.full(50, 0.5)])
    found = right_near(sure, np.concatenate([np.tile([1, 1, 1, 1, 0], 10), np.zeros(50)]), 0.9)
    assert found is not None
    assert (found.n, found.right.value, found.confidence) == (50, 0.8, pytest.approx(0.9))
    # Wilson, 40 of 50
    assert (found.right.low, found.right.high) == (
        pytest.approx(0.670, abs=1e-3),
        pytest.approx(0.888, abs=1e-3),
    )
    assert right_near(sure, np.zeros(100), 0.7) is None


def test_what_cannot_be_checked_is_refused():
    with pytest.raises(NotEnoughData, match="needs at least 40 answers, got 3"):
        check_calibration([0.5, 0.6, 0.7], [1, 0, 1])
    with pytest.raises(InvalidInput, match="right \\(1\\) or wrong \\(0\\)"):
        check_calibration(np.full(40, 0.5), np.full(40, 0.5))
    with pytest.raises(InvalidInput, match="same examples"):
        calibration_difference(np.full(40, 0.5), np.ones(40), np.full(50, 0.5), np.ones(50))
