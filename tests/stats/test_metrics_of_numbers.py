"""Calibration, ranking and classification, against hand-worked figures."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jettison.errors import InvalidInput, NotEnoughData
from jettison.stats.calibration import (
    accuracy_at_coverage,
    brier,
    calibration_error,
    equal_bins,
    log_loss,
    risk_coverage_area,
)
from jettison.stats.classification import accuracy, macro_f1, per_class
from jettison.stats.ranking import auroc, recall_at_false_alarm_share


def test_calibration_error_of_one_bin_is_the_gap() -> None:
    confidence, right = [0.9] * 10, [1] * 7 + [0] * 3
    assert calibration_error(confidence, right, debiased=False) == pytest.approx(0.2)


def test_debiasing_brings_a_calibrated_model_close_to_zero() -> None:
    rng = np.random.default_rng(0)
    plain, debiased = [], []
    for _ in range(100):
        confidence = rng.uniform(0.5, 1, 400)
        right = rng.random(400) < confidence
        plain.append(calibration_error(confidence, right, debiased=False))
        debiased.append(calibration_error(confidence, right))
    assert np.mean(plain) > 0.05
    assert np.mean(debiased) < 0.65 * np.mean(plain)


def test_the_order_of_tied_confidences_says_nothing() -> None:
    """All at 0.8 and 80 % right, 95 % in the first half of the file and 65 % in the second: no error."""
    confidence = np.full(600, 0.8)
    correct = np.concatenate([np.arange(300) % 20 > 0, np.arange(300) % 20 > 6]).astype(float)
    assert calibration_error(confidence, correct) == pytest.approx(0.0, abs=1e-12)
    assert accuracy_at_coverage(confidence, correct, 0.8) == pytest.approx(0.8)
    # The surest is kept, and one of the two ties, which are right by half: (1 + 0.5) / 2.
    assert accuracy_at_coverage([0.9, 0.8, 0.8, 0.1], [1, 0, 1, 0], 0.5) == 0.75


def test_bins_part_no_tie_and_are_of_equal_size_without_any() -> None:
    assert [len(part) for part in equal_bins(np.random.default_rng(0).random(157), 15)] == [11] * 7 + [
        10
    ] * 8
    # 14 and 26 answers of one confidence each, then 20 apart: edges at 20 and 40 go to 14 and 40.
    tied = np.concatenate([np.full(14, 0.2), np.full(26, 0.5), np.linspace(0.6, 0.9, 20)])
    assert [len(part) for part in equal_bins(tied, 3)] == [14, 26, 20]
    # An edge that would leave a bin of under 10 is left out.
    assert [len(part) for part in equal_bins(np.append(np.full(35, 0.5), [0.6] * 5), 4)] == [40]


def test_brier_and_log_loss_by_hand() -> None:
    assert brier([0.8, 0.6], [1, 0]) == pytest.approx((0.04 + 0.36) / 2)
    assert log_loss([0.8, 0.6], [1, 0]) == pytest.approx(-(np.log(0.8) + np.log(0.4)) / 2)
    assert np.isfinite(log_loss([1.0], [0]))


def test_risk_coverage_by_hand() -> None:
    # Most confident first: right, wrong, right: risks 0, 1/2, 1/3.
    assert risk_coverage_area([0.9, 0.8, 0.7], [1, 0, 1]) == pytest.approx((0 + 1 / 2 + 1 / 3) / 3)
    assert risk_coverage_area([0.5, 0.5], [1, 0]) == pytest.approx(0.5)
    assert accuracy_at_coverage([0.9, 0.8, 0.7, 0.6], [1, 1, 0, 0], 0.5) == 1.0


def test_auroc_counts_ties_half() -> None:
    # Pairs: 3>1, 3>2, 2>1, 2=2 -> 3.5 of 4.
    assert auroc([3, 2], [1, 2]) == pytest.approx(3.5 / 4)
    assert auroc([1, 1], [1, 1]) == 0.5
    with pytest.raises(NotEnoughData, match="got 0 positive and 1 negative"):
        auroc([], [1])


def test_recall_allows_just_the_false_alarms_it_may() -> None:
    negative = np.arange(100) / 100
    assert recall_at_false_alarm_share([0.95, 0.94, 0.5], negative, 0.05) == pytest.approx(1 / 3)
    assert recall_at_false_alarm_share([1.0, 0.2], negative, 0.0) == 0.5


def test_f1_by_hand_and_a_missing_answer_is_wrong() -> None:
    expected, predicted = ["a", "a", "b", "b"], ["a", "b", "b", None]
    # a: precision 1, recall 1/2, F1 2/3; b: precision 1/2, recall 1/2, F1 1/2.
    assert accuracy(expected, predicted) == 0.5
    assert macro_f1(expected, predicted) == pytest.approx((2 / 3 + 1 / 2) / 2)
    a, b = per_class(expected, predicted)
    assert (a.precision, a.recall, a.n_expected, b.n_predicted) == (1.0, 0.5, 2, 2)


def test_a_class_never_predicted_has_no_precision() -> None:
    rare = next(c for c in per_class(["a", "b"], ["a", "a"]) if c.label == "b")
    assert rare.precision is None
    assert rare.recall == 0.0


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("abcd")), min_size=1, max_size=40))
def test_macro_f1_is_the_mean_of_the_classes_expected(rows: list[tuple[str, str]]) -> None:
    expected, predicted = [e for e, _ in rows], [p for _, p in rows]
    by_class = [c.f1 or 0.0 for c in per_class(expected, predicted) if c.n_expected]
    assert macro_f1(expected, predicted) == pytest.approx(np.mean(by_class))


def test_confidence_outside_its_range_is_refused() -> None:
    with pytest.raises(InvalidInput, match=r"confidence must be in 0-1, got 1\.5 at example 0"):
        brier([1.5], [1])
    with pytest.raises(NotEnoughData, match="at least 1 example, got 0"):
        brier([], [])
    with pytest.raises(InvalidInput, match="equally many, got 1 and 2"):
        accuracy(["a"], ["a", "b"])
