"""Two samples known by moments: what a classifier learned of the reference's chance is no drift."""

import numpy as np
import pytest
from scipy.stats import binom, norm

from jettison.errors import NotEnoughData
from jettison.stats.two_samples import ClassifierDiffers, classifier_differs

N_FEATURES = 40


def told(reference: np.ndarray, other: np.ndarray) -> ClassifierDiffers:
    return classifier_differs(
        reference.mean(axis=0), np.cov(reference, rowvar=False), len(reference), other=other
    )


def test_with_many_features_and_a_small_reference_the_classifier_is_not_too_eager() -> None:
    # Tested against the reference that it learned on, 207 of these 300 alarmed at 5 %.
    rng = np.random.default_rng(0)
    found = [
        told(rng.normal(size=(200, N_FEATURES)), rng.normal(size=(200, N_FEATURES))) for _ in range(300)
    ]
    n_alarms = sum(one.p_value <= 0.05 for one in found)
    assert n_alarms <= int(binom.isf(1e-4, 300, 0.05))
    assert np.mean([one.z for one in found]) == pytest.approx(0, abs=4 / np.sqrt(300))


def test_a_shift_is_found_with_its_area_and_its_feature_first() -> None:
    # A shift of 1 standard deviation in one feature: the best linear score has AUC Phi(1 / sqrt 2) = 0.760.
    rng = np.random.default_rng(1)
    other = rng.normal(size=(4000, N_FEATURES))
    other[:, 7] += 1
    found = told(rng.normal(size=(4000, N_FEATURES)), other)
    assert found.p_value < 1e-20
    assert found.auc == pytest.approx(norm.cdf(1 / np.sqrt(2)), abs=0.02)
    assert int(found.contributions.argmax()) == 7
    assert found.contributions.sum() == pytest.approx(1)


def test_a_window_much_larger_than_the_reference_is_still_told_apart_without_false_alarms() -> None:
    rng = np.random.default_rng(2)
    clean = [told(rng.normal(size=(100, 10)), rng.normal(size=(3000, 10))) for _ in range(100)]
    assert sum(one.p_value <= 0.05 for one in clean) <= int(binom.isf(1e-4, 100, 0.05))
    assert told(rng.normal(size=(100, 10)), rng.normal(0.5, 1, size=(3000, 10))).p_value < 1e-6


def test_a_reference_that_looks_narrower_than_what_is_tested_makes_no_score_surer() -> None:
    # By the covariance that it learned by, a direction looks narrower than it is; how much must not count.
    rng = np.random.default_rng(4)
    other = rng.normal(0.1, 1, size=(300, 10))
    half, tenth = (
        classifier_differs(np.zeros(10), share * np.eye(10), 200, other=other) for share in (0.5, 0.1)
    )
    assert half.z == pytest.approx(tenth.z)
    assert half.auc == pytest.approx(tenth.auc)
    assert classifier_differs(np.zeros(10), 2 * np.eye(10), 200, other=other).auc < half.auc


def test_too_few_vectors_are_refused() -> None:
    with pytest.raises(NotEnoughData, match="30 reference and 60 other vectors, got 100 and 59"):
        told(np.random.default_rng(0).normal(size=(100, 3)), np.zeros((59, 3)))
