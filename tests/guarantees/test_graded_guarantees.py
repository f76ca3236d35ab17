"""What the gate promises of graded scores, and the intervals of judges that err, shown by simulation."""

from collections.abc import Callable

import numpy as np
import pytest
from scipy.stats import binomtest

from jettison.errors import NotEnoughData
from jettison.stats.judged import (
    JudgeCounts,
    corrected_difference,
    corrected_share,
    prediction_powered_mean,
)
from jettison.stats.noninferiority import margin_test

pytestmark = pytest.mark.guarantee
DRAWS = 1000
DOUBT = 1e-4
ALPHA = 0.025


def rare_falls(rest: float, spread: float) -> Callable[[np.random.Generator, int, float], np.ndarray]:
    """Differences about `rest` (in margins), and as many falls to -1 as make the loss the margin."""

    def drawn(rng: np.random.Generator, n: int, margin: float) -> np.ndarray:
        around = rest * margin
        falls = rng.random(n) < (margin + around) / (1 + around)
        return np.where(falls, -1.0, around + rng.uniform(-spread, spread, n))

    return drawn


def word_f1(rng: np.random.Generator, n: int, margin: float) -> np.ndarray:
    """Three in ten answers changed either way, and as many lost as make the loss the margin."""
    grades, shares = [0, 0.3, 0.5, 0.67, 0.8, 1], [0.15, 0.05, 0.1, 0.1, 0.1, 0.5]
    before, after = rng.choice(grades, n, p=shares), rng.choice(grades, n, p=shares)
    changed = rng.random(n) < 0.3
    lost = rng.random(n) < margin / (0.7 * float(np.dot(grades, shares)))
    return np.where(changed, after - before, np.where(lost, -before, 0.0))


@pytest.mark.parametrize(
    ("differences", "n", "margin"),
    [
        (rare_falls(0, 0.01), 200, 0.01),
        (rare_falls(-0.5, 0.002), 100, 0.03),
        (rare_falls(-0.5, 0.002), 200, 0.01),
        (rare_falls(-0.5, 0.002), 500, 0.01),
        (rare_falls(2, 0.005), 1000, 0.01),
        (word_f1, 60, 0.1),
        (word_f1, 300, 0.02),
        (word_f1, 1000, 0.01),
    ],
)
def test_the_gate_on_graded_scores_errs_at_most_alpha(differences, n, margin):
    rng = np.random.default_rng(1)
    n_shipped = 0
    for _ in range(DRAWS):
        d = differences(rng, n, margin)
        test = margin_test(np.maximum(d, 0), np.maximum(-d, 0), margin=margin, alpha=ALPHA)
        n_shipped += test.p_not_worse <= ALPHA
    print(f"{n_shipped / DRAWS:.4f} shipped at the margin, n = {n}")
    assert binomtest(n_shipped, DRAWS, ALPHA, alternative="greater").pvalue > DOUBT


def measured(rng: np.random.Generator, sens: float, spec: float, n: int) -> JudgeCounts:
    return JudgeCounts(
        n_right=n,
        n_right_passed=int(rng.binomial(n, sens)),
        n_wrong=n,
        n_wrong_failed=int(rng.binomial(n, spec)),
    )


def covers(n_hits: int, n: int) -> bool:
    print(f"{n_hits / n:.4f} of {n} intervals cover")
    return bool(binomtest(n_hits, n, 0.95, alternative="less").pvalue > DOUBT)


@pytest.mark.parametrize(
    ("share", "sens", "spec", "n", "n_labelled"),
    [
        (0.7, 0.9, 0.8, 300, 50),
        (0.9, 0.95, 0.9, 500, 100),
        (0.95, 0.9, 0.7, 300, 30),
        (0.2, 0.8, 0.8, 200, 40),
    ],
)
def test_a_corrected_share_covers_the_truth(share, sens, spec, n, n_labelled):
    rng = np.random.default_rng(2)
    n_hits = n_given = n_naive = 0
    for _ in range(2 * DRAWS):
        n_right = int(rng.binomial(n, share))
        n_passed = int(rng.binomial(n_right, sens) + rng.binomial(n - n_right, 1 - spec))
        try:
            found = corrected_share(n_passed, n, measured(rng, sens, spec, n_labelled))
        except NotEnoughData:
            continue
        n_given += 1
        n_hits += found.low <= share <= found.high
        half = 1.96 * np.sqrt(n_passed * (n - n_passed) / n**3)
        n_naive += abs(n_passed / n - share) <= half
    assert covers(n_hits, n_given)
    assert n_naive < n_hits


@pytest.mark.parametrize(
    ("beneficial", "harmful", "sens", "spec", "n", "n_labelled"),
    [
        (0.02, 0.05, 0.9, 0.8, 300, 50),
        (0.05, 0.2, 0.9, 0.8, 300, 50),
        (0.0, 0.03, 0.95, 0.95, 200, 100),
        (0.01, 0.3, 0.8, 0.75, 500, 40),
    ],
)
def test_a_corrected_difference_covers_the_truth(beneficial, harmful, sens, spec, n, n_labelled):
    rng = np.random.default_rng(3)
    truth, n_hits, n_given = beneficial - harmful, 0, 0
    for _ in range(DRAWS):
        kind = rng.choice(4, n, p=[beneficial, harmful, 0.5, 0.5 - beneficial - harmful])
        candidate, baseline = np.isin(kind, (0, 2)), np.isin(kind, (1, 2))
        said = [
            np.where(right, rng.random(n) < sens, rng.random(n) > spec).astype(float)
            for right in (candidate, baseline)
        ]
        try:
            found = corrected_difference(*said, measured(rng, sens, spec, n_labelled))
        except NotEnoughData:
            continue
        n_given += 1
        n_hits += found.low <= truth <= found.high
    assert covers(n_hits, n_given)


@pytest.mark.parametrize("tuned", [True, False])
@pytest.mark.parametrize(("n_labelled", "share"), [(30, 0.9), (50, 0.5), (100, 0.97), (300, 0.8)])
def test_a_prediction_powered_mean_covers_the_truth(n_labelled, share, tuned):
    rng = np.random.default_rng(4)
    n_hits = 0
    for _ in range(2 * DRAWS):
        truth = rng.random(n_labelled + 500) < share
        judged = np.where(rng.random(len(truth)) < 0.85, truth, ~truth).astype(float)
        labels = truth[:n_labelled].astype(float)
        found = prediction_powered_mean(labels, judged[:n_labelled], judged[n_labelled:], tuned=tuned)
        n_hits += found.low <= share <= found.high
    assert covers(n_hits, 2 * DRAWS)
