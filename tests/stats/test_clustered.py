"""Means of paired differences with dependent examples, and the choice of their test."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest, t

from jettison.errors import InvalidInput, NotEnoughData
from jettison.stats.betting import (
    betting_p,
    copies_needed,
    groups_to_show,
    smallest_group_margin,
    unseen_loss_p,
)
from jettison.stats.clustered import (
    GroupSums,
    effective_groups,
    group_sums,
    margin_p,
    mean_difference_ci,
    sign_flip_p,
    skew_corrected_p,
)
from jettison.stats.group_jackknife import DIFFERENCE, ONE_SCORE
from jettison.stats.noninferiority import margin_test
from jettison.stats.planning import smallest_passing_n


def test_two_differences_give_the_interval_worked_by_hand() -> None:
    # Differences 0 and 2: mean 1, standard error 1, t with 1 degree = 12.706.
    found = mean_difference_ci([1, 3], [1, 1])
    assert (found.value, found.low, found.high) == pytest.approx((1, 1 - 12.7062, 1 + 12.7062), abs=1e-4)


def test_equal_clusters_give_the_cr1_error_of_an_intercept_only_regression() -> None:
    # Sums of residuals by group: differences (1, 1), (0, 1), (-1, 0), mean 1/3: 4/3, 1/3, -5/3.
    # CR1: 3/2 * (16 + 1 + 25) / 9 / 36 = 7/36.
    found = mean_difference_ci([1, 1, 0, 1, 0, 1], [0, 0, 0, 0, 1, 1], groups=list("aabbcc"))
    half = t.ppf(0.975, 2) * np.sqrt(7 / 36)
    assert (found.value, found.high - found.value) == pytest.approx((1 / 3, half))


def test_unequal_clusters_are_left_out_in_turn() -> None:
    # Sums of residuals by group: differences (1, 1), (0), (-1, 0), mean 0.2: 1.6, -0.2, -1.4, over 1 -
    # share (0.6, 0.8, 0.6): 8/3, -1/4, -7/3. Squares: 64/9 + 1/16 + 49/9; times 1 - 0.2, over 25.
    # Degrees: 5**2 / (4 + 1 + 4) - 1 = 16/9.
    found = mean_difference_ci([1, 1, 0, 0, 1], [0, 0, 0, 1, 1], groups=list("aabcc"))
    half = t.ppf(0.975, 16 / 9) * np.sqrt(0.8 * (64 / 9 + 1 / 16 + 49 / 9) / 25)
    assert (found.value, found.high - found.value) == pytest.approx((0.2, half))


def test_rare_changes_leave_a_doubt_where_scores_have_bounds() -> None:
    # 38 alike, k = t**2 / 2 made up at each end: t * sqrt(2 k) / (38 + 2 k), which is t**2 / (38 + t**2).
    same = np.ones(38)
    squared = t.ppf(0.975, 37) ** 2
    assert mean_difference_ci(same, same).high == 0
    found = mean_difference_ci(same, same, bounds=DIFFERENCE)
    assert (found.value, found.high) == pytest.approx((0, squared / (38 + squared)))
    # One share: t**2 / 2 at each end, the center of Agresti & Coull's interval; never beyond the scale.
    found = mean_difference_ci(same, 0 * same, bounds=ONE_SCORE)
    k = squared / 2
    middle, half = (38 + k) / (38 + 2 * k), t.ppf(0.975, 37) * np.sqrt(k) / (38 + 2 * k)
    assert (found.low, found.high) == pytest.approx((middle - half, 1.0))
    # Copies tell no more than their groups do: four of each are worth one.
    copied = mean_difference_ci(
        np.ones(152), np.zeros(152), groups=np.repeat(np.arange(38), 4), bounds=ONE_SCORE
    )
    assert copied.low == pytest.approx(found.low)


def test_the_interval_covers_and_ignoring_groups_does_not() -> None:
    rng = np.random.default_rng(0)
    hits = naive = 0
    for _ in range(400):
        groups = np.repeat(np.arange(40), 8)
        scores = rng.normal(size=40)[groups] + 0.3 * rng.normal(size=320)
        zero = np.zeros(320)
        found, loose = mean_difference_ci(scores, zero, groups=groups), mean_difference_ci(scores, zero)
        hits += found.low <= 0 <= found.high
        naive += loose.low <= 0 <= loose.high
    assert binomtest(hits, 400, 0.95).pvalue > 1e-4
    assert naive < 280


def test_weights_count_as_repetitions_of_a_group() -> None:
    one = mean_difference_ci([1, 0, 0], [0, 0, 1], weights=[2, 1, 3])
    other = mean_difference_ci([1, 1, 0, 0, 0, 0], [0, 0, 0, 1, 1, 1], groups=[0, 0, 1, 2, 2, 2])
    assert (one.value, one.low) == pytest.approx((other.value, other.low))


def test_sign_flips_of_three_equal_gains_give_one_in_eight() -> None:
    by_group = group_sums([1, 1, 1], [0, 0, 0])
    assert sign_flip_p(by_group, 0.0) == 1 / 8


def test_betting_with_no_harm_needs_little_more_than_the_exact_test() -> None:
    # Exact: 0.97**n <= 0.025 at n = 122. Half the stake on the boldest bet alone: n = 144.
    flat = np.ones(130)
    assert betting_p(group_sums(flat, flat), -0.03) <= 0.025
    assert betting_p(group_sums(flat[:121], flat[:121]), -0.03) > 0.025


def least_favorable(weights: np.ndarray, margin: float) -> np.ndarray:
    """Chance of each group to be lost whole that makes a loss of the margin likeliest to stay unseen."""
    low, high = 0.0, float(weights.max())
    while high - low > 1e-12 * high:
        level = (low + high) / 2
        lost = np.maximum(weights - level, 0).sum()
        low, high = (low, level) if lost < margin * weights.sum() else (level, high)
    return np.maximum(1 - high / weights, 0)


def test_groups_of_any_size_certify_nearly_what_no_test_can_beat() -> None:
    # Much like the products of the demo, 135 groups. A loss of 7 points may hide in the largest
    # groups: with some chance of each to be lost whole, none is seen lost in 2.5 % of all cases.
    counts = [1, 1, 2, 4, 2, 4, 20, 30, 30, 25, 16]
    sizes = np.repeat(np.array([39, 35, 31, 27, 24, 18, 12, 8, 5, 2, 1], float), counts)
    certified = smallest_group_margin(sizes)
    hidden = (1 - least_favorable(sizes, certified)).prod()
    assert 0.025 / 2 <= hidden <= 0.025
    # One group of 50 among 1,326: at level 50 / 40 every test misses (50 - 1.25) / 1,326, 3.68 points.
    assert smallest_group_margin(np.append(50.0, np.ones(1276))) == pytest.approx(0.0369, abs=1e-4)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 40), min_size=3, max_size=7), st.floats(0.05, 0.9), st.booleans())
def test_the_betting_p_value_holds_when_whole_groups_are_lost(
    sizes: list[int], margin: float, evenly: bool
) -> None:
    # Every way for groups to be lost, each with probability `margin` or as hides it best: exact.
    weights = np.array(sizes, float)
    chance = np.full(len(sizes), margin) if evenly else least_favorable(weights, margin)
    level = 0.0
    for ways in range(2 ** len(sizes)):
        lost = (ways >> np.arange(len(sizes)) & 1).astype(bool)
        p = betting_p(GroupSums(np.where(lost, -weights, 0.0), weights, n=len(sizes)), -margin)
        level += float(np.where(lost, chance, 1 - chance).prod()) * (p <= 0.025)
    assert level <= 0.025 + 1e-12


@settings(max_examples=20, deadline=None)
@given(
    st.lists(st.integers(1, 9), min_size=2, max_size=5),
    st.lists(st.floats(0, 1), min_size=15, max_size=15),
    st.floats(0.02, 0.9),
)
def test_wealth_is_not_expected_to_grow_under_the_hypothesis(
    sizes: list[int], shares: list[float], margin: float
) -> None:
    # Groups with a gain, nothing or a loss of any part, in any mix whose mean loss is at least the margin.
    weights, n = np.array(sizes, float), len(sizes)
    mix = np.array(shares[: 3 * n]).reshape(n, 3) + 1e-6
    mix /= mix.sum(axis=1, keepdims=True)
    values = np.array([0.5, 0.0, -1.0])
    loss = -float(weights @ (mix @ values)) / float(weights.sum())
    hypothesis = -min(margin, loss) if loss > 0 else 1e-3 - loss
    mean = 0.0
    for ways in itertools.product(range(3), repeat=n):
        sums = weights * values[list(ways)]
        wealth = np.exp(-np.log(betting_p(GroupSums(sums, weights, n=n), hypothesis)))
        chance = float(mix[np.arange(n), list(ways)].prod())
        mean += chance * (wealth if wealth > 1 else 0.0)  # p-values are cut at 1: a lower bound of the mean
    assert mean <= 1 + 1e-9


def test_copies_of_groups_in_which_nothing_changed_are_enough_and_no_more() -> None:
    weights, sums = np.full(40, 33.0), np.zeros(40)
    copies = copies_needed(GroupSums(sums, weights, n=1320), -0.01)
    assert copies is not None
    for n_groups, enough in ((math.ceil(copies * 40), True), (math.floor(copies * 40), False)):
        seen = GroupSums(np.zeros(n_groups), np.full(n_groups, 33.0), n=33 * n_groups)
        assert (betting_p(seen, -0.01) <= 0.025) == enough
    assert copies_needed(GroupSums(-weights, weights, n=1320), -0.01) is None


@pytest.mark.parametrize(
    ("lost", "gained", "n_groups", "size", "margin"),
    [(1, 0, 40, 33.0, 0.01), (4, 2, 60, 5.0, 0.03), (3, 6, 80, 1.0, 0.1)],
)
def test_groups_said_to_be_needed_pass_in_four_draws_of_five(
    lost: int, gained: int, n_groups: int, size: float, margin: float
) -> None:
    """Copies of the groups would do with fewer, and groups drawn like them then pass in about half."""
    sums = np.concatenate([np.full(lost, -1.0), np.ones(gained), np.zeros(n_groups - lost - gained)])
    weights = np.full(n_groups, size)
    copies = copies_needed(GroupSums(sums, weights, n=round(size * n_groups)), -margin)
    assert copies is not None
    needed = math.ceil(copies * n_groups)
    rng = np.random.default_rng(0)
    n_passed = 0
    for _ in range(300):
        drawn = rng.choice(sums, needed)
        seen = GroupSums(drawn, np.full(needed, size), n=round(size * needed))
        n_passed += betting_p(seen, -margin) <= 0.025
    assert 0.72 < n_passed / 300 < 0.9


def test_effective_groups_count_those_that_changed() -> None:
    scores = np.ones(100)
    assert effective_groups(group_sums(scores, scores)) == 0.0
    harmed = scores.copy()
    harmed[:5] = 0.0
    assert effective_groups(group_sums(harmed, scores)) == pytest.approx(5, rel=0.15)


def test_skewness_correction_leaves_symmetric_differences_nearly_alone() -> None:
    by_group = group_sums(np.tile([1.0, 0.0], 200), np.tile([0.0, 1.0], 200))
    assert skew_corrected_p(by_group, -0.08) == pytest.approx(margin_p(by_group, -0.08), rel=0.02)


@pytest.mark.parametrize(
    ("candidate", "baseline", "groups", "method"),
    [
        ([1, 0] * 20, [1, 1] * 20, None, "Tango score"),
        ([1, 1] * 20, [1, 1] * 20, None, "exact unconditional"),
        ([1, 1] * 20, [1, 1] * 20, list(range(20)) * 2, "betting, exact"),
        ([0.5, 0.2] * 20, [0.4, 0.3] * 20, None, "betting, exact"),
        ([1, 0] * 300, [0, 1] * 300, list(range(15)) * 40, "sign flips of groups"),
        ([1, 0, 1] * 100, [0, 1, 1] * 100, list(range(100)) * 3, "cluster-robust t, skewness corrected"),
        ([0.5, 0.2] * 200, [0.4, 0.3] * 200, None, "paired t, skewness corrected"),
    ],
)
def test_the_test_fits_the_data(
    candidate: list[float], baseline: list[float], groups: list[int] | None, method: str
) -> None:
    if groups is not None and method != "betting, exact":  # each group must differ, or nothing varies
        rng = np.random.default_rng(1)
        n = len(groups)
        candidate, baseline = rng.integers(0, 2, n).tolist(), rng.integers(0, 2, n).tolist()
    assert margin_test(candidate, baseline, margin=0.03, groups=groups).method == method


def test_a_group_with_over_a_tenth_of_the_examples_calls_for_betting() -> None:
    rng = np.random.default_rng(1)
    groups = np.append(np.zeros(50, int), np.arange(1, 351))
    candidate, baseline = rng.integers(0, 2, 400), rng.integers(0, 2, 400)
    assert margin_test(candidate, baseline, margin=0.03, groups=groups).method == "betting, exact"


def test_no_flips_in_clusters_never_read_as_certainty() -> None:
    same = np.ones(120)
    found = margin_test(same, same, margin=0.05, groups=np.repeat(np.arange(6), 20))
    assert found.p_not_worse > 0.5
    assert found.interval.low < -0.4


arrays = st.lists(
    st.tuples(st.integers(0, 1), st.integers(0, 1), st.integers(0, 30)), min_size=4, max_size=150
)


@settings(max_examples=25, deadline=None)
@given(arrays, st.randoms(use_true_random=False))
def test_order_of_examples_does_not_matter(rows: list[tuple[int, int, int]], random: object) -> None:
    if len({g for *_, g in rows}) < 2:
        return
    shuffled = list(rows)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    one, other = (
        margin_test(
            [r[0] for r in part], [r[1] for r in part], margin=0.05, groups=[r[2] for r in part]
        ).interval
        for part in (rows, shuffled)
    )
    assert (one.low, one.high) == pytest.approx((other.low, other.high), abs=1e-6)


@settings(max_examples=25, deadline=None)
@given(arrays)
def test_swapping_clustered_candidates_mirrors_the_interval(rows: list[tuple[int, int, int]]) -> None:
    if len({g for *_, g in rows}) < 2:
        return
    a, b, g = ([r[i] for r in rows] for i in range(3))
    one, other = margin_test(a, b, margin=0.05, groups=g), margin_test(b, a, margin=0.05, groups=g)
    assert one.interval.low == pytest.approx(-other.interval.high, abs=1e-6)


def test_bad_scores_are_refused_with_their_place() -> None:
    with pytest.raises(InvalidInput, match="must be finite, got nan at example 1"):
        mean_difference_ci([1.0, float("nan")], [1.0, 1.0])
    with pytest.raises(InvalidInput, match="must share one shape"):
        mean_difference_ci([1.0], [1.0, 1.0])
    with pytest.raises(InvalidInput, match=r"weights must be positive, got 0.0 at example 1"):
        mean_difference_ci([1.0, 1.0], [1.0, 1.0], weights=[1, 0])
    with pytest.raises(NotEnoughData, match="at least 2 groups, got 1"):
        mean_difference_ci([1.0, 1.0], [1.0, 0.0], groups=["a", "a"])
    with pytest.raises(NotEnoughData, match="scores outside 0-1 need about 10 groups"):
        margin_test([5.0, 5.0], [5.0, 4.0], margin=0.1)
    with pytest.raises(NotEnoughData, match="at least 1 example scored for both, got 0"):
        margin_test([], [], margin=0.1)


def test_of_groups_of_one_size_as_many_are_needed_as_of_single_examples() -> None:
    for margin in (0.01, 0.02, 0.05):
        assert groups_to_show(np.full(40, 7.0), margin) == smallest_passing_n(margin)
        assert unseen_loss_p(np.full(40, 7.0), margin) == pytest.approx((1 - margin) ** 40)


def test_unequal_groups_in_which_harm_could_hide_are_told_though_they_are_many() -> None:
    sizes = np.r_[np.full(15, 40), np.ones(900, int)]
    groups = np.repeat(np.arange(len(sizes)), sizes)
    rng = np.random.default_rng(0)
    lost = rng.random(len(groups))
    candidate, baseline = (lost >= 0.02).astype(float), (lost < 0.98).astype(float)
    test = margin_test(candidate, baseline, margin=0.05, groups=groups)
    assert test.n_groups == 915
    assert test.n_groups_to_show is not None
    assert test.n_groups_to_show > 1500
    alike = margin_test(candidate, baseline, margin=0.05, groups=np.arange(len(groups)) // 2)
    assert alike.n_groups_to_show is None


@pytest.mark.parametrize(
    ("n_heavy", "weight", "n_light", "margin"), [(15, 40, 900, 0.02), (12, 60, 400, 0.03)]
)
def test_heavy_examples_that_are_seldom_lost_do_not_ship_unseen(n_heavy, weight, n_light, margin) -> None:
    """At the margin, where the whole loss is in heavy examples, and light ones flip either way."""
    rng = np.random.default_rng(1)
    weights = np.r_[np.full(n_heavy, float(weight)), np.ones(n_light)]
    rate = margin * weights.sum() / (n_heavy * weight)
    n_shipped = 0
    for _ in range(300):
        flip = rng.random(len(weights))
        light = np.arange(len(weights)) >= n_heavy
        candidate = np.where(light, flip >= 0.03, flip >= rate).astype(float)
        baseline = np.where(light, flip < 0.97, True).astype(float)
        n_shipped += margin_test(candidate, baseline, margin=margin, weights=weights).p_not_worse <= 0.025
    assert (
        n_shipped <= 15
    )  # 5 %: at 2.5 % there would be 16 or more in one of 300 tests; t alone ships half


def test_scores_in_a_hundred_are_judged_as_scores_in_one() -> None:
    """A little lost everywhere, and one answer of fifty wholly, in none of these."""
    rng = np.random.default_rng(2)
    baseline = np.r_[rng.uniform(0.6, 0.99, 199), 1.0]
    candidate = np.clip(baseline - 0.005 + rng.uniform(-0.002, 0.002, 200), 0, 1)
    small = margin_test(candidate, baseline, margin=0.01)
    large = margin_test(100 * candidate, 100 * baseline, margin=1.0)
    assert small.p_not_worse > 0.025
    assert large.p_not_worse == pytest.approx(small.p_not_worse, rel=1e-6)


@pytest.mark.parametrize(
    ("n", "lost", "spread", "margin"),
    [(300, 0.004, 0.05, 0.01), (250, 0.0, 0.3, 0.02), (250, 0.002, 0.001, 0.01)],
)
def test_of_graded_scores_as_many_are_needed_as_pass_four_times_of_five(n, lost, spread, margin) -> None:
    """By noise, by both, and by what could be unseen alone."""
    rng = np.random.default_rng(5)

    def drawn(size: int) -> tuple[np.ndarray, np.ndarray]:
        baseline = rng.uniform(0.4, 0.6, size)
        return baseline - lost + rng.uniform(-spread, spread, size), baseline

    candidate, baseline = drawn(n)
    candidate = candidate - (candidate - baseline).mean() - lost  # what was seen is the truth
    test = margin_test(candidate, baseline, margin=margin)
    assert test.p_not_worse > 0.025
    assert test.n_groups_needed is not None

    def passed(size: int) -> float:
        p_values = [margin_test(*drawn(size), margin=margin).p_not_worse for _ in range(100)]
        return float(np.mean(np.array(p_values) <= 0.025))

    assert passed(test.n_groups_needed) >= 0.68
    assert passed(test.n_groups_needed // 2) < 0.65
