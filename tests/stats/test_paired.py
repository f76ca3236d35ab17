"""Tango's test, the exact test for few flips, and the choice between the tests."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from jettison.errors import InvalidInput, NotEnoughData
from jettison.stats.exact import _log_pmf, _tables, exact_bound, exact_p
from jettison.stats.paired import mcnemar, paired_test, tango_interval, tango_p, tango_z
from jettison.stats.planning import gate_passes


@pytest.mark.parametrize(
    ("beneficial", "harmful", "n", "low", "high"),
    [
        (1, 7, 21, -0.5172, -0.0260),  # Fagerland et al. 2014, table (1, 1, 7, 12)
        (0, 1, 44, -0.1181, 0.0594),  # Tango 1998
        (0, 0, 100, -0.0370, 0.0370),
    ],
)
def test_tango_interval_gives_the_published_bounds(
    beneficial: int, harmful: int, n: int, low: float, high: float
) -> None:
    found = tango_interval(beneficial, harmful, n)
    assert (found.low, found.high) == pytest.approx((low, high), abs=5e-5)


def test_mcnemar_gives_the_published_approval_figures() -> None:
    # Agresti, approval of the prime minister: 150 and 86 discordant of 1600.
    chi2, interval = mcnemar(86, 150, 1600)
    assert chi2 == pytest.approx(17.356, abs=5e-4)
    assert interval.value == pytest.approx(-0.04)
    assert (interval.high - interval.low) / 2 / norm.isf(0.025) == pytest.approx(0.009549, abs=5e-7)


@pytest.mark.parametrize(("margin", "n"), [(0.01, 368), (0.02, 183), (0.03, 122), (0.05, 72), (0.10, 36)])
def test_the_smallest_slice_that_can_pass_passes_and_one_less_does_not(margin: float, n: int) -> None:
    # One more at most: the exact test also weighs tables with flips both ways.
    assert paired_test(0, 0, n + 1, margin=margin).p_not_worse <= 0.025
    assert paired_test(0, 0, n - 1, margin=margin).p_not_worse > 0.025


@pytest.mark.parametrize("alpha", [0.005, 1e-4, 2.5e-6])
def test_a_small_alpha_needs_more_examples_and_not_infinitely_many(alpha: float) -> None:
    # Were no answer to change and none to gain, it would take log(alpha) / log(0.95).
    n = math.ceil(1.1 * math.log(alpha) / math.log(0.95))
    found = paired_test(0, 0, n, margin=0.05, alpha=alpha)
    assert found.p_not_worse <= alpha
    assert -0.05 < found.interval.low < -0.04
    assert gate_passes(np.array([0]), np.array([0]), n, margin=0.05, alpha=alpha).all()


def test_the_p_value_and_the_interval_agree_at_the_margin() -> None:
    for b, c, n in ((12, 20, 900), (1, 5, 600), (0, 3, 1200), (8, 1, 80)):
        bound = paired_test(b, c, n, margin=0.01).interval.low
        inside, outside = -bound + 1e-4, -bound - 1e-4
        if outside > 0:
            assert paired_test(b, c, n, margin=inside).p_not_worse <= 0.025
            assert paired_test(b, c, n, margin=outside).p_not_worse > 0.025


@pytest.mark.parametrize(("n", "margin"), [(30, 0.03), (100, 0.03), (200, 0.01), (500, 0.01)])
def test_the_gate_never_errs_much_over_alpha_whatever_the_flip_rate(n: int, margin: float) -> None:
    # Not simulated: every table is enumerated at the boundary, over a grid of flip rates.
    b, c = _tables(min(n, 90))
    passes = gate_passes(b, c, n, margin=margin, alpha=0.025)
    for beneficial in np.linspace(0, 0.06, 13):
        error = np.exp(_log_pmf(b[passes], c[passes], n, beneficial, beneficial + margin)).sum()
        assert error <= 0.0265


def test_the_exact_test_alone_keeps_alpha_at_every_flip_rate() -> None:
    n, margin = 40, 0.05
    b, c = _tables(18)
    passes = np.array([exact_p(int(i), int(j), n, -margin) <= 0.025 for i, j in zip(b, c, strict=True)])
    for beneficial in np.linspace(0, 0.15, 31):
        error = np.exp(_log_pmf(b[passes], c[passes], n, beneficial, beneficial + margin)).sum()
        assert error <= 0.025


def test_many_harmful_flips_block_even_when_few_are_discordant() -> None:
    found = paired_test(0, 9, 40, margin=0.01)
    assert found.method == "exact unconditional"
    assert found.p_worse <= 0.025
    assert found.interval.high < -0.01


def test_a_gain_that_no_flip_supports_is_never_called_a_loss() -> None:
    assert paired_test(1, 5, 3000, margin=0.01).p_worse > 0.5


counts = st.tuples(st.integers(0, 25), st.integers(0, 25), st.integers(0, 400)).filter(lambda t: sum(t) > 0)


@settings(max_examples=60, deadline=None)
@given(counts)
def test_swapping_the_candidates_mirrors_the_interval(table: tuple[int, int, int]) -> None:
    b, c, same = table
    one, other = (paired_test(i, j, b + c + same, margin=0.02).interval for i, j in ((b, c), (c, b)))
    assert one.low == pytest.approx(-other.high, abs=3e-6)
    assert one.low <= one.value <= one.high


@settings(max_examples=40, deadline=None)
@given(counts, st.floats(0.001, 0.2), st.floats(0.001, 0.2))
def test_a_wider_margin_is_never_harder_to_hold(
    table: tuple[int, int, int], one: float, other: float
) -> None:
    b, c, same = table
    narrow, wide = sorted((one, other))
    n = b + c + same
    strict, lax = (paired_test(b, c, n, margin=m).p_not_worse for m in (narrow, wide))
    assert lax <= strict + 2e-4


@settings(max_examples=40, deadline=None)
@given(counts)
def test_one_more_harmful_flip_never_helps(table: tuple[int, int, int]) -> None:
    b, c, same = table
    n = b + c + same + 1
    assert tango_p(b, c + 1, n, margin=0.02) >= tango_p(b, c, n, margin=0.02)


def test_tango_statistic_takes_arrays() -> None:
    z = tango_z(np.array([1, 0]), np.array([7, 0]), 21, -0.1)
    assert z.shape == (2,)
    assert z[0] == pytest.approx(float(tango_z(1, 7, 21, -0.1)))


def test_bounds_stay_in_range_when_every_answer_flips() -> None:
    assert tango_interval(0, 5, 5).low == -1.0
    assert tango_interval(5, 0, 5).high == 1.0
    assert exact_bound(0, 5, 5, alpha=0.025) >= -1.0


def test_impossible_counts_are_refused() -> None:
    with pytest.raises(InvalidInput, match="must be counts that sum to at most n = 5, got 4 beneficial"):
        paired_test(4, 3, 5, margin=0.01)
    with pytest.raises(NotEnoughData, match="at least 1 pair, got 0"):
        paired_test(0, 0, 0, margin=0.01)
    with pytest.raises(InvalidInput, match=r"alpha must be in \(0, 0.5\), got 0.7"):
        paired_test(0, 0, 5, margin=0.01, alpha=0.7)
    with pytest.raises(InvalidInput, match=r"margin must be in \[0, 1\), got -0.1"):
        paired_test(0, 0, 5, margin=-0.1)
    with pytest.raises(NotEnoughData, match="at least 1 discordant pair"):
        mcnemar(0, 0, 10)


@pytest.mark.parametrize(
    ("n", "margin", "flip_share", "alpha", "most"),
    [
        (80, 0.005, 0.112, 0.025, 0.0267),  # the worst where up to a fifth of the answers change
        (20, 0.02, 0.451, 0.025, 0.0271),  # where up to 60 % do
        (40, 0.3, 1.0, 0.025, 0.0363),
        (40, 0.3, 1.0, 2.5e-6, 7e-6),
    ],
)
def test_the_gate_errs_as_often_as_the_page_on_decisions_says(
    n: int, margin: float, flip_share: float, alpha: float, most: float
) -> None:
    b, c = _tables(n)
    passes = gate_passes(b, c, n, margin=margin, alpha=alpha)
    p_beneficial, p_harmful = (flip_share - margin) / 2, (flip_share + margin) / 2
    error = np.exp(_log_pmf(b[passes], c[passes], n, p_beneficial, p_harmful)).sum()
    assert 0.97 * most < error <= most
