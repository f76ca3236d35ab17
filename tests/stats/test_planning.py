"""How many examples are needed, chances to pass, and corrections for several claims."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jettison.errors import InvalidInput
from jettison.stats.multiplicity import holm, hommel
from jettison.stats.paired import paired_test
from jettison.stats.planning import (
    gate_passes,
    n_needed,
    n_needed_as_seen,
    pass_probability,
    smallest_certifiable_margin,
    smallest_passing_n,
)


def test_needed_examples_equal_the_planning_formula() -> None:
    # n = (1.960 + 0.842)^2 psi / m^2 at alpha 0.025 and power 0.8.
    assert [n_needed(psi, margin=0.02) for psi in (0.02, 0.05, 0.10)] == [393, 982, 1963]
    assert n_needed(0.02, margin=0.02, alpha=0.0025) == 666  # Holm's first step among ten slices


def test_no_number_of_examples_helps_a_loss_of_the_margin() -> None:
    assert n_needed(0.05, margin=0.01, difference=-0.01) is None


@pytest.mark.parametrize(
    ("beneficial", "harmful", "n", "margin", "alpha"),
    [
        (0, 1, 117, 0.05, 0.0125),
        (0, 2, 150, 0.05, 0.025),
        (1, 1, 300, 0.01, 0.025),
        (2, 4, 300, 0.02, 0.025),
        (5, 6, 600, 0.01, 0.0125),
        (0, 9, 500, 0.02, 0.025),
        (30, 35, 600, 0.02, 0.025),
    ],
)
def test_with_as_many_as_needed_the_gate_ships_four_times_of_five(beneficial, harmful, n, margin, alpha):
    shares = beneficial / n, harmful / n
    needed = n_needed_as_seen(*shares, margin=margin, alpha=alpha)
    assert needed is not None
    drawn = np.random.default_rng(0).multinomial(needed, [*shares, 1 - sum(shares)], 20_000)
    ships = gate_passes(drawn[:, 0], drawn[:, 1], needed, margin=margin, alpha=alpha).mean()
    assert 0.78 <= ships <= 0.89  # a flip more or less is a step in the power of few


def test_with_fewer_than_needed_the_gate_ships_less_often() -> None:
    shares, n = (0.0, 1 / 117), 130  # one harmful flip may be, two may not
    assert n < (n_needed_as_seen(*shares, margin=0.05, alpha=0.0125) or 0)
    drawn = np.random.default_rng(0).multinomial(n, [*shares, 1 - sum(shares)], 20_000)
    assert gate_passes(drawn[:, 0], drawn[:, 1], n, margin=0.05, alpha=0.0125).mean() < 0.75


def test_without_flips_as_many_are_needed_as_the_smallest_slice_that_passes() -> None:
    for margin in (0.01, 0.02, 0.05):
        least = smallest_passing_n(margin)  # the exact test spends 1e-4 besides
        assert n_needed_as_seen(0.0, 0.0, margin=margin) in (least, least + 1)


def test_a_sure_loss_needs_as_many_as_the_mirrored_gain() -> None:
    needed = n_needed_as_seen(0.15, 0.05, margin=-0.05, alpha=0.025)  # of a candidate that loses 10 points
    assert needed is not None
    drawn = np.random.default_rng(0).multinomial(needed, [0.05, 0.15, 0.8], 2000)
    blocked = [
        paired_test(int(b), int(c), needed, margin=0.05).p_worse <= 0.025 for b, c, _ in drawn.tolist()
    ]
    assert 0.76 <= np.mean(blocked) <= 0.86
    assert n_needed_as_seen(0.05, 0.05, margin=0.0) is None


def test_smallest_slices_follow_from_zero_harmful_flips() -> None:
    assert [smallest_passing_n(m) for m in (0.01, 0.02, 0.03, 0.05, 0.10)] == [368, 183, 122, 72, 36]
    assert smallest_certifiable_margin(368) <= 0.01 < smallest_certifiable_margin(367)
    with pytest.raises(InvalidInput, match=r"margin must be in \(0, 1\), got 0"):
        smallest_passing_n(0)


def test_the_quick_gate_decides_as_the_gate_does() -> None:
    b, c = (part.ravel() for part in np.meshgrid(np.arange(0, 21, 5), np.arange(0, 21, 4)))
    for n, margin in ((150, 0.05), (900, 0.02)):
        slow = [
            paired_test(int(i), int(j), n, margin=margin).p_not_worse <= 0.025
            for i, j in zip(b, c, strict=True)
        ]
        assert gate_passes(b, c, n, margin=margin, alpha=0.025).tolist() == slow


def test_the_chance_to_pass_falls_with_harm_and_rises_with_examples() -> None:
    chances = [pass_probability(3, c, 1000, n_test=2000, margin=0.01, n_draws=500) for c in (0, 8, 30)]
    assert chances[0] > chances[1] > chances[2]
    assert pass_probability(0, 5, 1000, n_test=300, margin=0.01) < 0.1
    assert pass_probability(0, 0, 1000, n_test=0, margin=0.01) == 0.0


def test_the_chance_to_pass_is_the_same_twice() -> None:
    first, second = (pass_probability(2, 9, 800, n_test=900, margin=0.02, seed=7) for _ in range(2))
    assert first == second


def test_impossible_dev_counts_are_refused() -> None:
    with pytest.raises(InvalidInput, match="at most n_dev = 5, got 3 beneficial and 3 harmful"):
        pass_probability(3, 3, 5, n_test=10, margin=0.01)


def test_holm_and_hommel_equal_r() -> None:
    # R: p.adjust(c(.01, .04, .03, .005), "holm"), "hommel".
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert hommel([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.04, 0.04, 0.02])
    assert hommel([0.3]) == pytest.approx([0.3])
    with pytest.raises(InvalidInput, match="numbers in 0-1"):
        holm([1.5])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_hommel_is_between_the_raw_p_values_and_holm(p_values: list[float]) -> None:
    raw, some, more = np.array(p_values), hommel(p_values), holm(p_values)
    assert (raw <= some + 1e-12).all()
    assert (some <= more + 1e-12).all()


@given(st.lists(st.floats(0, 1), min_size=2, max_size=6), st.floats(0.01, 0.2))
def test_hommel_is_closed_testing_with_simes(p_values: list[float], alpha: float) -> None:
    p, n = np.array(p_values), len(p_values)
    subsets = [[i for i in range(n) if mask >> i & 1] for mask in range(1, 2**n)]
    simes = {tuple(s): min(len(s) * np.sort(p[s]) / np.arange(1, len(s) + 1)) for s in subsets}
    by_hand = np.array([max(v for s, v in simes.items() if i in s) for i in range(n)])
    assert hommel(p_values) == pytest.approx(by_hand, abs=1e-12)
