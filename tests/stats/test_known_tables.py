"""Reference tables that no other test holds: false passes, clustered errors, predmix bounds, ranks."""

import numpy as np
import pytest
from scipy import stats

from jettison.stats.bernstein_sequence import EmpiricalBernsteinSequence
from jettison.stats.clustered import group_sums, standard_error
from jettison.stats.ltt import binomial_p, hoeffding_bentkus_p
from jettison.stats.paired import tango_z
from jettison.stats.planning import smallest_passing_n

Z = stats.norm.isf(0.025)
# A true loss of 3 points, the margin; n: bootstrap, Wald, Tango (20,000 simulations a cell).
HARM_ONLY = {
    30: (0.404, 0.404, 0.000),
    50: (0.213, 0.213, 0.000),
    100: (0.047, 0.195, 0.000),
    200: (0.056, 0.056, 0.016),
    500: (0.037, 0.069, 0.018),
    2000: (None, 0.034, 0.024),
}
MIXED = {
    30: (0.139, 0.006),
    50: (0.082, 0.007),
    100: (0.054, 0.021),
    200: (0.033, 0.022),
    500: (0.030, 0.023),
    2000: (0.027, 0.023),
}


@pytest.mark.parametrize("n", HARM_ONLY)
def test_false_passes_where_answers_are_only_lost(n: int) -> None:
    # Enumerated: the number lost is binomial, and the bootstrap's means are binomial around what was seen.
    lost = np.arange(n + 1)
    chance = stats.binom.pmf(lost, n, 0.03)
    bootstrap, wald, tango = HARM_ONLY[n]
    share = lost / n
    passes = -share - Z * np.sqrt(share * (1 - share) / n) > -0.03
    assert chance[passes].sum() == pytest.approx(wald, abs=0.008)
    assert chance[tango_z(0, lost, n, -0.03) >= Z].sum() == pytest.approx(tango, abs=0.004)
    if bootstrap is not None:  # at 2,000 the answer hangs on how a tie with the margin is taken
        drawn = stats.binom.ppf(0.975, n, share)
        assert chance[-drawn / n > -0.03].sum() == pytest.approx(bootstrap, abs=0.008)


@pytest.mark.parametrize("n", MIXED)
def test_false_passes_where_answers_are_lost_and_gained(n: int) -> None:
    # Enumerated over what is likely: 2 % gained, 5 % lost.
    most = int(stats.binom.isf(1e-9, n, 0.05)) + 1
    gained, lost = (grid.ravel() for grid in np.meshgrid(np.arange(most), np.arange(most)))
    there = gained + lost <= n
    gained, lost = gained[there], lost[there]
    chance = stats.multinomial.pmf(
        np.stack([gained, lost, n - gained - lost], axis=-1), n, [0.02, 0.05, 0.93]
    )
    wald, tango = MIXED[n]
    mean = (gained - lost) / n
    error = np.sqrt(((gained + lost) / n - mean**2) / n)
    assert chance[mean - Z * error > -0.03].sum() == pytest.approx(wald, abs=0.006)
    assert chance[tango_z(gained, lost, n, -0.03) >= Z].sum() == pytest.approx(tango, abs=0.004)


def test_the_clustered_error_is_that_of_a_regression_and_of_inspect() -> None:
    rng = np.random.default_rng(0)
    groups = rng.integers(0, 30, 400)
    a, b = rng.random((2, 400))
    d = a - b
    ours = standard_error(group_sums(a, b, groups=groups))
    # Intercept-only least squares with a cluster sandwich, written in matrices (statsmodels' CR1).
    x = np.ones((400, 1))
    bread = np.linalg.inv(x.T @ x)
    residual = d - x @ (bread @ x.T @ d)
    n_groups = len(np.unique(groups))
    scores = np.stack([x[groups == g].T @ residual[groups == g] for g in np.unique(groups)])
    factor = n_groups / (n_groups - 1) * (400 - 1) / (400 - 1)
    variance = factor * (bread @ scores.T @ scores @ bread).item()
    assert ours == pytest.approx(np.sqrt(variance), abs=1e-15)
    # Inspect's stderr(cluster=): every product of two residuals within a cluster, summed.
    total = sum(
        float(np.outer(d[groups == g] - d.mean(), d[groups == g] - d.mean()).sum())
        for g in np.unique(groups)
    )
    assert ours == pytest.approx(np.sqrt(total * n_groups / (n_groups - 1)) / 400, abs=1e-15)


X = np.array([1, 0, 1, 1, 0, 1, 0, 1, 1, 1] * 50, float)
CONFSEQ = {100: (0.5317, 0.8562), 200: (0.5798, 0.8116), 500: (0.6199, 0.7745)}


def predmix(x: np.ndarray, guesses: np.ndarray) -> tuple[float, float]:
    """The predictable-plug-in empirical-Bernstein bounds after the last value, each guess for one value."""
    count = np.arange(1, len(x) + 1)
    means = (0.5 + np.cumsum(x)) / (count + 1)
    before = np.append(0.25, (0.25 + np.cumsum((x - means) ** 2)) / (count + 1))[:-1]
    bets = np.minimum(np.sqrt(2 * np.log(2 / 0.05) / (before * count * np.log1p(count))), 0.5)
    losses = (x - guesses) ** 2 * (-np.log1p(-bets) - bets)
    center, half = np.cumsum(bets * x), np.log(2 / 0.05) + np.cumsum(losses)
    low, high = (center - half) / np.cumsum(bets), (center + half) / np.cumsum(bets)
    return float(low.max()), float(high.min())


@pytest.mark.parametrize("n", CONFSEQ)
def test_the_predmix_bounds_are_confseqs_but_for_what_the_first_value_is_guessed_to_be(n: int) -> None:
    count = np.arange(1, n + 1)
    # confseq guesses 0, then the mean so far; its upper bound is the lower one of the mirrored values.
    low, mirrored = (predmix(x, np.append(0.0, np.cumsum(x) / count)[:-1])[0] for x in (X[:n], 1 - X[:n]))
    assert (low, 1 - mirrored) == pytest.approx(CONFSEQ[n], abs=6e-5)
    shrunk = np.append(0.5, (0.5 + np.cumsum(X[:n])) / (count + 1))[:-1]
    ours = EmpiricalBernsteinSequence()
    ours.update(X[:n])
    assert (ours.interval().low, ours.interval().high) == pytest.approx(predmix(X[:n], shrunk), abs=1e-12)


def test_harm_allowed_by_each_way_to_certify() -> None:
    # 500 examples, epsilon 5 %, delta 10 %; of the row 3, 8, 12, 15, 17, 19, 22.
    row = (3, 8, 12, 15, 17, 19, 22)
    assert max(k for k in row if binomial_p(k, 500, 0.05) <= 0.1) == 17
    assert max(k for k in row if hoeffding_bentkus_p(k / 500, 500, 0.05) <= 0.1) == 15
    # Conformal risk control, which promises the mean alone, allows 24: (24 + 1) / 501 is under 5 %.
    assert binomial_p(24, 500, 0.05) > 0.4


@pytest.mark.parametrize(
    ("confidence", "floors"), [(0.95, (29, 59, 299, 2995)), (0.99, (44, 90, 459, 4603))]
)
def test_samples_that_a_bound_of_a_percentile_needs(confidence: float, floors: tuple[int, ...]) -> None:
    # p90, p95, p99, p99.9: the largest of n lies above the percentile but for a chance of share^n.
    found = tuple(smallest_passing_n(1 - p, alpha=1 - confidence) for p in (0.9, 0.95, 0.99, 0.999))
    assert found == floors
