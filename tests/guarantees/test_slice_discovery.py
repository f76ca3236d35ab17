"""Found slices are real: most reports hit what was planted, and nothing is reported where nothing is."""

import numpy as np
import pytest
from scipy.stats import binomtest

from jettison.evaluate.suites.discover import discover_slices
from planted import losses, plant, requests

pytestmark = pytest.mark.guarantee
N = 6000
N_PLANTINGS, N_NULL = 50, 100


def test_planted_slices_are_found_with_precision_above_80_percent() -> None:
    examples = requests(N)
    n_reports = n_hits = n_found = 0
    for seed in range(N_PLANTINGS):
        planted = plant(examples, seed=seed)
        found = discover_slices(examples, planted.loss, seed=seed).found
        hits = [planted.member[list(one.members)].mean() > 0.5 for one in found]
        n_reports, n_hits, n_found = n_reports + len(hits), n_hits + sum(hits), n_found + any(hits)
    print(f"\nreports {n_reports}, of them in the planted slice {n_hits}: {n_hits / n_reports:.2f}")
    print(f"plantings found {n_found} of {N_PLANTINGS}")
    assert n_hits / n_reports >= 0.8
    assert n_found >= 0.6 * N_PLANTINGS


def test_nothing_is_reported_where_no_slice_loses_more() -> None:
    examples = requests(N)
    rng = np.random.default_rng(1)
    loud = sum(bool(discover_slices(examples, losses(N, rng), seed=i).found) for i in range(N_NULL))
    print(f"\nfalse reports in {loud} of {N_NULL} searches")
    assert binomtest(loud, N_NULL, 0.05, alternative="greater").pvalue > 1e-4
