"""A loss that begins late: evidence by hand, the same in any pieces, found where the whole says nothing."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jettison.errors import InvalidInput
from jettison.stats.betting_sequence import BettingSequence
from jettison.stats.late_loss import BETS, BLOCK, LateLoss, weight_of


def test_wealth_is_what_every_block_s_gambler_has_by_hand() -> None:
    rng = np.random.default_rng(0)
    values = rng.choice([-1.0, 0.0, 1.0], size=3 * BLOCK)
    watch = LateLoss(alpha=0.05, limit=-0.1)
    watch.update(values)
    wealths = []
    for end in (1, 2, 3):
        each = [
            sum(
                weight_of(b) * np.prod(1 + bet * (-0.1 - values[b * BLOCK : end * BLOCK]) / 1.1)
                for b in range(end)
            )
            for bet in BETS
        ]
        wealths.append(np.mean(each))
    assert float(watch.log_e) == pytest.approx(np.log(max(wealths)))


def test_the_parts_of_all_beginnings_are_one_whole() -> None:
    assert sum(weight_of(block) for block in range(2**20 - 1)) == pytest.approx(1 - 1 / np.log2(2**20 + 1))


@given(st.integers(0, 2**31), st.lists(st.integers(0, 700), max_size=8))
@settings(deadline=None, max_examples=40)
def test_pieces_and_restarts_change_no_digit(seed: int, cuts: list[int]) -> None:
    rng = np.random.default_rng(seed)
    values, reach = rng.choice([-2.0, -0.3, 0.0, 1.1], size=700), rng.choice([2.0, 4.0], size=700)
    whole, pieces = LateLoss(alpha=0.01, limit=-0.02), LateLoss(alpha=0.01, limit=-0.02)
    whole.update(values, low=-reach, high=reach)
    bounds = [0, *sorted(cuts), 700]
    for start, stop in pairwise(bounds):
        pieces.update(values[start:stop], low=-reach[start:stop], high=reach[start:stop])
        pieces = LateLoss.from_state(pieces.state())
    assert pieces.state() == whole.state()
    many = LateLoss(alpha=0.01, limit=-0.02, streams=(2,))
    many.update(np.stack([values, -values]), low=-4.0, high=4.0)
    alone = LateLoss(alpha=0.01, limit=-0.02)
    alone.update(values, low=-4.0, high=4.0)
    assert many.log_e[0] == alone.log_e


def test_a_late_loss_is_found_where_all_the_good_before_it_hides_it() -> None:
    rng = np.random.default_rng(0)
    good, lost = rng.choice([-1.0, 0.0, 1.0], p=[0.02, 0.96, 0.02], size=50_000), []
    watch = LateLoss(alpha=0.005, limit=0.0)
    whole = BettingSequence(alpha_high=0.025, means=[0.5])
    watch.update(good)
    whole.update((good + 1) / 2)
    assert not watch.is_found
    while not watch.is_found:
        lost.append(rng.choice([-1.0, 0.0, 1.0], p=[0.05, 0.93, 0.02], size=BLOCK))
        watch.update(lost[-1])
        whole.update((lost[-1] + 1) / 2)
        assert len(lost) < 80
    assert not whole.is_above[0]
    assert abs(int(watch.since) - 50_000) < 2_000


def test_values_outside_their_range_are_refused() -> None:
    watch = LateLoss(alpha=0.05, limit=0.0)
    with pytest.raises(InvalidInput, match="inside their range"):
        watch.update([1.5])
    with pytest.raises(InvalidInput, match="under the greatest value"):
        watch.update([0.0], low=-1.0, high=0.0)
    with pytest.raises(InvalidInput, match="alpha must be in"):
        LateLoss(alpha=1.0, limit=0.0)
