import numpy as np
import pytest
from scipy.stats import binomtest

from jettison.errors import InvalidInput, NotEnoughData
from jettison.stats.judged import (
    JudgeCounts,
    corrected_difference,
    corrected_share,
    gain_interval,
    judged_margin_test,
    prediction_powered_mean,
)
from jettison.stats.noninferiority import margin_test

GOOD = JudgeCounts(n_right=100, n_right_passed=90, n_wrong=100, n_wrong_failed=80)
PERFECT = JudgeCounts(n_right=10**7, n_right_passed=10**7, n_wrong=10**7, n_wrong_failed=10**7)
Y, F, REST = (1, 0, 1, 1, 0), (0.9, 0.2, 0.8, 0.6, 0.4), (0.7, 0.3, 0.9, 0.5, 0.1, 0.8)


def test_a_share_is_corrected_as_rogan_and_gladen_do():
    # 62 % passed: (0.62 + 0.8 - 1) / (0.9 + 0.8 - 1) = 0.6
    found = corrected_share(186, 300, GOOD)
    assert found.value == pytest.approx(0.6)
    assert found.low < 0.6 < found.high


def test_a_corrected_share_equals_lang_and_reiczigel_by_hand():
    # z = 1.959964: n' = 303.8415, p' = (186 + 1.92073) / n' = 0.618483; Se' = 91/102, Sp' = 81/102
    z = 1.959963984540054
    size, se, sp = 300 + z * z, 91 / 102, 81 / 102
    p = (186 + z * z / 2) / size
    gain = se + sp - 1
    center = (p + sp - 1) / gain
    shift = 2 * z * z * (center * se * (1 - se) / 102 - (1 - center) * sp * (1 - sp) / 102)
    spread = p * (1 - p) / size + center**2 * se * (1 - se) / 102 + (1 - center) ** 2 * sp * (1 - sp) / 102
    found = corrected_share(186, 300, GOOD)
    assert found.low == pytest.approx(center + shift - z * spread**0.5 / gain)
    assert found.high == pytest.approx(center + shift + z * spread**0.5 / gain)


def test_a_judge_that_never_errs_leaves_a_share_and_a_difference_as_they_are():
    rng = np.random.default_rng(0)
    a, b = rng.random(400) < 0.8, rng.random(400) < 0.7
    share = corrected_share(320, 400, PERFECT)
    assert share.value == pytest.approx(0.8)
    assert (share.low, share.high) == pytest.approx((0.758, 0.836), abs=0.002)  # Agresti-Coull's
    found = corrected_difference(a.astype(float), b.astype(float), PERFECT)
    assert found.value == pytest.approx(a.mean() - b.mean())
    from jettison.stats.clustered import mean_difference_ci

    plain = mean_difference_ci(a.astype(float), b.astype(float))
    assert (found.low, found.high) == pytest.approx((plain.low, plain.high), abs=1e-5)


def test_a_difference_is_divided_by_what_the_judge_sees_of_it_and_mirrors():
    rng = np.random.default_rng(1)
    a, b = (rng.random(500) < 0.8).astype(float), (rng.random(500) < 0.7).astype(float)
    found, mirrored = corrected_difference(a, b, GOOD), corrected_difference(b, a, GOOD)
    assert found.value == pytest.approx((a.mean() - b.mean()) / 0.7)
    assert (mirrored.low, mirrored.high) == pytest.approx((-found.high, -found.low))


def test_groups_widen_a_corrected_difference():
    a, b = np.tile([1.0, 0.0, 1.0], 60), np.tile([1.0, 1.0, 0.0], 60)
    a[:30] = 0.0
    alone = corrected_difference(a, b, GOOD)
    grouped = corrected_difference(a, b, GOOD, groups=np.repeat(np.arange(18), 10))
    assert grouped.high - grouped.low > alone.high - alone.low


def test_a_judge_no_better_than_chance_is_refused():
    chance = JudgeCounts(n_right=50, n_right_passed=30, n_wrong=50, n_wrong_failed=22)
    with pytest.raises(NotEnoughData, match="no better than chance: it passes 30 of 50 right answers"):
        corrected_share(5, 10, chance)
    with pytest.raises(NotEnoughData, match="got 5 right and 0 wrong"):
        corrected_share(5, 10, JudgeCounts(n_right=5, n_right_passed=5, n_wrong=0, n_wrong_failed=0))
    with pytest.raises(InvalidInput, match="verdicts must be 0 or 1"):
        corrected_difference([0.5, 1], [1, 1], GOOD)
    with pytest.raises(InvalidInput, match="must be a count from 0 to n = 10, got 11"):
        corrected_share(11, 10, GOOD)


def test_prediction_powered_means_equal_those_of_ppi_py():
    plain = prediction_powered_mean(Y, F, REST, tuned=False, guarded=False)
    assert (plain.value, plain.low, plain.high) == pytest.approx((0.57, 0.233283, 0.906717), abs=1e-6)
    tuned = prediction_powered_mean(Y, F, REST, guarded=False)
    assert (tuned.value, tuned.low, tuned.high) == pytest.approx((0.577246, 0.242564, 0.911928), abs=1e-6)
    constant = prediction_powered_mean(Y, (0.5,) * 5, (0.5,) * 6, guarded=False)
    assert (constant.low, constant.high) == pytest.approx((0.170593, 1.029406), abs=1e-6)


def test_a_prediction_powered_mean_wants_enough_labels_on_the_scale():
    with pytest.raises(NotEnoughData, match="at least 30 labelled answers and 2 others, got 5 and 6"):
        prediction_powered_mean(Y, F, REST)
    with pytest.raises(InvalidInput, match="finite numbers in"):
        prediction_powered_mean([3.0] * 40, [1.0] * 40, [1.0] * 40)
    with pytest.raises(InvalidInput, match="must share one shape"):
        prediction_powered_mean([1.0] * 40, [1.0] * 39, [1.0] * 40)


def test_a_corrected_share_covers_where_the_judges_own_share_does_not():
    # The long run is in tests/guarantees. Of 90 % right answers this judge passes 83 %.
    rng = np.random.default_rng(5)
    n_hits = n_naive = 0
    for _ in range(400):
        n_right = rng.binomial(300, 0.9)
        n_passed = int(rng.binomial(n_right, 0.9) + rng.binomial(300 - n_right, 0.2))
        counts = JudgeCounts(
            n_right=80,
            n_right_passed=int(rng.binomial(80, 0.9)),
            n_wrong=80,
            n_wrong_failed=int(rng.binomial(80, 0.8)),
        )
        found = corrected_share(n_passed, 300, counts)
        n_hits += found.low <= 0.9 <= found.high
        n_naive += abs(n_passed / 300 - 0.9) <= 1.96 * np.sqrt(n_passed * (300 - n_passed) / 300**3)
    assert binomtest(n_hits, 400, 0.95, alternative="less").pvalue > 1e-4
    assert n_naive < 100


def test_small_changes_everywhere_do_not_hide_harm_that_is_rare():
    # Every score a hair off: t alone is sure, yet 200 examples cannot rule out 1 % of falls from 1 to 0.
    rng = np.random.default_rng(6)
    baseline = rng.uniform(0.5, 0.9, 200)
    candidate = baseline + rng.uniform(-0.01, 0.01, 200)
    short = margin_test(candidate, baseline, margin=0.01)
    assert short.p_not_worse > 0.1
    assert short.interval.low < -0.01
    baseline = rng.uniform(0.5, 0.9, 600)
    enough = margin_test(baseline + rng.uniform(-0.01, 0.01, 600), baseline, margin=0.01)
    assert enough.p_not_worse < 0.025


def test_the_margin_shrinks_by_the_gain_that_the_judge_surely_has():
    # 897 of 983 and 1017 of 1091: exact one-sided bounds at 0.00125 each give a gain of at least 0.788,
    # so ten points of truth are 7.88 of verdicts, at 0.0225 of the 0.025: 47 pairs without a flip pass.
    counts = JudgeCounts(n_right=983, n_right_passed=897, n_wrong=1091, n_wrong_failed=1017)
    gain = gain_interval(counts, confidence=0.995)
    assert gain.value == pytest.approx(897 / 983 + 1017 / 1091 - 1)
    assert gain.low == pytest.approx(0.78807, abs=1e-5)
    for n, passes in ((46, False), (47, True)):
        found = judged_margin_test([1.0] * n, [1.0] * n, counts, margin=0.1)
        assert (found.p_not_worse <= 0.025) is passes
        assert (found.interval.low > -0.1) is passes


def test_a_margin_test_by_a_judge_that_never_errs_differs_by_what_its_doubt_costs():
    a, b = [0.0] * 6 + [1.0] * 294, [1.0] * 298 + [0.0] * 2
    found = judged_margin_test(a, b, PERFECT, margin=0.05)
    plain = margin_test(a, b, margin=0.05, alpha=0.0225)
    assert found.p_not_worse == pytest.approx(plain.p_not_worse + 0.0025, abs=1e-4)
    assert (found.interval.low, found.interval.high) == pytest.approx(
        (plain.interval.low, plain.interval.high), abs=1e-4
    )
    assert found.interval.confidence == 0.95


def test_a_margin_test_by_a_coin_is_refused():
    coin = JudgeCounts(n_right=100, n_right_passed=55, n_wrong=100, n_wrong_failed=50)
    with pytest.raises(NotEnoughData, match="no better than chance"):
        judged_margin_test([1.0] * 50, [1.0] * 50, coin, margin=0.1)
