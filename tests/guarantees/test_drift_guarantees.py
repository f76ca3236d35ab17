"""Drift on clean traffic: 1,000 windows alarm no more often than alpha says, for scores of any shape."""

import numpy as np
import pytest
from scipy.stats import binom

from jettison.monitor.detectors import open_detector
from jettison.stats.binomial import clopper_pearson

N_WINDOWS, N_REFERENCE, N_SCORES = 1000, 1000, 500
SHARES = {
    "even": np.full(20, 1 / 20),
    "one bin of most": np.array([0.9, *([0.1 / 9] * 9)]),
    "64 labels, long tail": (1 / np.arange(1, 65)) / (1 / np.arange(1, 65)).sum(),
    "two": np.array([0.98, 0.02]),
}


@pytest.mark.guarantee
@pytest.mark.parametrize("detector", ["conformal_martingale", "chi_squared"])
@pytest.mark.parametrize("shape", SHARES)
def test_clean_windows_alarm_at_most_at_the_stated_rate(detector: str, shape: str) -> None:
    alpha, shares, rng = 0.05, SHARES[shape], np.random.default_rng(0)
    n_alarms = 0
    for window in range(N_WINDOWS):
        made = open_detector(detector, rng.multinomial(N_REFERENCE, shares), alpha=alpha, seed=window)
        scores = rng.choice(len(shares), N_SCORES, p=shares)
        if detector == "chi_squared":
            made.update(scores)
            n_alarms += made.alarm
        else:  # looked at after each twenty: one alarm at any look is one
            looks = []
            for start in range(0, N_SCORES, 20):
                made.update(scores[start : start + 20])
                looks.append(made.alarm)
            n_alarms += any(looks)
    found = clopper_pearson(n_alarms, N_WINDOWS)
    print(
        f"{detector}, {shape}: {n_alarms / N_WINDOWS:.3f} ({found.low:.3f} to {found.high:.3f}) at {alpha}"
    )
    assert n_alarms <= int(binom.isf(1e-3, N_WINDOWS, alpha))
