"""The whole pipeline, retries and stops at will: how often it errs, beside what teams do today."""

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from scipy.stats import binomtest

from jettison.errors import NotEnoughData
from jettison.stats.betting_sequence import BettingSequence
from jettison.stats.group_sequential import spending_bounds
from jettison.stats.paired import tango_z
from jettison.stats.sequential import MarginSequence
from jettison.stats.simultaneous import max_t_bounds

pytestmark = pytest.mark.guarantee
DOUBT = 1e-4


def _benchmark(name: str) -> ModuleType:
    path = Path(__file__).resolve().parents[2] / "benchmarks" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("setup", ["slice", "even", "small"])
def test_a_project_with_many_candidates_and_retries_errs_at_most_5_percent(setup: str) -> None:
    n = 150
    first, *_, last = _benchmark("false_release").simulate(n, setup=setup)
    for way, hits in last.items():
        print(f"{setup}: {first[way] / n:7.3f} in one try, {hits / n:7.3f} in three  {way}")
    assert binomtest(first["false_release"], n, 0.025, alternative="greater").pvalue > DOUBT
    assert binomtest(last["false_release"], n, 0.05, alternative="greater").pvalue > DOUBT
    assert first["naive_slices_false_release"] / n > 0.2


@pytest.mark.parametrize(("gained", "margin"), [(0.0, 0.03), (0.02, 0.03), (0.1, 0.05), (0.005, 0.02)])
def test_looking_after_every_example_keeps_the_error_rate(gained: float, margin: float) -> None:
    rng = np.random.default_rng(0)
    n_runs, n = 600, 2000
    shares = (gained + margin, gained, 1 - 2 * gained - margin)
    shipped = 0
    for _ in range(n_runs):
        sequence = MarginSequence(margin=margin)
        d = rng.choice([-1.0, 1.0, 0.0], n, p=shares)
        sequence.update(d)  # a capital once reached stays: one update is a look at every example
        shipped += sequence.is_settled[0]
    print(f"\nSHIP at the boundary, gained {gained}, margin {margin}: {shipped / n_runs:.3f}")
    assert binomtest(shipped, n_runs, 0.025, alternative="greater").pvalue > DOUBT


def informed(
    rng: np.random.Generator, lost: float, gained: float, *, n: int = 2000, share: float = 0.25
) -> tuple[np.ndarray, np.ndarray]:
    """Differences as an informed comparison tells them, and where the incumbent was asked.

    The candidate is wrong on what it lost and on 5 % besides, which the incumbent gets wrong too.
    """
    u = rng.random(n)
    wrong = (u < lost) | (u > 0.95)
    asked = wrong | (rng.random(n) < share)
    gain = (u >= lost) & (u < lost + gained) & asked
    return np.where(u < lost, -1.0, gain / share), asked


@pytest.mark.parametrize(("gained", "margin"), [(0.0, 0.03), (0.02, 0.03), (0.1, 0.05), (0.005, 0.02)])
def test_asking_the_incumbent_where_it_tells_something_keeps_both_error_rates(
    gained: float, margin: float
) -> None:
    rng = np.random.default_rng(3)
    n_runs, hits = 600, np.zeros(2, int)
    for _ in range(n_runs):
        sequence = MarginSequence(margin=margin, ceiling=4)
        sequence.update(informed(rng, gained + margin, gained)[0])
        hits += sequence.is_settled
    print(f"\nat the boundary, gained {gained}, margin {margin}: SHIP, BLOCK {hits / n_runs}")
    for wrong in hits.tolist():
        assert binomtest(wrong, n_runs, 0.025, alternative="greater").pvalue > DOUBT


@pytest.mark.parametrize(
    ("lost", "gained", "most"), [(0.005, 0.005, 0.4), (0.02, 0.02, 0.55), (0.14, 0.02, 1.0)]
)
def test_an_informed_comparison_asks_the_incumbent_less(lost: float, gained: float, most: float) -> None:
    rng = np.random.default_rng(4)
    plain, asked = [], []
    for _ in range(150):
        differences, told = informed(rng, lost, gained, n=4000)
        every = informed(rng, lost, gained, n=4000, share=1.0)[0]
        for d, ceiling, counts in ((every, 1, plain), (differences, 4, asked)):
            sequence = MarginSequence(margin=0.03, alpha=0.0125, ceiling=ceiling)
            while sequence.verdict is None and sequence.n < len(d):
                sequence.update(d[sequence.n : sequence.n + 32])
            counts.append(sequence.n if ceiling == 1 else int(told[: sequence.n].sum()))
    print(f"\nlost {lost}, gained {gained}: asked {np.median(plain):.0f}, informed {np.median(asked):.0f}")
    assert np.median(asked) <= most * np.median(plain)


@pytest.mark.parametrize(("flip", "truth"), [(0.01, 0.0), (0.01, -0.12)])
def test_clear_cases_take_at_most_half_the_examples(flip: float, truth: float) -> None:
    """A test split of 2,000, margin 3 points: no loss with few flips, and a loss four times the margin."""
    rng = np.random.default_rng(1)
    shares = (flip - min(truth, 0), flip + max(truth, 0), 1 - 2 * flip - abs(truth))
    stops = []
    for _ in range(200):
        d = rng.choice([-1.0, 1.0, 0.0], 2000, p=shares)
        sequence = MarginSequence(margin=0.03, alpha=0.0125)
        for start in range(0, 2000, 20):
            sequence.update(d[start : start + 20])
            if sequence.verdict is not None:
                break
        stops.append(sequence.n)
    print(f"\nflips {flip}, truth {truth}: median stop {np.median(stops):.0f} of 2000")
    assert np.median(stops) <= 1000


@pytest.mark.parametrize(("flips", "known"), [(0.005, 125), (0.02, 407), (0.1, 1950)])
def test_equals_are_shipped_about_as_soon_as_is_known_of_betting(flips: float, known: int) -> None:
    """True difference 0, margin 3 points, alpha 5 %: median stop in the reference simulation."""
    rng = np.random.default_rng(5)
    stops = []
    for _ in range(300):
        sequence = MarginSequence(margin=0.03, alpha=0.05)
        while sequence.verdict is None and sequence.n < 8000:
            sequence.update(rng.choice([-1.0, 1.0, 0.0], 5, p=(flips, flips, 1 - 2 * flips)))
        stops.append(sequence.n)
    print(f"\nflips {flips} each way: median stop {np.median(stops):.0f}, known {known}")
    assert np.median(stops) <= 1.1 * known


@pytest.mark.parametrize(
    ("gained", "lost", "known"), [(0.005, 0.035, 0.033), (0.02, 0.05, 0.031), (0.3, 0.33, 0.044)]
)
def test_betting_with_predictable_bets_errs_as_in_the_reference_simulation(
    gained: float, lost: float, known: float
) -> None:
    """False SHIP at the margin, a look at each of 3,000 pairs, alpha 5 %, and the asymptotic one."""
    rng, n_runs = np.random.default_rng(6), 3000
    sequence = BettingSequence(alpha_low=0.05, alpha_high=0.05, means=[0.485], streams=(n_runs,))
    total, squares, asymptotic = np.zeros(n_runs), np.zeros(n_runs), np.zeros(n_runs, bool)
    rho2 = (-2 * np.log(0.1) + np.log1p(-2 * np.log(0.1))) / 500  # two-sided 10 %: one-sided 5 %
    for start in range(0, 3000, 100):
        u = rng.random((n_runs, 100))
        d = np.where(u < lost, -1.0, np.where(u < lost + gained, 1.0, 0.0))
        sequence.update((d + 1) / 2)
        n = start + 1 + np.arange(100)
        mean, square = (total[:, None] + d.cumsum(1)) / n, (squares[:, None] + (d**2).cumsum(1)) / n
        inner = 2 * (n * rho2 + 1) / (n**2 * rho2) * np.log(np.sqrt(n * rho2 + 1) / 0.1)
        spread = np.sqrt(np.maximum(square - mean**2, 0))
        asymptotic |= ((mean - spread * np.sqrt(inner) > -0.03) & (n >= 30)).any(axis=1)
        total, squares = mean[:, -1] * n[-1], square[:, -1] * n[-1]
    found = float(sequence.is_below.mean())
    beside = f"asymptotic from 30 on {asymptotic.mean():.3f}"
    print(f"\n{gained}/{lost}: betting {found:.4f} (known {known}), {beside}")
    assert abs(found - known) < 0.015
    assert binomtest(int(sequence.is_below.sum()), n_runs, 0.05, alternative="greater").pvalue > DOUBT
    assert gained > 0.1 or asymptotic.mean() > 0.1


def test_power_stays_within_10_percent_of_the_fixed_size_test() -> None:
    """Half of alpha on looking, half on the end: what that costs against all of it on the end."""
    rng = np.random.default_rng(2)
    n, margin, n_runs = 1000, 0.02, 400
    fixed = both = 0
    for _ in range(n_runs):
        d = rng.choice([-1.0, 1.0, 0.0], n, p=(0.0175, 0.0175, 0.965))
        b, c = int((d == 1).sum()), int((d == -1).sum())
        z = float(tango_z(b, c, n, -margin))
        sequence = MarginSequence(margin=margin, alpha=0.0125)
        sequence.update(d)
        fixed += z >= 1.95996
        both += z >= 2.24140 or sequence.verdict == "SHIP"
    print(f"\npower: fixed {fixed / n_runs:.3f}, until sure {both / n_runs:.3f}")
    assert both >= 0.9 * fixed


@pytest.mark.parametrize(("gained", "margin"), [(0.0, 0.03), (0.02, 0.03), (0.1, 0.05), (0.005, 0.02)])
def test_planned_looks_keep_the_error_rate(gained: float, margin: float) -> None:
    shipped, n_runs = 0, 4000
    for b, c, n in _looked_at(gained, gained + margin, n_runs=n_runs):
        shipped += (tango_z(b, c, n, -margin) >= LOOKS).any()
    print(f"\nSHIP at the boundary in 4 looks, gained {gained}, margin {margin}: {shipped / n_runs:.4f}")
    assert binomtest(int(shipped), n_runs, 0.025, alternative="greater").pvalue > DOUBT


def test_planned_looks_cost_little_power_and_save_examples() -> None:
    fixed, looked, asked, n_runs = 0, 0, [], 2000
    for b, c, n in _looked_at(0.0175, 0.0175, n_runs=n_runs, n=1000):
        z = np.asarray(tango_z(b, c, n, -0.02))
        passed = z >= LOOKS
        fixed += bool(z[-1] >= 1.95996)
        looked += bool(passed.any())
        asked.append(n[passed.argmax()] if passed.any() else n[-1])
    share = np.mean(asked) / 1000
    print(f"\npower: fixed {fixed / n_runs:.3f}, in 4 looks {looked / n_runs:.3f}, asked {share:.2f}")
    assert looked >= 0.97 * fixed
    assert share < 0.9


LOOKS = spending_bounds([0.25, 0.5, 0.75, 1.0])


def _looked_at(
    gained: float, lost: float, *, n_runs: int, n: int = 2000
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Beneficial and harmful flips, and examples, at four looks of each run."""
    rng = np.random.default_rng(4)
    for _ in range(n_runs):
        part = rng.multinomial(n // 4, [gained, lost, 1 - gained - lost], size=4).cumsum(axis=0)
        yield part[:, 0], part[:, 1], part.sum(axis=1)


@pytest.mark.parametrize(
    ("n", "lost", "gained"),
    [(300, 0.3, 0.3), (1500, 0.08, 0.06), (1500, 0.06, 0.08), (1500, 0.06, 0.0), (1500, 0.1, 0.0)],
)
def test_certified_slices_hold_together(n: int, lost: float, gained: float) -> None:
    """Ten overlapping slices: at most 2.5 % of the draws have any bound above its truth."""
    rng = np.random.default_rng(3)
    n_runs, wrong, plain, refused = 1500, 0, 0, 0
    where = rng.integers(0, 5, n)
    masks = [where == k for k in range(5)] + [where != k for k in range(5)]
    for seed in range(n_runs):
        d = rng.choice([-1.0, 1.0, 0.0], n, p=(lost, gained, 1 - lost - gained))
        try:
            found = max_t_bounds(d, masks, n_draws=1000, seed=seed)
        except NotEnoughData:
            refused += 1
            continue
        wrong += bool((found.low > gained - lost).any())
        t = [(d[m].mean() - (gained - lost)) / d[m].std(ddof=1) * np.sqrt(m.sum()) for m in masks]
        plain += max(t) > found.critical
    n_given = n_runs - refused
    print(
        f"\nany of ten bounds above its truth, n {n}, lost {lost}, gained {gained}: {wrong / n_given:.4f}; "
        f"without the correction for skewness {plain / n_given:.4f}; refused {refused / n_runs:.3f}"
    )
    assert binomtest(wrong, n_given, 0.025, alternative="greater").pvalue > DOUBT
    assert refused < 0.2 * n_runs


@pytest.mark.parametrize(("n_groups", "spread", "lost"), [(200, 0.3, 0.05), (400, 0.2, 0.03)])
def test_certified_slices_of_grouped_examples_hold_together(
    n_groups: int, spread: float, lost: float
) -> None:
    """Four slices and all of uneven groups, each with its own rate of harm."""
    rng = np.random.default_rng(5)
    n_runs, wrong, refused, truth = 700, 0, 0, -lost + (1 - lost) * 0.02
    for seed in range(n_runs):
        groups = np.repeat(np.arange(n_groups), rng.integers(1, 10, n_groups))
        rate = rng.beta(lost / spread, (1 - lost) / spread, n_groups)[groups]
        gained = np.where(rng.random(len(groups)) < 0.02, 1.0, 0.0)
        d = np.where(rng.random(len(groups)) < rate, -1.0, gained)
        kind = rng.integers(0, 4, len(groups))
        masks = [*(kind == k for k in range(4)), kind >= 0]
        try:
            found = max_t_bounds(d, masks, groups=groups, n_draws=1000, seed=seed)
        except NotEnoughData:
            refused += 1
            continue
        wrong += bool((found.low > truth).any())
    n_given = n_runs - refused
    share = wrong / n_given
    print(f"\n{n_groups} groups: any bound above its truth {share:.4f}, refused {refused / n_runs:.3f}")
    assert binomtest(wrong, n_given, 0.025, alternative="greater").pvalue > DOUBT
