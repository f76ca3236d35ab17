"""What live comparisons and audits promise over all looks, shown by simulation; `-s` prints the tables."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from scipy import stats

from jettison.monitor.audit import AuditPlan, Audits
from jettison.monitor.evidence import QuantileEvidence
from jettison.monitor.log import News, Place
from jettison.monitor.plan import LATE_SHARE, ExperimentPlan, Metric
from jettison.stats.log_histogram import LogHistogram
from jettison.stats.mixtures import quantile_ranks
from jettison.stats.rare_events import rate_above_log_e
from jettison.stats.sequential_planning import pairs_to_find
from jettison.testing.traffic import simulate_cascade

pytestmark = pytest.mark.guarantee
RUNS = 2000
DOUBT = 1e-4


def _benchmark() -> ModuleType:
    path = Path(__file__).resolve().parents[2] / "benchmarks" / "peeking.py"
    spec = importlib.util.spec_from_file_location("peeking", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["peeking"] = module
    spec.loader.exec_module(module)
    return module


peeking = _benchmark()


def at_most(hits: int, n: int, level: float) -> bool:
    return stats.binomtest(hits, n, level, alternative="greater").pvalue > DOUBT


@pytest.mark.parametrize("flips", [0.02, 0.1])
def test_pairs_of_equals_are_promoted_or_rolled_back_at_most_with_alpha(flips: float) -> None:
    hits = peeking.shadow_errors(RUNS, 2000, harmful=flips, beneficial=flips, margin=0.0, seed=1)
    print(flips, hits)
    assert at_most(hits["promotion"], RUNS, peeking.ALPHA)
    assert at_most(hits["rollback"], RUNS, peeking.ALPHA)
    assert hits["naive promotion"] > 0.1 * RUNS


@pytest.mark.parametrize("part", [0.5, 0.1])
def test_arms_of_equals_are_promoted_or_rolled_back_at_most_with_alpha(part: float) -> None:
    hits = peeking.split_errors(RUNS, 2000, accuracy=0.9, part=part, loss=0.0, margin=0.0, seed=1)
    print(part, hits)
    assert at_most(hits["promotion"], RUNS, peeking.ALPHA)
    assert at_most(hits["rollback"], RUNS, peeking.ALPHA)


@pytest.mark.parametrize("flips", [0.005, 0.02, 0.1])
def test_a_loss_of_the_margin_is_promoted_at_most_with_alpha(flips: float) -> None:
    hits = peeking.shadow_errors(RUNS, 2000, harmful=flips + 0.03, beneficial=flips, margin=0.03, seed=1)
    print(flips, hits)
    assert at_most(hits["promotion"], RUNS, peeking.ALPHA)


def test_a_loss_of_three_points_is_found_in_the_number_stated() -> None:
    stated = pairs_to_find(0.03, margin=0.0, n_runs=400, seed=0)
    assert stated.most is not None
    again = pairs_to_find(0.03, margin=0.0, n_runs=1000, limit=stated.most, seed=1)
    assert again.median is not None
    assert again.median <= stated.most


@pytest.mark.parametrize("kind", ["shadow", "split"])
def test_equals_are_rolled_back_over_a_long_time_at_most_with_alpha(kind: str) -> None:
    found, _, n_wrong = peeking.late_times(kind, RUNS, loss=0.0, margin=0.0, seed=2, good=20_000, latest=0)
    print(kind, n_wrong, len(found))
    assert at_most(n_wrong, RUNS, peeking.ALPHA)


@pytest.mark.parametrize(("kind", "stated"), [("shadow", 3_500), ("split", 17_500)])
def test_a_loss_after_a_long_good_time_is_rolled_back_in_the_number_stated(kind: str, stated: int) -> None:
    """Nine times of ten, after 50,000 good ones; `docs/live.md` says these numbers."""
    found, alone, _ = peeking.late_times(kind, 200, loss=0.03, margin=0.0, seed=3)
    print(kind, np.median(found), np.quantile(found, 0.9), np.median(alone))
    assert at_most(int((found > stated).sum()), len(found), 0.1)
    assert np.median(found) < np.median(alone) / 3


def _latency_alarm(seed: int, factor: float, *, good: int, n: int, alpha: float) -> int | None:
    """Requests after the good ones until the watch for late losses finds that treatment is slower."""
    rng, metric = np.random.default_rng(seed), Metric(name="latency_s", role="guardrail", margin=0.2)
    evidence = QuantileEvidence(
        metric, ExperimentPlan(name="e", kind="split", metrics=(metric,), alpha=alpha)
    )
    arm, place = rng.random(n) < 0.5, np.arange(n)
    hour = 1 + 0.8 * np.sin(place / 2000)  # slower and faster for all
    slow = np.where(arm & (place >= good), factor, 1.0)
    seconds = 0.02 * np.exp(0.5 * rng.standard_normal(n)) * hour * slow
    for start in range(0, n, 500):
        cut = slice(start, start + 500)
        evidence.update(seconds[cut], arm[cut], np.full(len(arm[cut]), 0.5))
        if evidence._late.is_found:
            return start + 500 - good
    return None


@pytest.mark.parametrize("factor", [1.0, 1.2])
def test_latencies_within_the_margin_are_called_late_losses_at_most_with_alpha(factor: float) -> None:
    """Also at the margin itself, and while all requests are slower for hours."""
    alpha = 0.25  # a fifth of it is the watch's
    found = [_latency_alarm(seed, factor, good=0, n=15_000, alpha=alpha) for seed in range(400)]
    assert at_most(sum(one is not None for one in found), len(found), alpha * LATE_SHARE)


@pytest.mark.parametrize(("factor", "stated"), [(1.4, 6_000), (1.6, 2_500), (2.0, 1_500)])
def test_latency_that_grows_after_a_long_good_time_is_found_in_the_number_stated(
    factor: float, stated: int
) -> None:
    """Nine times of ten, after 50,000 good ones; `docs/live.md` says these numbers."""
    found = [_latency_alarm(seed, factor, good=50_000, n=65_000, alpha=0.025) for seed in range(60)]
    known = np.array([np.inf if one is None else one for one in found])
    print(factor, np.median(known), np.quantile(known, 0.9))
    assert at_most(int((known > stated).sum()), len(known), 0.1)


def test_a_sound_assignment_is_called_broken_at_most_with_its_alpha() -> None:
    found = peeking.ratio_times(RUNS, 5000, drawn=0.5, seed=1)
    assert at_most(int((found > 0).sum()), RUNS, peeking.SRM_ALPHA)


@pytest.mark.parametrize("limit", [0.001, 0.02])
def test_incidents_at_their_limit_are_called_above_it_at_most_with_alpha(limit: float) -> None:
    """A look after each of 5,000 answers; their rate moves between nothing and the limit."""
    alpha, n = 0.05, 5000
    rng = np.random.default_rng(1)
    moving = limit * (np.arange(n) % 500 >= 100)
    for rates in (np.full(n, limit), moving):
        hits = (rng.random((RUNS, n)) < rates).cumsum(1)
        reached = np.zeros(RUNS, bool)
        for h in range(int(hits.max()) + 1):
            # Among looks at one number of hits the first is the strongest.
            first = (hits >= h).argmax(1)
            is_there = hits[:, -1] >= h
            for at in np.unique(first[is_there]):
                if rate_above_log_e(min(h, int(at) + 1), int(at) + 1, limit=limit) >= -np.log(alpha):
                    reached |= is_there & (first == at)
        print(limit, reached.mean())
        assert at_most(int(reached.sum()), RUNS, alpha)
    assert rate_above_log_e(30, 1000, limit=0.01) > -np.log(alpha)  # and a rate of three times is found


@pytest.mark.parametrize("share", [0.5, 0.95])
def test_quantile_bounds_hold_at_every_look(share: float) -> None:
    rng = np.random.default_rng(1)
    truth, missed, runs = float(stats.lognorm.ppf(share, 0.5)), 0, 400
    ranks = {n: quantile_ranks(n, share, alpha=0.05) for n in range(20, 1501, 20)}
    for _ in range(runs):
        under = np.cumsum(rng.lognormal(0, 0.5, 1500) <= truth)
        missed += any(under[n - 1] < low or under[n - 1] >= high for n, (low, high) in ranks.items())
    print(share, missed / runs)
    assert at_most(missed, runs, 0.05)


def test_bounds_of_the_histogram_are_no_narrower_than_the_ranks() -> None:
    values = np.random.default_rng(0).lognormal(-3, 1, 3000)
    histogram = LogHistogram()
    histogram.update(values)
    low, high = quantile_ranks(3000, 0.95, alpha=0.05)
    ordered = np.sort(values)
    bounds = histogram.bounds(0.95, alpha=0.05)
    assert bounds[0] <= ordered[low - 1]
    assert bounds[1] >= ordered[high - 1]


def test_audits_are_unbiased_and_cover_the_harm() -> None:
    """1,000 streams of 5,000 stood answers with a 2 % audit share and a known harm."""
    runs, n, share, harm = 1000, 5000, 0.02, 0.05
    rng = np.random.default_rng(1)
    estimates, missed = [], 0
    for _ in range(runs):
        audited = rng.random(n) < share
        harmful = rng.random(int(audited.sum())) < harm
        audits = Audits(AuditPlan(threshold=0.0, epsilon=0.5))
        audits._n_requests = audits._n_stood = n
        for is_harmful in harmful:
            audits._count(0.9, bool(is_harmful), share)
        status = audits.status()
        assert status.harm is not None
        assert status.harm_low is not None
        assert status.harm_high is not None
        estimates.append(status.harm)
        missed += not status.harm_low <= harm <= status.harm_high
    error = np.std(estimates) / np.sqrt(runs)
    print(f"mean {np.mean(estimates):.4f} +- {error:.4f} for {harm}, missed {missed / runs:.3f}")
    assert abs(np.mean(estimates) - harm) < 4 * error
    assert at_most(missed, runs, 0.05)


def test_a_planted_failure_of_the_threshold_is_caught() -> None:
    caught, runs = 0, 20
    for seed in range(runs):
        audits = Audits(AuditPlan(threshold=0.8, epsilon=0.02))
        exchanges = list(
            simulate_cascade(np.random.default_rng(seed), 20_000, audit_share=0.02, overconfidence=0.1)
        )
        records = tuple(record for one in exchanges for record in one.records)
        audits.take(News(records=records, feedback=(), place=Place(), is_all=True))
        caught += audits.status().verdict == "BROKEN"
    print(f"caught {caught} of {runs}")
    assert caught >= 19
