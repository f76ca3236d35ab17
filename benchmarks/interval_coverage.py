"""How often does each interval hold the truth it is about, at its nominal level?

One row for each interval that the package gives out and that no other simulation covers: the gate's under
each of its tests, shares, differences of means, costs per correct answer, estimates from predictions and
few labels, and confidence sequences, which must hold at all looks together. Prints JSON lines.
"""

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np

from jettison.cost.per_correct import correct_share, per_correct
from jettison.cost.ratio import median_interval
from jettison.monitor.estimate import estimate_quality
from jettison.stats.bernstein_sequence import EmpiricalBernsteinSequence
from jettison.stats.betting_sequence import BettingSequence
from jettison.stats.binomial import clopper_pearson, wilson
from jettison.stats.clustered import mean_difference_ci
from jettison.stats.judged import JudgeCounts, judged_margin_test
from jettison.stats.macro_f1 import macro_f1_difference_ci
from jettison.stats.mixtures import (
    FEWEST_FLIPS,
    asymptotic_sequence,
    normal_mixture_bound,
    normal_mixture_rho,
    share_sequence,
)
from jettison.stats.noninferiority import margin_test
from jettison.stats.stratified import draw_stratified, stratified_mean

Draw = Callable[[np.random.Generator], bool]
"""One simulated data set; whether its interval holds the truth."""
Count = Callable[[np.random.Generator, int], int]
"""Of so many data sets, how many intervals hold the truth."""
LEVEL = 0.95
LOOKS = 1500
PRODUCTS = np.repeat([39, 33, 27, 23, 18, 12, 8, 5, 2, 1], [2, 2, 4, 3, 4, 20, 30, 30, 25, 15])
"""Sizes of groups like those of the demo's product reviews."""


@dataclass(frozen=True)
class Row:
    """One interval in one setting."""

    name: str
    count: Count
    part: float = 1.0
    """Of the draws asked for; slow ones are drawn less often."""
    is_display: bool = False
    """Whether no gate reads it; it may cover a few points less than it says."""


def inside(interval: object, truth: float) -> bool:
    """Whether an interval holds the truth."""
    return bool(interval.low - 1e-9 <= truth <= interval.high + 1e-9)  # type: ignore[attr-defined]


def of_share(make: Callable[..., object], n: int, share: float) -> Draw:
    """An interval of a share from n trials."""
    return lambda rng: inside(make(int(rng.binomial(n, share)), n), share)


def of_pairs(n: int, gained: float, lost: float) -> Draw:
    """The gate's interval on independent right-or-wrong answers."""

    def draw(rng: np.random.Generator) -> bool:
        d = rng.choice([1.0, -1.0, 0.0], n, p=[gained, lost, 1 - gained - lost])
        found = margin_test(d > 0, d < 0, margin=0.03)
        return inside(found.interval, gained - lost)

    return draw


def of_groups(sizes: np.ndarray, lost: float, spread: float, churn: float = 0.01) -> Draw:
    """The gate's interval where each group has its own rate of harm; churn goes both ways."""

    def draw(rng: np.random.Generator) -> bool:
        groups = np.repeat(np.arange(len(sizes)), sizes)
        rate = rng.beta(lost / spread, (1 - lost) / spread, len(sizes))[groups]
        draws = rng.random(len(groups))
        harmed, flat = draws < rate, rng.random(len(groups))
        d = np.where(harmed, -1.0, np.where(flat < churn, 1.0, 0.0))
        truth = -lost + (1 - lost) * churn
        return inside(margin_test(d > 0, d < 0, margin=0.03, groups=groups).interval, truth)

    return draw


def of_whole_groups(sizes: np.ndarray, lost: float) -> Draw:
    """The gate's interval where groups are lost whole."""

    def draw(rng: np.random.Generator) -> bool:
        groups = np.repeat(np.arange(len(sizes)), sizes)
        kept = (rng.random(len(sizes)) >= lost)[groups]
        found = margin_test(kept * 1.0, np.ones(len(groups)), margin=0.03, groups=groups)
        return inside(found.interval, -lost)

    return draw


def of_grades(n: int) -> Draw:
    """The gate's interval on graded scores, three in ten of which change."""

    def draw(rng: np.random.Generator) -> bool:
        before = rng.choice([0.0, 0.3, 0.5, 0.8, 1.0], n)
        after = np.where(rng.random(n) < 0.3, rng.choice([0.0, 0.3, 0.5, 0.8, 1.0], n), before)
        after = np.where(rng.random(n) < 0.03, 0.0, after)
        return inside(margin_test(after, before, margin=0.05).interval, -0.03 * 0.52)

    return draw


def of_means(n_groups: int) -> Draw:
    """The cluster-robust t."""

    def draw(rng: np.random.Generator) -> bool:
        groups = np.repeat(np.arange(n_groups), 5)
        a = rng.normal(0.1, 1, n_groups)[groups] + rng.normal(0, 1, len(groups))
        return inside(mean_difference_ci(a, np.zeros(len(groups)), groups=groups), 0.1)

    return draw


def of_judged(rng: np.random.Generator) -> bool:
    """A true difference by verdicts of a judge that errs."""
    sens, spec, n = 0.9, 0.88, 400
    counts = JudgeCounts(
        n_right=150, n_right_passed=int(rng.binomial(150, sens)), n_wrong=150,
        n_wrong_failed=int(rng.binomial(150, spec)),
    )  # fmt: skip
    truths = rng.random((2, n)) < [[0.84], [0.9]]
    passed = rng.random((2, n)) < np.where(truths, sens, 1 - spec)
    return inside(judged_margin_test(passed[0], passed[1], counts, margin=0.1).interval, -0.06)


def of_macro_f1(rng: np.random.Generator) -> bool:
    """The difference of two macro F1s over four unequal classes: the truth is that of the population."""
    shares = np.array([0.5, 0.25, 0.15, 0.1])

    def truth(right: float) -> float:
        table = np.diag(shares * right) + np.outer(shares * (1 - right), np.full(4, 0.25))
        return float((2 * np.diag(table) / (table.sum(0) + table.sum(1))).mean())

    e = rng.choice(4, 400, p=shares)
    luck, guess = rng.random(400), rng.integers(0, 4, 400)
    a, b = (np.where(luck < right, e, guess) for right in (0.8, 0.83))
    found = macro_f1_difference_ci(e, a, b, n_labels=4, group_of=np.arange(400))
    return inside(found, truth(0.83) - truth(0.8))


def of_rounds(rng: np.random.Generator) -> bool:
    """The median of 18 rounds of one pair of processes, about that pair."""
    found = median_interval(rng.lognormal(np.log(0.8), 0.1, 18).tolist())
    assert found is not None
    return inside(found, 0.8)


def of_cost(n: int, right: float, n_blocks: int) -> Draw:
    """What a correct answer costs, from blocks and judged answers."""

    def draw(rng: np.random.Generator) -> bool:
        costs = [2.0] if n_blocks == 1 else rng.normal(2.0, 0.1, n_blocks).tolist()
        found = per_correct(costs, (rng.random(n) < right).tolist())
        return found is not None and inside(found, 2.0 / right)

    return draw


def of_correct(n: int, right: float) -> Draw:
    """The share of right answers beside costs."""

    def draw(rng: np.random.Generator) -> bool:
        found = correct_share((rng.random(n) < right).astype(float).tolist())
        return found is not None and inside(found, right)

    return draw


def of_labels(n_labels: int, *, weigh: bool = False, right: float = 0.6) -> Draw:
    """Live quality from 3,000 confidences and few labels; weighed, the unsure are labelled more often."""

    def draw(rng: np.random.Generator) -> bool:
        f = rng.beta(6, 2, 3000) if right < 0.9 else rng.beta(50 * right, 50 * (1 - right), 3000)
        y = (rng.random(3000) < (f if right >= 0.9 else right / 0.75 * f)).astype(float)
        chance = (1.2 - f) / (1.2 - f).sum() * n_labels if weigh else np.full(3000, n_labels / 3000)
        drawn = rng.random(3000) < chance
        labelled = list(zip(f[drawn], y[drawn], strict=True))
        found = estimate_quality(f, labelled, propensities=chance[drawn] if weigh else None)
        return found.low is not None and found.high is not None and found.low <= right <= found.high

    return draw


def of_strata(rng: np.random.Generator) -> bool:
    """A mean from 200 labels drawn within strata of 9,000 and 1,000."""
    stratum = np.repeat([0, 1], [9000, 1000])
    truth = (rng.random(10_000) < np.where(stratum == 1, 0.6, 0.02)).astype(float)
    at = list(draw_stratified(stratum, [0.15, 0.5], 200, seed=int(rng.integers(1 << 31))).positions)
    return inside(stratified_mean(truth[at], stratum[at], [9000, 1000]), float(truth.mean()))


def of_betting(mean: float) -> Count:
    """The betting sequence at every look."""

    def count(rng: np.random.Generator, n_draws: int) -> int:
        found = BettingSequence(means=[mean], streams=(n_draws,))
        for _ in range(0, LOOKS, 100):
            found.update((rng.random((n_draws, 100)) < mean).astype(float))
        return int((~(found.is_below | found.is_above)).sum())

    return count


def of_bernstein(start: float, end: float) -> Count:
    """The empirical-Bernstein sequence at every look, about the weighted mean of the truth."""

    def count(rng: np.random.Generator, n_draws: int) -> int:
        found = EmpiricalBernsteinSequence(streams=(n_draws,))
        held, weighed, before = np.ones(n_draws, bool), np.zeros(n_draws), np.zeros(n_draws)
        for mean in np.linspace(start, end, LOOKS):
            found.update((rng.random((n_draws, 1)) < mean).astype(float))
            weight = found._sums["weight"]
            weighed, before = weighed + (weight - before) * mean, weight
            low, high = found._now
            held &= (low <= weighed / weight) & (weighed / weight <= high)
        return int(held.sum())

    return count


def of_share_sequence(share: float) -> Draw:
    """The Beta mixture at every twentieth look."""
    known = cache(share_sequence)

    def draw(rng: np.random.Generator) -> bool:
        hits = np.cumsum(rng.random(LOOKS) < share)
        return all(inside(known(int(hits[n - 1]), n), share) for n in range(20, LOOKS + 1, 20))

    return draw


def of_asymptotic(lost: float, gained: float) -> Draw:
    """The asymptotic sequence at every fifth look from the fiftieth flip on."""

    def draw(rng: np.random.Generator) -> bool:
        d = rng.choice([-1.0, 1.0, 0.0], LOOKS, p=[lost, gained, 1 - lost - gained])
        flips = np.cumsum(d != 0)
        looks = [n for n in range(50, LOOKS + 1, 5) if flips[n - 1] >= FEWEST_FLIPS]
        return all(inside(asymptotic_sequence(d[:n]), gained - lost) for n in looks)

    return draw


def of_normal_mixture(rng: np.random.Generator, n_draws: int) -> int:
    """Robbins' bound on a sum of normal values, at every look."""
    rho = normal_mixture_rho(100, 0.05)
    bounds = np.array([normal_mixture_bound(float(n), rho, 0.05) for n in range(1, LOOKS + 1)])
    totals = np.abs(np.cumsum(rng.normal(0, 1, (n_draws, LOOKS)), axis=1))
    return int((totals <= bounds).all(axis=1).sum())


def each(draw: Draw) -> Count:
    """One data set after the other."""
    return lambda rng, n_draws: sum(draw(rng) for _ in range(n_draws))


HEAVY = np.append(np.full(3, 66), np.ones(397, int))
ROWS = (
    *(
        Row(f"{make.__name__}, n={n} share={share}", each(of_share(make, n, share)), is_display=not exact)
        for make, exact in ((clopper_pearson, True), (wilson, False))
        for n, share in ((30, 0.9), (100, 0.02), (1000, 0.3))
    ),
    Row("gate: exact, n=200, 1 % lost", each(of_pairs(200, 0.0, 0.01))),
    Row("gate: exact or Tango, n=300, 2 % each way", each(of_pairs(300, 0.02, 0.02))),
    Row("gate: Tango, n=1000, 5 % lost, 2 % gained", each(of_pairs(1000, 0.02, 0.05))),
    Row("gate: t, 100 groups", each(of_groups(np.arange(100) % 9 + 1, 0.05, 0.3))),
    Row("gate: t, 300 groups", each(of_groups(np.arange(300) % 9 + 1, 0.05, 0.1))),
    Row("gate: sign flips, 15 groups", each(of_groups(np.arange(15) % 9 + 6, 0.1, 0.1)), part=0.3),
    Row("gate: betting, 135 uneven groups", each(of_groups(PRODUCTS, 0.002, 0.3, 0.0)), part=0.2),
    Row(
        "gate: betting or t, 135 uneven groups lost whole", each(of_whole_groups(PRODUCTS, 0.03)), part=0.2
    ),
    Row("gate: betting, 3 of 400 groups hold a third", each(of_groups(HEAVY, 0.05, 0.1)), part=0.2),
    Row("gate: betting, 60 graded", each(of_grades(60)), part=0.2),
    Row("gate: t, 400 graded", each(of_grades(400)), part=0.5),
    Row("gate by a judge that errs", each(of_judged)),
    Row("mean, 20 equal groups", each(of_means(20))),
    Row("difference of macro F1, n=400", each(of_macro_f1), part=0.2),
    Row("median of 18 rounds, ranks", each(of_rounds)),
    Row("share of right answers beside costs, n=100", each(of_correct(100, 0.95)), is_display=True),
    Row("cost per correct answer, n=500, 90 % right", each(of_cost(500, 0.9, 12))),
    Row("cost per correct answer, n=60, 97 % right", each(of_cost(60, 0.97, 12))),
    Row("cost per correct answer, n=60, known cost", each(of_cost(60, 0.97, 1))),
    Row("live quality, 50 labels, 60 % right", each(of_labels(50))),
    Row("live quality, 300 labels, 60 % right", each(of_labels(300))),
    Row("live quality, 45 labels, 96 % right", each(of_labels(45, right=0.96))),
    Row("live quality, 200 labels, 96 % right", each(of_labels(200, right=0.96))),
    Row("live quality, 200 labels, the unsure more often", each(of_labels(200, weigh=True))),
    Row("live quality, 60 labels, the unsure more often", each(of_labels(60, weigh=True, right=0.96))),
    Row("labels in strata, 200 of 10,000", each(of_strata)),
    Row("betting sequence, mean 0.5, every look", of_betting(0.5)),
    Row("betting sequence, mean 0.97, every look", of_betting(0.97)),
    Row("empirical Bernstein, constant, every look", of_bernstein(0.7, 0.7), part=0.3),
    Row("empirical Bernstein, mean drifts 0.9 to 0.5", of_bernstein(0.9, 0.5), part=0.3),
    Row("Beta mixture of a share, every 20th look", each(of_share_sequence(0.9)), part=0.3),
    Row("normal mixture, every look", of_normal_mixture),
    Row("asymptotic sequence, 2 % and 5 % flips", each(of_asymptotic(0.05, 0.02)), part=0.5),
    Row("asymptotic sequence, 0.5 % and 6 % flips", each(of_asymptotic(0.06, 0.005)), part=0.5),
)


def coverage(row: Row, n_draws: int, seed: int) -> tuple[int, int]:
    """How many intervals held the truth, of how many."""
    n = max(20, round(n_draws * row.part))
    return row.count(np.random.default_rng(seed), n), n


def main() -> None:
    """Simulate and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    for row in ROWS:
        hits, n = coverage(row, given.draws, given.seed)
        seen = clopper_pearson(hits, n)
        figure = {"name": f"coverage, {row.name}", "value": seen.value, "low": seen.low, "high": seen.high}
        against = f"{LEVEL} nominal" + (", for display" if row.is_display else "")
        print(json.dumps({**figure, "unit": f"share of {n}", "against": against}), flush=True)


if __name__ == "__main__":
    main()
