"""Coverage of a mean under shift, in the known simulation, for given and for fitted predictions."""

import numpy as np
import pytest
from scipy.stats import binomtest

import known_shift
from jettison.stats.shift import shifted_mean

pytestmark = pytest.mark.guarantee
N_RUNS = 400


@pytest.mark.parametrize("is_given", [True, False], ids=["predictor given", "predictor fitted"])
def test_the_interval_covers_the_truth(is_given: bool) -> None:
    rng = np.random.default_rng(1)
    covered = by_weights = 0
    rows = []
    for seed in range(N_RUNS):
        y, x, z = known_shift.draw(rng)
        predicted = (known_shift.predicted(x), known_shift.predicted(z)) if is_given else None
        found = shifted_mean(y, x, z, predicted=predicted, seed=seed)
        covered += found.interval.low <= known_shift.TRUTH <= found.interval.high
        by_weights += found.by_weights.low <= known_shift.TRUTH <= found.by_weights.high
        halves = [(one.high - one.low) / 2 for one in (found.interval, found.by_weights)]
        values = [found.labelled_mean, found.by_prediction, found.interval.value, found.by_weights.value]
        rows.append([*values, *halves, found.effective_n])
    labelled, alone, value, weighted, half, weighted_half, effective = np.mean(rows, axis=0)
    print(
        f"\ntruth {known_shift.TRUTH:.3f}, labelled {labelled:.3f}, predictions alone {alone:.3f}, "
        f"estimate {value:.3f}; coverage {covered / N_RUNS:.3f}, by weights {by_weights / N_RUNS:.3f}; "
        f"half widths {half:.3f} and {weighted_half:.3f}, by weights alone {weighted:.3f}, "
        f"effective n {effective:.0f}"
    )
    assert binomtest(covered, N_RUNS, 0.93, alternative="less").pvalue > 1e-2
    assert abs(value - known_shift.TRUTH) < 0.01
    # Known: .653 +- .081 by weights alone, effective n 157. Ours is wider by the jackknife and Student's t.
    assert abs(weighted - 0.653) < 0.01
    assert abs(weighted_half - 0.081) < 0.008
    assert abs(effective - 157) < 15
    assert half <= weighted_half
