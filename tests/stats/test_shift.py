"""Means under a shift of the inputs, and labels bought within strata."""

import numpy as np
import pytest
from scipy.stats import binomtest

import known_shift
from jettison.errors import InvalidInput, NotEnoughData
from jettison.stats.group_jackknife import ONE_SCORE
from jettison.stats.shift import fit_logistic, shifted_mean
from jettison.stats.stratified import allocate, draw_stratified, stratified_mean


def test_the_known_simulation_is_reproduced():
    rng = np.random.default_rng(0)
    rows = []
    for seed in range(25):
        y, x, z = known_shift.draw(rng)
        predicted = known_shift.predicted(x), known_shift.predicted(z)
        found = shifted_mean(y, x, z, predicted=predicted, seed=seed)
        rows.append([found.labelled_mean, found.by_prediction, found.interval.value, found.effective_n])
    labelled, alone, value, effective = np.mean(rows, axis=0)
    assert pytest.approx(0.649, abs=1e-3) == known_shift.TRUTH
    assert labelled == pytest.approx(0.791, abs=0.01)
    assert alone == pytest.approx(0.775, abs=0.002)
    assert value == pytest.approx(0.649, abs=0.03)
    assert effective == pytest.approx(157, abs=15)


def test_without_a_shift_the_weights_change_little():
    rng = np.random.default_rng(1)
    x, z = rng.normal(size=(500, 2)), rng.normal(size=(4000, 2))
    y = (rng.random(500) < 0.8).astype(float)
    found = shifted_mean(y, x, z)
    assert found.interval.value == pytest.approx(y.mean(), abs=0.02)
    assert found.effective_n > 400
    assert found.cut_share == 0


def test_differences_of_scores_are_means_too():
    rng = np.random.default_rng(1000)
    x, z = rng.normal(0, 1, (800, 1)), rng.normal(1, 1, (4000, 1))
    # The candidate loses only where x > 1: 16 % of the labelled, 50 % of the others.
    d = -1.0 * (x[:, 0] > 1) * (rng.random(800) < 0.3).astype(float)
    found = shifted_mean(d, x, z)
    assert found.labelled_mean == pytest.approx(-0.048, abs=0.03)
    assert found.interval.low <= -0.15 <= found.interval.high


def test_copies_of_an_example_tell_no_more_than_one():
    rng = np.random.default_rng(5)
    x, z = rng.normal(size=(80, 2)), rng.normal(0.3, 1, (1000, 2))
    y = (rng.random(80) < 0.8).astype(float)
    groups, other_groups = np.repeat(np.arange(80), 9), np.repeat(np.arange(1000), 9)
    given = [(np.zeros(n), np.full(m, 0.7)) for n, m in ((80, 1000), (720, 9000))]
    one = shifted_mean(y, x, z, predicted=given[0])
    copied = shifted_mean(
        np.repeat(y, 9), np.repeat(x, 9, axis=0), np.repeat(z, 9, axis=0), predicted=given[1],
        groups=groups, other_groups=other_groups,
    )  # fmt: skip
    naive = shifted_mean(
        np.repeat(y, 9), np.repeat(x, 9, axis=0), np.repeat(z, 9, axis=0), predicted=given[1]
    )
    width, copied_width, naive_width = (f.interval.high - f.interval.low for f in (one, copied, naive))
    assert copied.effective_n == pytest.approx(one.effective_n, rel=0.25)
    assert copied_width == pytest.approx(width, rel=0.25)
    assert naive_width < 0.5 * copied_width


def test_few_groups_are_refused():
    rng = np.random.default_rng(6)
    x, groups = rng.normal(size=(90, 1)), np.repeat(np.arange(9), 10)
    with pytest.raises(NotEnoughData, match="at least 10 groups of labelled inputs, got 9"):
        shifted_mean(np.ones(90), x, x, groups=groups)
    with pytest.raises(InvalidInput, match=r"groups must have shape \(90,\), got \(3,\)"):
        shifted_mean(np.ones(90), x, x, groups=[1, 2, 3])


def test_without_an_error_seen_the_score_is_not_taken_for_certain():
    x = np.random.default_rng(7).normal(size=(60, 1))
    found = shifted_mean(np.ones(60), x, x, bounds=ONE_SCORE).interval
    # The rule of three says 0.95 for 60 of 60.
    assert 0.90 < found.low < 0.95
    assert found.high == 1


def test_a_logistic_regression_finds_its_coefficients():
    rng = np.random.default_rng(3)
    x = rng.normal(size=(20_000, 2))
    y = rng.random(20_000) < 1 / (1 + np.exp(-(0.5 + x @ [1.0, -2.0])))
    assert fit_logistic(x, y.astype(float)) == pytest.approx([1.0, -2.0, 0.5], abs=0.08)


def test_too_few_and_shapes_that_do_not_fit_are_refused():
    with pytest.raises(NotEnoughData, match="at least 50 labelled and other inputs, got 10 and 60"):
        shifted_mean(np.zeros(10), np.zeros((10, 1)), np.zeros((60, 1)))
    with pytest.raises(InvalidInput, match="n_features"):
        shifted_mean(np.zeros(60), np.zeros((60, 2)), np.zeros((60, 1)))


def test_labels_go_where_size_and_spread_are():
    # 0.8 * 100 by size times spread (0, 0, 100 to the last), 0.2 * 100 evenly by size.
    assert allocate([500, 400, 100], [1e-9, 1e-9, 1.0], 100).tolist() == [10, 8, 82]
    assert allocate([5, 3], [1, 1], 100).tolist() == [5, 3]
    assert allocate([1000, 1000], [1, 1], 50).sum() == 50
    with pytest.raises(InvalidInput, match="2 labels to each of 3 strata, got 5"):
        allocate([10, 10, 10], [1, 1, 1], 5)


def test_drawn_labels_keep_the_estimate_unbiased_and_its_interval_honest():
    rng = np.random.default_rng(4)
    stratum = np.repeat([0, 1], [9000, 1000])
    truth = np.where(stratum == 1, rng.random(10_000) < 0.6, rng.random(10_000) < 0.02).astype(float)
    values, covered = [], 0
    for seed in range(300):
        drawn = draw_stratified(stratum, [0.15, 0.5], 200, seed=seed)
        at = list(drawn.positions)
        found = stratified_mean(truth[at], stratum[at], [9000, 1000])
        values.append(found.value)
        covered += found.low <= truth.mean() <= found.high
        weights = 1 / np.array(drawn.propensities)
        assert weights.sum() == pytest.approx(10_000)
    assert np.mean(values) == pytest.approx(truth.mean(), abs=0.003)
    assert binomtest(covered, 300, 0.95, alternative="less").pvalue > 1e-4


def test_a_stratum_with_one_answer_cannot_tell():
    with pytest.raises(NotEnoughData, match="got 1 of 50 inputs in stratum 1"):
        stratified_mean([1, 0, 1], [0, 0, 1], [40, 50])
