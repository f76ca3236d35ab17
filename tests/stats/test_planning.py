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
