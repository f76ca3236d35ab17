"""Curves of calibration, by hand."""

import numpy as np
import pytest

from jettison.errors import InvalidInput
from jettison.stats.reliability import reliability, risk_coverage


def test_bins_hold_equally_many_answers_with_their_intervals():
    confidence = np.repeat([0.55, 0.95], 20)
    correct = np.append(np.tile([1, 0], 10), np.ones(20))
    low, high = reliability(confidence, correct, n_bins=2)
    assert (low.confidence, low.right_share, low.n) == (pytest.approx(0.55), 0.5, 20)
    assert (low.low, low.high) == (pytest.approx(0.299, abs=1e-3), pytest.approx(0.701, abs=1e-3))
    assert high.right_share == 1
    assert not low.is_off
    assert not high.is_off
    assert reliability(np.full(200, 0.99), np.tile([1, 0], 100), n_bins=1)[0].is_off


def test_ties_are_one_bin_whatever_the_order_of_the_file():
    (only,) = reliability(np.full(100, 0.7), np.append(np.ones(70), np.zeros(30)))
    assert (only.n, only.right_share, only.is_off) == (100, 0.7, False)


def test_risk_grows_with_coverage_and_ties_stay_together():
    points = risk_coverage([0.9, 0.8, 0.8, 0.6], [1, 1, 0, 0])
    assert [(p.coverage, p.risk, p.threshold) for p in points] == [
        (0.25, 0.0, 0.9),
        (0.75, pytest.approx(1 / 3), 0.8),
        (1.0, 0.5, 0.6),
    ]


def test_what_is_no_confidence_is_refused():
    with pytest.raises(InvalidInput, match="must be in 0-1"):
        reliability([1.2], [1])
