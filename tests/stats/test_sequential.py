"""Comparisons that stop early, alpha over retries, and bounds that hold together."""

import numpy as np
import pytest
from scipy import stats

from jettison.errors import InvalidInput, NotEnoughData
from jettison.stats.clustered import GroupSums, skew_corrected_p
from jettison.stats.planning import gate_passes
from jettison.stats.sequential import STAKES, MarginSequence
from jettison.stats.simultaneous import max_t_bounds
from jettison.stats.spending import alpha_over_all, alpha_share_of_reading


def test_readings_spend_half_of_the_one_before_and_at_most_twice_alpha_together():
    shares = [alpha_share_of_reading(k) for k in range(1, 60)]
    assert shares[:4] == [1, 0.5, 0.25, 0.125]
    assert 0.025 * sum(shares) <= alpha_over_all(0.025) == 0.05
    with pytest.raises(InvalidInput, match="counted from 1, got 0"):
        alpha_share_of_reading(0)


def test_unchanged_answers_ship_and_the_same_answers_in_one_batch_do_too():
    one, other = (MarginSequence(margin=0.03) for _ in range(2))
    n = 0
    while one.verdict is None and n < 1000:
        one.update(0.0)
        n += 1
    assert one.verdict == "SHIP"
    assert one.n == n
    # Half on a stake of 0.95: log(1 + 0.95 * 0.03 / 0.97) = 0.0290 each, and log(2/0.025) = 4.38: 152.
    assert 122 < n <= 152
    other.update(np.zeros(n))
    assert other.verdict == "SHIP"


def test_capital_by_hand():
    # Unchanged answers at margin 0.1 win 1 + s / 9 each on every stake s; a gain of 1 wins 1 + 11 s / 9.
    sequence = MarginSequence(margin=0.1, alpha=0.4)
    sequence.update([0.0, 0.0, 1.0])
    won = (1 + STAKES / 9) ** 2 * (1 + 11 * STAKES / 9) @ np.append(0.5, np.full(7, 0.5 / 7))
    assert float(np.exp(sequence._most[0])) == pytest.approx(won)
    assert sequence.verdict == ("SHIP" if won >= 2.5 else None)


def test_batches_change_no_digit():
    d = np.random.default_rng(0).choice([-1.0, 0.0, 1.0, 0.3], 500)
    whole, parts = MarginSequence(margin=0.05), MarginSequence(margin=0.05)
    whole.update(d)
    for value in d:
        parts.update(value)
    assert (whole._logs == parts._logs).all()
    assert (whole._most == parts._most).all()
    assert whole.n == parts.n == 500


def test_a_clear_loss_is_blocked_soon():
    sequence = MarginSequence(margin=0.02)
    sequence.update(np.tile([-1.0, 0, 0, 0], 25))
    assert sequence.verdict == "BLOCK"


def test_a_loss_of_just_the_margin_is_left_open():
    sequence = MarginSequence(margin=0.02)
    sequence.update(np.tile(np.append(-1.0, np.zeros(49)), 20))
    assert sequence.verdict is None


def test_differences_out_of_range_are_refused():
    with pytest.raises(InvalidInput, match=r"scores in \[0, 1\]"):
        MarginSequence(margin=0.1).update(1.5)
    with pytest.raises(InvalidInput, match=r"margin must be in \(0, 1\), got 0"):
        MarginSequence(margin=0)


def test_bounds_of_one_slice_are_the_one_sided_normal_ones():
    rng = np.random.default_rng(0)
    d = rng.choice([-1, 0, 1], 4000, p=[0.05, 0.9, 0.05])
    found = max_t_bounds(d, [np.ones(4000)], n_draws=20_000)
    error = d.std(ddof=1) / np.sqrt(4000)
    assert found.critical == pytest.approx(stats.norm.isf(0.025), abs=0.06)
    assert found.low[0] == pytest.approx(d.mean() - found.critical * error, rel=0.02)


def test_the_bound_of_one_slice_is_where_the_gates_own_skewness_correction_says():
    d = np.append(-np.ones(30), np.zeros(370))
    found = max_t_bounds(d, [np.ones(400)], n_draws=20_000)
    by_group = GroupSums(sums=d, weights=np.ones(400), n=400)
    level = stats.norm.sf(found.critical)
    assert skew_corrected_p(by_group, float(found.low[0])) == pytest.approx(level, rel=1e-3)
    assert found.low[0] < d.mean() - 1.1 * stats.norm.isf(0.025) * d.std() / 20


def test_bounds_of_many_slices_lie_between_one_and_bonferroni():
    rng = np.random.default_rng(1)
    d = rng.choice([-1, 0, 1], 4000, p=[0.05, 0.9, 0.05])
    slice_of = rng.integers(0, 10, 4000)
    apart = [slice_of == k for k in range(10)]
    alike = [np.arange(4000) < 3900 - k for k in range(10)]
    assert 2.6 < max_t_bounds(d, apart).critical <= stats.norm.isf(0.0025) + 0.15
    assert max_t_bounds(d, alike).critical < 2.25


def test_a_slice_in_which_nothing_varies_has_no_bound():
    d = np.append(np.zeros(50), np.tile([1, -1, 0], 10))
    with pytest.raises(NotEnoughData, match="slice 1 has 0 groups in which anything changed, needs 10"):
        max_t_bounds(d, [np.arange(80) > 3, np.arange(80) < 50])
    with pytest.raises(NotEnoughData, match="not all alike"):
        max_t_bounds(-np.ones(40), [np.ones(40)])
    with pytest.raises(InvalidInput, match=r"alpha 0\.025 needs at least 39 draws, got 20"):
        max_t_bounds(d, [np.ones(80)], n_draws=20)


def test_a_difference_may_be_as_large_as_the_ceiling():
    # One gain of 4 for three 0: their mean is 1, far above the margin, and no bet is lost for good.
    sequence = MarginSequence(margin=0.03, ceiling=4)
    sequence.update([4.0, 0.0, 0.0, 0.0] * 3)
    assert sequence.verdict == "SHIP"
    late = MarginSequence(margin=0.03, ceiling=4)
    late.update([4.0, *[-1.0] * 40])
    assert late.verdict == "BLOCK"
    with pytest.raises(InvalidInput, match="differences must be of scores in"):
        sequence.update([4.1])
    with pytest.raises(InvalidInput, match=r"ceiling must be 1 or more, got 0\.5"):
        MarginSequence(margin=0.03, ceiling=0.5)


def test_picking_by_what_was_shown_on_test_spends_more_than_readings_count():
    """Every candidate loses just the margin: 3 points of 1,000 examples, flips of 2 and 5 %.

    A nominee (0.8 of alpha) and a fallback (0.2) stand in the first reading; the second nominates one that
    was fixed before, or whichever of five shown in the first would pass.
    """
    rng = np.random.default_rng(0)
    b, c = np.moveaxis(rng.multinomial(1000, [0.02, 0.05, 0.93], (4000, 7))[..., :2], -1, 0)

    def passes(k: slice | int, alpha: float) -> np.ndarray:
        return gate_passes(b[:, k], c[:, k], 1000, margin=0.03, alpha=alpha)

    half = 0.025 * alpha_share_of_reading(2)
    first = passes(0, 0.02) | passes(1, 0.005)
    assert (first | passes(2, half)).mean() <= alpha_over_all(0.025)
    assert (first | passes(slice(2, 7), half).any(axis=1)).mean() > 1.2 * alpha_over_all(0.025)
