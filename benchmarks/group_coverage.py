"""How often do the intervals of means hold the truth with few, unequal, dependent groups and few labels?

The mean of `jettison.stats.clustered` and the predicted production score of `jettison.stats.shift`, each
beside what is usual: CR1 with Student's t on groups less one, and the same prediction without its groups
and without the ends of the scale; and the difference of two macro F1s of `jettison.stats.macro_f1` beside
the percentile bootstrap of whole groups. Groups are of one size, or from a tenth to about 4 times the mean;
"dependent": an answer shares the luck of its group with a chance of 95 %, and in the prediction its
features by 70 %.
Prints JSON lines.

    python benchmarks/group_coverage.py [--draws 400] [--only WORDS]
"""

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.special import expit, ndtri
from scipy.stats import t as student

from jettison.stats.binomial import clopper_pearson
from jettison.stats.classification import coded_macro_f1
from jettison.stats.clustered import group_sums, mean_difference_ci, standard_error
from jettison.stats.group_jackknife import DIFFERENCE, ONE_SCORE, Bounds
from jettison.stats.interval import Interval
from jettison.stats.macro_f1 import macro_f1_difference_ci
from jettison.stats.shift import shifted_mean

N_TRAFFIC = 1000
N_FEATURES = 6
TOGETHER = 0.95
LIKE_EACH_OTHER = 0.7
CLASSES = (0.6, 0.3, 0.1)
SHIFTS = {"light": 0.5, "heavy": 1.25}
"""Of the traffic's first feature, in standard deviations: effective n is about 0.75 or 0.2 of n."""
Found = tuple[Interval, Interval, float]
"""Ours, the usual one, and the truth."""


@dataclass(frozen=True)
class Groups:
    """How many, of which sizes, and whether their members share their luck."""

    n: int
    mean: int = 1
    unequal: bool = False
    dependent: bool = False

    def __str__(self) -> str:
        if self.mean == 1:
            return f"{self.n} alone"
        words = "unequal" if self.unequal else "equal"
        return f"{self.n} groups of {self.mean}, {words}, {'dependent' if self.dependent else 'alone'}"

    @cached_property
    def of_example(self) -> np.ndarray:
        sizes = np.full(self.n, self.mean)
        if self.unequal:
            spread = ndtri((np.arange(self.n) + 0.5) / self.n) - 0.5
            sizes = np.maximum(1, np.rint(self.mean * np.exp(spread))).astype(int)
        return np.repeat(np.arange(self.n), sizes)

    def luck(self, rng: np.random.Generator) -> np.ndarray:
        """Uniform, of each example."""
        own, common = rng.random(len(self.of_example)), rng.random(self.n)[self.of_example]
        return np.where(rng.random(len(own)) < TOGETHER * self.dependent, common, own)


@dataclass(frozen=True)
class MeanRow:
    """The mean of scores in groups: a gap of confidence and rightness, a difference, or unbounded."""

    kind: str
    groups: Groups

    def __str__(self) -> str:
        return f"mean of {self.kind}, {self.groups}"

    def draw(self, rng: np.random.Generator) -> Found:
        of, luck = self.groups.of_example, self.groups.luck(rng)
        bounds, truth = None, 0.0
        if self.kind.startswith("gaps"):
            middle, spread = (4.0, 2.5) if "91" in self.kind else (0.3, 0.8)
            odds = rng.normal(middle, spread, self.groups.n)[of] + rng.normal(0, 0.3, len(of))
            sure = expit(odds).clip(0.02, 1 - 1e-9)
            d = sure - (luck < sure)
            bounds = Bounds(low=float(sure.mean()) - 1, high=float(sure.mean()))
        elif self.kind.startswith("changes"):
            lost, gained = (0.25, 0.15) if "40" in self.kind else (0.08, 0.04)
            d = np.where(luck < lost, -1.0, np.where(luck > 1 - gained, 1.0, 0.0))
            bounds, truth = DIFFERENCE, gained - lost
        else:
            d = ndtri(luck)
        zero = np.zeros(len(d))
        return mean_difference_ci(d, zero, groups=of, bounds=bounds), usual_mean(d, of), truth


def usual_mean(d: np.ndarray, groups: np.ndarray) -> Interval:
    """CR1 with Student's t on the groups less one."""
    by_group = group_sums(d, np.zeros(len(d)), groups=groups)
    half = float(student.isf(0.025, len(by_group.sums) - 1)) * standard_error(by_group)
    return Interval(value=by_group.mean, low=by_group.mean - half, high=by_group.mean + half)


@dataclass(frozen=True)
class F1Row:
    """The difference of macro F1 of two models that label three classes of 60, 30 and 10 %."""

    groups: Groups
    right: tuple[float, float]
    """Share of right labels of each model."""

    def __str__(self) -> str:
        return f"macro F1, {self.right[0]:.0%} and {self.right[1]:.0%} right, {self.groups}"

    def rows(self, groups: Groups, rng: np.random.Generator) -> np.ndarray:
        """Right label, first model's, second model's; shape (n, 3)."""
        of, n = groups.of_example, len(groups.of_example)
        of_group, own = rng.choice(3, groups.n, p=CLASSES)[of], rng.choice(3, n, p=CLASSES)
        expected = np.where(rng.random(n) < LIKE_EACH_OTHER * groups.dependent, of_group, own)
        one, other = groups.luck(rng), groups.luck(rng)
        # Most questions are hard or easy for both models.
        other = np.where((rng.random(groups.n) < 0.7)[of], one, other)
        wrong = (expected + rng.integers(1, 3, n)) % 3
        labels = (
            np.where(luck < r, expected, wrong) for luck, r in zip((one, other), self.right, strict=True)
        )
        return np.stack([expected, *labels], axis=1)

    @cached_property
    def truth(self) -> float:
        return _f1_difference(self.rows(Groups(400_000), np.random.default_rng(99)))

    def draw(self, rng: np.random.Generator) -> Found:
        of, rows = self.groups.of_example, self.rows(self.groups, rng)
        ours = macro_f1_difference_ci(*rows.T, n_labels=3, group_of=of)
        return ours, usual_f1_difference(rows, of, rng), self.truth


def _f1_difference(rows: np.ndarray) -> float:
    return coded_macro_f1(rows[:, 0], rows[:, 2], 3) - coded_macro_f1(rows[:, 0], rows[:, 1], 3)


def usual_f1_difference(rows: np.ndarray, groups: np.ndarray, rng: np.random.Generator) -> Interval:
    """The percentile bootstrap of whole groups."""
    members = [np.flatnonzero(groups == g) for g in range(groups.max() + 1)]
    drawn = [
        _f1_difference(
            rows[np.concatenate([members[g] for g in rng.integers(0, len(members), len(members))])]
        )
        for _ in range(200)
    ]
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Interval(value=_f1_difference(rows), low=float(low), high=float(high))


@dataclass(frozen=True)
class GapRow:
    """Two models' predicted scores on traffic: of the first, or the difference."""

    of: str
    groups: Groups
    weights: str = "light"
    is_rare: bool = False
    """Whether nineteen of twenty answers are right, instead of four of five."""

    def __str__(self) -> str:
        right = "95 % right" if self.is_rare else "80 % right"
        return f"predicted {self.of}, {right}, {self.weights} weights, {self.groups}"

    def chances(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Of both models to be right."""
        u, v = x[:, 0], x[:, 1]
        if self.is_rare:
            return expit(3.2 - 0.4 * u), expit(3.0 - 0.6 * u + 0.2 * v)
        return expit(1.5 - 0.8 * u), expit(1.2 - 0.9 * u + 0.3 * v)

    @cached_property
    def truth(self) -> float:
        x = np.random.default_rng(99).normal(size=(400_000, 2))
        x[:, 0] += SHIFTS[self.weights]
        a, b = self.chances(x)
        return float((b - a if self.of == "difference" else a).mean())

    def draw(self, rng: np.random.Generator) -> Found:
        of, n = self.groups.of_example, len(self.groups.of_example)
        alike = LIKE_EACH_OTHER * self.groups.dependent
        common, own = rng.normal(size=(self.groups.n, N_FEATURES))[of], rng.normal(size=(n, N_FEATURES))
        x = np.sqrt(alike) * common + np.sqrt(1 - alike) * own
        z = rng.normal(size=(N_TRAFFIC, N_FEATURES))
        z[:, 0] += SHIFTS[self.weights]
        a, b = self.chances(x)
        one, other = self.groups.luck(rng), self.groups.luck(rng)
        # Most questions are hard or easy for both models.
        other = np.where((rng.random(self.groups.n) < 0.7)[of], one, other)
        right, right_b = (one < a) * 1.0, (other < b) * 1.0
        is_difference = self.of == "difference"
        y = right_b - right if is_difference else right
        seed = int(rng.integers(1 << 30))
        bounds = DIFFERENCE if is_difference else ONE_SCORE
        ours = shifted_mean(y, x, z, groups=of, bounds=bounds, seed=seed).interval
        return ours, shifted_mean(y, x, z, seed=seed).interval, self.truth


Row = MeanRow | F1Row | GapRow


def _rows() -> Iterator[Row]:
    of_groups = [
        Groups(n, 10 if n < 200 else 5, unequal, dependent)
        for n in (20, 50, 200)
        for unequal in (False, True)
        for dependent in (False, True)
    ]
    for kind in ("normal scores", "gaps, 57 % right", "gaps, 91 % right", "changes, 40 %", "changes, 12 %"):
        for groups in of_groups:
            yield MeanRow(kind, groups)
    for right in ((0.8, 0.85), (0.93, 0.95)):
        for groups in (*of_groups, Groups(200), Groups(1000)):
            yield F1Row(groups, right)
    for weights in SHIFTS:
        for of, is_rare in (("difference", False), ("difference", True), ("score", True)):
            for n in (150, 500, 2000):
                yield GapRow(of, Groups(n), weights, is_rare)
    for groups in of_groups:
        yield GapRow("difference", groups)
        if groups.dependent:
            yield GapRow("difference", groups, "heavy")
            if groups.unequal:
                yield GapRow("score", groups)
                yield GapRow("difference", groups, is_rare=True)


ROWS = tuple(_rows())


def coverage(row: Row, n_draws: int, seed: int) -> dict[str, tuple[int, float]]:
    """Of ours and of the usual one: how many intervals held the truth, and their mean half width."""
    rng = np.random.default_rng(seed)
    found = [row.draw(rng) for _ in range(n_draws)]
    return {
        name: (
            sum(one[k].low - 1e-9 <= one[2] <= one[k].high + 1e-9 for one in found),
            float(np.mean([(one[k].high - one[k].low) / 2 for one in found])),
        )
        for k, name in enumerate(("ours", "usual"))
    }


def main() -> None:
    """Simulate and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--draws", type=int, default=400, help="of a prediction; means are drawn 5 times as often"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="rows with these words in their names")
    given = parser.parse_args()
    for row in (one for one in ROWS if given.only in str(one)):
        n = given.draws * (5 if not isinstance(row, GapRow) else 1)
        for name, (hits, half) in coverage(row, n, given.seed).items():
            seen = clopper_pearson(hits, n)
            print(
                json.dumps(
                    {
                        "name": f"{row}: {name}",
                        "value": round(seen.value, 4),
                        "low": round(seen.low, 4),
                        "high": round(seen.high, 4),
                        "unit": f"share of {n}",
                        "half_width": round(half, 4),
                    }
                ),
                flush=True,
            )


if __name__ == "__main__":
    main()
