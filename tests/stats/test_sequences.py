"""Confidence sequences and mixtures: known answers, any batches, restarts to the last digit."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from jettison.errors import InvalidInput, NotEnoughData
from jettison.stats.bernstein_sequence import EmpiricalBernsteinSequence, arm_increments
from jettison.stats.betting_sequence import BettingSequence
from jettison.stats.mixtures import (
    asymptotic_sequence,
    normal_mixture_bound,
    normal_mixture_log_e,
    normal_mixture_rho,
    quantile_ranks,
    sample_ratio_log_e,
    share_sequence,
)

X = np.array([1, 0, 1, 1, 0, 1, 0, 1, 1, 1] * 50, float)
CONFSEQ_BETTING = {100: (0.547, 0.827), 200: (0.586, 0.799), 500: (0.622, 0.771)}
VILLE_BETTING = {100: (0.5479, 0.8265), 200: (0.587, 0.7989), 500: (0.6225, 0.7707)}
CONFSEQ_BERNSTEIN = {100: (0.5317, 0.8562), 200: (0.5798, 0.8116), 500: (0.6199, 0.7745)}
BETA = {100: (0.5428, 0.8306), 200: (0.5866, 0.799), 500: (0.6264, 0.7672)}
ASYMPTOTIC = {100: (0.5458, 0.8542), 200: (0.5988, 0.8012), 500: (0.6378, 0.7622)}


@pytest.mark.parametrize("n", [100, 200, 500])
def test_betting_equals_confseq_and_ville(n: int) -> None:
    coarse, fine = BettingSequence(), BettingSequence(means=np.linspace(0, 1, 20001))
    coarse.update(X[:n])
    fine.update(X[:n])
    found = coarse.interval()
    assert (found.low, found.high) == pytest.approx(CONFSEQ_BETTING[n], abs=1e-9)
    found = fine.interval()
    assert (found.low, found.high) == pytest.approx(VILLE_BETTING[n], abs=1e-4)


@pytest.mark.parametrize("n", [100, 200, 500])
def test_empirical_bernstein_is_near_confseq_which_starts_from_another_imagined_value(n: int) -> None:
    found = EmpiricalBernsteinSequence()
    found.update(X[:n])
    interval = found.interval()
    assert (interval.low, interval.high) == pytest.approx(CONFSEQ_BERNSTEIN[n], abs=0.006)


def test_empirical_bernstein_by_hand() -> None:
    # One value 1 with guess 1/2: bet 1/2, loss (1/2)^2 (log 2 - 1/2), half (log 40 + loss) / (1/2).
    found = EmpiricalBernsteinSequence()
    found.update([1.0])
    loss = 0.25 * (math.log(2) - 0.5)
    half = (math.log(40) + loss) / 0.5
    assert (found.interval().low, found.interval().high) == pytest.approx((1 - half, 1 + half))


@pytest.mark.parametrize("n", [100, 200, 500])
def test_mixture_sequences_by_their_known_answers(n: int) -> None:
    beta, asymptotic = share_sequence(int(X[:n].sum()), n), asymptotic_sequence(X[:n])
    assert (beta.low, beta.high) == pytest.approx(BETA[n], abs=1e-4)
    assert (asymptotic.low, asymptotic.high) == pytest.approx(ASYMPTOTIC[n], abs=1e-4)


def test_normal_mixture_equals_the_reference_of_confseq() -> None:
    rho = normal_mixture_rho(100, 0.05)
    assert rho == pytest.approx(12.60056, abs=1e-5)
    assert normal_mixture_bound(100, rho, 0.05) == pytest.approx(30.35209, abs=1e-5)
    one_sided = normal_mixture_rho(100, 2 * 0.05)
    assert normal_mixture_bound(100, one_sided, 0.05, one_sided=True) == pytest.approx(27.66071, abs=1e-5)
    assert normal_mixture_log_e(10, 100, rho) == pytest.approx(-0.6510052, abs=1e-7)


def test_the_msprt_is_the_normal_mixture() -> None:
    # L_n = sqrt(s2/(s2+n tau2)) exp(n^2 tau2 x^2 / (2 s2 (s2+n tau2))), with s2 = 1, tau2 = 1/rho.
    n, mean, rho = 50, 0.3, 20.0
    tau2 = 1 / rho
    by_hand = 0.5 * math.log(1 / (1 + n * tau2)) + n**2 * tau2 * mean**2 / (2 * (1 + n * tau2))
    assert normal_mixture_log_e(n * mean, n, rho) == pytest.approx(by_hand)


def test_sample_ratio_by_its_known_answers() -> None:
    # Kohavi et al.: 821,588 against 815,482 at 50/50.
    counts = [821_588, 815_482]
    for strength, log_e in ((2, 4.459), (100, 6.532), (1e4, 8.766), (1e5, 9.304)):
        found = sample_ratio_log_e(counts, [0.5, 0.5], strength=strength)
        assert found == pytest.approx(log_e, abs=5e-4)
    assert sample_ratio_log_e([70, 30], [0.5, 0.5], strength=2) == pytest.approx(6.0575, abs=5e-5)
    chi2 = stats.chisquare(counts)
    assert (chi2.statistic, chi2.pvalue) == pytest.approx((22.774, 1.8e-6), rel=0.02)
    with pytest.raises(InvalidInput, match="shares must be positive and sum to 1"):
        sample_ratio_log_e([1, 2], [0.5, 0.4])


def test_an_asymptotic_sequence_is_refused_where_it_errs() -> None:
    with pytest.raises(NotEnoughData, match="at least 50 values other than 0, got 49"):
        asymptotic_sequence([1.0] * 49 + [0.0] * 5000)


def test_quantile_ranks_hold_the_quantile_and_tighten() -> None:
    assert quantile_ranks(10, 0.5, alpha=0.05) == (0, 11)  # nothing is known yet
    low, high = quantile_ranks(1000, 0.95, alpha=0.05)
    assert low < 950 < high <= 1000
    wider = quantile_ranks(1000, 0.95, alpha=0.001)
    assert wider[0] < low
    assert wider[1] > high
    # By hand at n = 1: B(a+1, b)/B(a, b)/p = 1 whatever comes, far from 1/alpha.
    assert quantile_ranks(1, 0.5, alpha=0.05) == (0, 2)


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.floats(0, 1), min_size=2, max_size=60),
    st.lists(st.integers(1, 59), max_size=4),
    st.booleans(),
)
def test_batches_and_restarts_change_no_digit(
    values: list[float], cuts: list[int], bernstein: bool
) -> None:
    def made() -> BettingSequence | EmpiricalBernsteinSequence:
        return EmpiricalBernsteinSequence() if bernstein else BettingSequence(means=np.linspace(0, 1, 41))

    whole, parts = made(), made()
    whole.update(values)
    for part in np.split(np.array(values), sorted(set(cuts))):
        parts.update(part)
        parts = type(parts).from_state(json.loads(json.dumps(parts.state())))
    assert parts.state() == whole.state()


def test_swapping_high_and_low_mirrors_the_interval() -> None:
    one, other = BettingSequence(), BettingSequence()
    one.update(X)
    other.update(1 - X)
    assert other.interval().low == pytest.approx(1 - one.interval().high)


def test_many_streams_are_as_each_alone() -> None:
    rng = np.random.default_rng(0)
    values = rng.random((3, 200))
    together = BettingSequence(streams=(3,), means=[0.4, 0.5, 0.6])
    together.update(values)
    for row in range(3):
        alone = BettingSequence(means=[0.4, 0.5, 0.6])
        alone.update(values[row])
        assert (together.is_below[row] == alone.is_below).all()
        assert (together.is_above[row] == alone.is_above).all()


def test_increments_of_arms_are_unbiased_whatever_the_guess() -> None:
    # Treatment 1, control 0, share 1/4: by hand E[Z] = 1/4 * (1 - c)/(1/4) - 3/4 * (0 - c)/(3/4) = 1.
    for center in (0.0, 0.3, 1.0):
        z = arm_increments(
            np.array([1.0, 0.0]), np.array([True, False]), np.full(2, 0.25), np.full(2, center)
        )
        assert 0.25 * z[0] + 0.75 * z[1] == pytest.approx(1.0)


def test_values_outside_their_range_are_refused() -> None:
    with pytest.raises(InvalidInput, match=r"values must be in \[0, 1\], got 1.5"):
        BettingSequence().update([0.5, 1.5])
    with pytest.raises(InvalidInput, match=r"inside their range, got 3\.0"):
        EmpiricalBernsteinSequence().update([3.0], low=-1, high=1)
    with pytest.raises(InvalidInput, match="alpha_low must be in"):
        BettingSequence(alpha_low=0)
