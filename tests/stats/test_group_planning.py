"""Chances to pass with grouped examples."""

import numpy as np
import pytest

from jettison.errors import InvalidInput
from jettison.stats.clustered import GroupSums, group_sums
from jettison.stats.group_planning import pass_probability_by_group
from jettison.stats.noninferiority import margin_test, ships_by_group
from jettison.stats.planning import pass_probability


def dev_of(n_groups: int, size: int, harmed_groups: int = 0) -> GroupSums:
    """Groups of one size; some are lost whole."""
    weights = np.full(n_groups, float(size))
    sums = np.zeros(n_groups)
    sums[:harmed_groups] = -size
    return GroupSums(sums, weights, n=n_groups * size)


def test_the_quick_gate_by_group_decides_as_the_gate_does() -> None:
    rng = np.random.default_rng(3)
    verdicts = set()
    for n_groups in (6, 12, 40, 150):
        for harm in (0.0, 0.02, 0.1):
            groups = np.repeat(np.arange(n_groups), 5)
            candidate = (rng.random(len(groups)) > harm).astype(float)
            baseline = (rng.random(len(groups)) > 0.02).astype(float)
            quick = ships_by_group(group_sums(candidate, baseline, groups=groups), margin=0.1)
            slow = margin_test(candidate, baseline, margin=0.1, groups=groups).p_not_worse <= 0.025
            assert quick == slow
            verdicts.add(quick)
    assert verdicts == {True, False}


def test_no_flip_in_few_groups_gives_no_chance_where_single_examples_would_pass() -> None:
    assert pass_probability(0, 0, 1326, n_test=1326, margin=0.01) > 0.9
    assert pass_probability_by_group(dev_of(40, 33), n_test=1320, margin=0.01) == 0.0
    assert pass_probability_by_group(dev_of(400, 5), n_test=5000, margin=0.01) > 0.9


def test_flips_that_came_together_pass_less_often_than_as_many_alone() -> None:
    # 20 of 2,000 lost: as single examples within 2 points, as two whole groups of ten not safely.
    alone = pass_probability(0, 20, 2000, n_test=2000, margin=0.02)
    together = pass_probability_by_group(dev_of(200, 10, harmed_groups=2), n_test=2000, margin=0.02)
    assert alone > 0.7
    assert together < alone - 0.3


def test_the_predicted_chance_by_group_comes_true() -> None:
    # 300 groups of four, lost whole at a rate drawn as the prior has it, dense near zero. Prediction and
    # verdict depend on the number lost alone, so that both are worked out once for each number.
    rng = np.random.default_rng(4)
    lost = rng.binomial(300, 0.05 * rng.random(4000) ** 2, (2, 4000))
    seen = range(int(lost.max()) + 1)
    chance = [
        pass_probability_by_group(dev_of(300, 4, k), n_test=1200, margin=0.03) if k < 12 else 0.0
        for k in seen
    ]
    ships = np.array([ships_by_group(dev_of(300, 4, k), margin=0.03) for k in seen])
    told, came = np.array(chance)[lost[0]], ships[lost[1]]
    for low, high in ((0.0, 0.33), (0.33, 1.01)):
        here = (told >= low) & (told < high)
        assert told[here].mean() == pytest.approx(came[here].mean(), abs=0.1)


def test_a_prediction_is_the_same_twice() -> None:
    first, second = (
        pass_probability_by_group(dev_of(300, 4, 1), n_test=1200, margin=0.03, n_draws=40, seed=7)
        for _ in range(2)
    )
    assert first == second


def test_dev_without_a_group_is_refused() -> None:
    with pytest.raises(InvalidInput, match="at least 1 group of dev, got 0"):
        pass_probability_by_group(GroupSums(np.array([]), np.array([]), n=0), n_test=5, margin=0.1)
    assert pass_probability_by_group(dev_of(3, 2), n_test=0, margin=0.1) == 0.0
