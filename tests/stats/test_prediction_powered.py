"""Prediction-powered means: the answers of ppi_py, and what must hold of any."""

import numpy as np
import pytest

from jettison.errors import NotEnoughData
from jettison.stats.prediction_powered import powered_mean

Y, F, EVERYONE = (1, 0, 1, 1, 0), (0.9, 0.2, 0.8, 0.6, 0.4), (0.7, 0.3, 0.9, 0.5, 0.1, 0.8)


def test_the_answers_of_ppi_py() -> None:
    plain, tuned = powered_mean(Y, F, EVERYONE).interval, powered_mean(Y, F, EVERYONE, tune=True).interval
    assert (plain.value, plain.low, plain.high) == pytest.approx((0.57, 0.233283, 0.906717), abs=1e-6)
    assert (tuned.value, tuned.low, tuned.high) == pytest.approx((0.577246, 0.242564, 0.911928), abs=1e-6)


def test_constant_predictions_give_the_classical_interval() -> None:
    found = powered_mean(Y, [0.5] * 5, [0.5] * 6).interval
    assert (found.low, found.high) == pytest.approx((0.170593, 1.029406), abs=1e-6)


def test_a_guarded_interval_is_no_certainty_where_all_labels_agree() -> None:
    right, sure = np.ones(30), np.full(30, 0.96)
    everyone = np.random.default_rng(0).beta(48, 2, 3000)
    plain = powered_mean(right, sure, everyone, tune=True).interval
    guarded = powered_mean(right, sure, everyone, tune=True, guarded=True).interval
    assert plain.high - plain.low < 0.02
    assert guarded.value == plain.value
    # Beside 30 residuals of one size r the invented -share and 1 spread by 2 r^2 and more.
    assert guarded.low < 0.95 < guarded.high
    by_hand = powered_mean(right, np.zeros(30), everyone, guarded=True).interval
    # Residuals are 30 ones, -1 and 1: variance (sum of squares 32 - 30^2 / 32) / 30^2, t with 29 degrees.
    assert everyone.var() / 3000 < 1e-5
    assert by_hand.high - by_hand.value == pytest.approx(
        2.0452 * np.sqrt((32 - 30**2 / 32) / 900), rel=0.01
    )


def test_weights_move_the_labels_to_another_population() -> None:
    # Half the labels weigh 3: (3 * 1 + 1 * 0) / 4.
    found = powered_mean([1, 0], [0.5, 0.5], [0.5, 0.5], weights=[3, 1])
    assert found.interval.value == pytest.approx(0.75)
    assert found.effective_labels == pytest.approx(16 / 10)


def test_one_label_is_not_enough() -> None:
    with pytest.raises(NotEnoughData, match="at least 2 labels and 2 predictions, got 1 and 6"):
        powered_mean([1], [0.5], EVERYONE)


def test_the_interval_covers_where_confidence_alone_is_off() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(300):
        f = rng.beta(6, 2, 3000)
        y = rng.random(3000) < 0.8 * f  # overconfident by a fifth
        drawn = rng.choice(3000, 200, replace=False)
        found = powered_mean(y[drawn], f[drawn], f, tune=True).interval
        covered += found.low <= 0.8 * 0.75 <= found.high
    assert covered / 300 > 0.91
