"""The difference of two macro F1s against its definition; coverage stands in `tests/guarantees`."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import t

from jettison.errors import NotEnoughData
from jettison.stats import macro_f1
from jettison.stats.classification import coded_macro_f1
from jettison.stats.macro_f1 import macro_f1_difference_ci

Rows = list[tuple[int, int, int, int]]
ROWS = st.lists(
    st.tuples(st.integers(0, 2), st.integers(0, 3), st.integers(0, 3), st.integers(0, 4)),
    min_size=6,
    max_size=40,
).filter(lambda rows: len({row[3] for row in rows}) > 1)


def difference(rows: np.ndarray) -> float:
    return coded_macro_f1(rows[:, 0], rows[:, 2], 3) - coded_macro_f1(rows[:, 0], rows[:, 1], 3)


@settings(max_examples=60, deadline=None)
@given(ROWS, st.sampled_from([1, 15, 10_000]))
def test_every_group_is_left_out_in_turn(drawn: Rows, at_once: int) -> None:
    rows = np.array(drawn)
    _, group_of = np.unique(rows[:, 3], return_inverse=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(macro_f1, "AT_ONCE", at_once)  # however many groups are counted at a time
        found = np.concatenate(
            list(macro_f1._left_out(rows[:, :3], group_of, rows[:, :3], group_of.max() + 1, 3))
        )
    wanted = [difference(rows[group_of != g]) for g in range(group_of.max() + 1)]
    np.testing.assert_allclose(found, wanted, atol=1e-12)
    interval = macro_f1_difference_ci(*rows[:, :3].T, n_labels=3, group_of=group_of)
    assert interval.value == pytest.approx(difference(rows))
    assert -1 <= interval.low <= interval.value <= interval.high <= 1


def test_alone_and_equal_it_is_the_interval_of_a_mean() -> None:
    # Two classes of 20; B changes 6 wrong answers into no answer's worth of others: leave-one-out by hand.
    rng = np.random.default_rng(0)
    expected = np.repeat([0, 1], 20)
    a = np.where(rng.random(40) < 0.8, expected, 1 - expected)
    b = np.where(rng.random(40) < 0.9, expected, 1 - expected)
    rows = np.stack([expected, a, b], axis=1)
    value = coded_macro_f1(expected, b, 2) - coded_macro_f1(expected, a, 2)
    left = np.array(
        [
            coded_macro_f1(*np.delete(rows, i, 0)[:, [0, 2]].T, 2)
            - coded_macro_f1(*np.delete(rows, i, 0)[:, [0, 1]].T, 2)
            for i in range(40)
        ]
    )
    variance, quantile = 39 / 40 * ((value - left) ** 2).sum(), t.ppf(0.975, 39)
    k = quantile**2 / 2
    half = quantile * np.sqrt(40**2 * variance + 2 * k * (1 + value**2)) / (40 + 2 * k)
    found = macro_f1_difference_ci(expected, a, b, n_labels=2, group_of=np.arange(40))
    middle = 40 * value / (40 + 2 * k)
    assert (found.low, found.high) == pytest.approx((middle - half, middle + half))


def test_members_that_share_their_luck_make_it_wider() -> None:
    rng = np.random.default_rng(1)
    group_of = np.repeat(np.arange(30), 10)
    expected = rng.integers(0, 3, 30)[group_of]
    a, b = ((expected + (rng.random(30) < 0.2)[group_of]) % 3 for _ in "ab")
    whole = macro_f1_difference_ci(expected, a, b, n_labels=3, group_of=group_of)
    alone = macro_f1_difference_ci(expected, a, b, n_labels=3, group_of=np.arange(300))
    assert whole.high - whole.low > 2 * (alone.high - alone.low)


def test_one_group_tells_of_no_spread() -> None:
    with pytest.raises(NotEnoughData, match="at least 2 groups, got 1"):
        macro_f1_difference_ci(*np.zeros((3, 5), int), n_labels=1, group_of=np.zeros(5, int))
