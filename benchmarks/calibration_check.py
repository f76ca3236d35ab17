"""Does the check of confidences hold what it says: few true ones refuted, its intervals over the truth?

Simulated classifiers that are right about nine times of ten, or six. The truth of an error of calibration
is the mean distance of confidence and chance to be right in the bins that the answers themselves give.
Beside it a plain bootstrap of the error, as is usual, and for groups signs flipped by group. Prints one
JSON object a figure.

    python benchmarks/calibration_check.py [--draws 1000] [--only WORDS]
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import expit, logit, ndtri

from jettison.stats.binomial import clopper_pearson
from jettison.stats.calibration import calibration_error
from jettison.stats.calibration_check import ALPHA, calibration_difference, check_calibration


@dataclass(frozen=True)
class Setting:
    """How far confidences are off, on how many answers."""

    name: str
    n: int
    slope: float = 1.0
    """Of the chance's log-odds over the confidence's: under 1 the model is too sure."""
    shift: float = 0.0
    copies: int = 1
    """Answers a group, mostly right or wrong together."""
    unequal: bool = False
    """Groups of `copies` answers on average, most of them small, some large."""
    together: float = 0.7
    """Chance that an answer shares the luck of its group."""
    sureness: tuple[float, float] = (4.0, 2.5)
    """Mean and deviation of the confidences' log-odds."""
    paired: bool = True
    """Whether another model is set beside it."""

    @property
    def is_true(self) -> bool:
        return self.slope == 1.0 and self.shift == 0.0


@dataclass(frozen=True)
class Answers:
    """One simulated test split."""

    sure: np.ndarray
    right: np.ndarray
    chance: np.ndarray
    groups: np.ndarray | None

    @property
    def error(self) -> float:
        """The truth, in the bins of these confidences."""
        parts = np.array_split(np.argsort(self.sure, kind="stable"), max(1, min(15, len(self.sure) // 10)))
        return float(sum(abs((self.chance - self.sure)[p].sum()) for p in parts)) / len(self.sure)


SETTINGS = (
    Setting("true, n=150", 150),
    Setting("true, n=1500", 1500),
    Setting("true, n=1500 in threes", 1500, copies=3),
    Setting("too sure, n=150", 150, slope=0.7),
    Setting("too sure, n=1500", 1500, slope=0.7),
    Setting("a little too sure, n=1500", 1500, slope=0.9),
    Setting("not sure enough, n=1500", 1500, slope=1.3),
    Setting("shifted, n=1500", 1500, shift=-0.3),
    Setting("too sure, n=1500 in threes", 1500, slope=0.7, copies=3),
    *(
        Setting(
            f"true, {n_groups} groups of {'unequal' if unequal else 'three'}, "
            f"{'dependent' if together else 'alone'}, {right}",
            3 * n_groups,
            copies=3,
            unequal=unequal,
            together=together,
            sureness=sureness,
            paired=False,
        )
        for n_groups in (20, 50, 200, 500)
        for unequal in (False, True)
        for together in (0.0, 0.95)
        for right, sureness in (("91 % right", (4.0, 2.5)), ("57 % right", (0.3, 0.8)))
        if n_groups < 500 or right == "91 % right"
    ),
    *(
        Setting(
            f"too sure, {n_groups} groups of three, {'dependent' if together else 'alone'}",
            3 * n_groups,
            slope=0.7,
            copies=3,
            together=together,
            paired=False,
        )
        for n_groups in (20, 50, 200, 500)
        for together in (0.0, 0.95)
    ),
)


def drawn(setting: Setting, rng: np.random.Generator) -> Answers:
    """One split of answers."""
    sizes = np.full(setting.n // setting.copies, setting.copies)
    if setting.unequal:
        spread = ndtri((np.arange(len(sizes)) + 0.5) / len(sizes)) - 0.5
        sizes = np.maximum(1, np.rint(setting.copies * np.exp(spread))).astype(int)
    group_of = np.repeat(np.arange(len(sizes)), sizes)
    n = len(group_of)
    base = rng.normal(*setting.sureness, len(sizes))[group_of]
    own = rng.normal(0, 0.3, n) if setting.copies > 1 else 0.0
    sure = expit(base + own).clip(0.02, 1 - 1e-9)
    chance = expit(setting.slope * logit(sure) + setting.shift)
    luck = rng.random(len(sizes))[group_of]
    luck = np.where(rng.random(n) < setting.together, luck, rng.random(n))
    groups = group_of if setting.copies > 1 else None
    return Answers(sure=sure, right=(luck < chance) * 1.0, chance=chance, groups=groups)


@dataclass(frozen=True)
class Outcome:
    """Of one split: what was refuted, and which intervals held the truth."""

    refuted: bool
    error: bool
    gap: bool
    difference: bool | None
    """To a model whose confidences are true, on the same examples; None where there is none."""


def outcome(setting: Setting, rng: np.random.Generator) -> Outcome:
    """Check one split."""
    one = drawn(setting, rng)
    found = check_calibration(one.sure, one.right, groups=one.groups, seed=int(rng.integers(1 << 30)))
    return Outcome(
        refuted=found.p_value <= ALPHA,
        error=found.ece.low <= one.error + 1e-9 and one.error <= found.ece.high + 1e-9,
        gap=found.gap.low <= (one.sure - one.chance).mean() <= found.gap.high,
        difference=_holds_difference(one, rng) if setting.paired else None,
    )


def _holds_difference(one: Answers, rng: np.random.Generator) -> bool:
    right = (rng.random(len(one.chance)) < one.chance) * 1.0
    seed = int(rng.integers(1 << 30))
    found = calibration_difference(one.sure, one.right, one.chance, right, groups=one.groups, seed=seed).ece
    return found.low <= one.error <= found.high


def usual(setting: Setting, rng: np.random.Generator, n_draws: int = 200) -> bool:
    """Whether a percentile bootstrap of the debiased error holds the truth."""
    one = drawn(setting, rng)
    errors = []
    for _ in range(n_draws):
        rows = rng.integers(0, setting.n, setting.n)
        errors.append(calibration_error(one.sure[rows], one.right[rows]))
    low, high = np.quantile(errors, [0.025, 0.975])
    return bool(low <= one.error <= high)


def sign_flips(setting: Setting, rng: np.random.Generator, n_draws: int = 999) -> bool:
    """Whether a wild cluster bootstrap refutes: residuals keep their sizes and change sign by group."""
    one = drawn(setting, rng)
    parts = np.array_split(np.argsort(one.sure, kind="stable"), max(1, min(15, len(one.sure) // 10)))
    assert one.groups is not None
    gaps = np.zeros((int(one.groups.max()) + 1, len(parts)))
    for k, part in enumerate(parts):
        np.add.at(gaps[:, k], one.groups[part], (one.sure - one.right)[part])
    flipped = (rng.integers(0, 2, (n_draws, len(gaps))) * 2.0 - 1) @ gaps
    seen = gaps.sum(axis=0)
    apart = (np.abs(flipped).sum(axis=1) >= np.abs(seen).sum() - 1e-9).sum()
    together = (np.abs(flipped.sum(axis=1)) >= abs(seen.sum()) - 1e-9).sum()
    return bool(2 * (1 + min(apart, together)) / (n_draws + 1) <= ALPHA)


def main() -> None:
    """Simulate and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--only", default="", help="settings with these words in their names")
    given = parser.parse_args()
    n = given.draws
    for setting in (one for one in SETTINGS if given.only in one.name):
        rng = np.random.default_rng(0)
        found = [outcome(setting, rng) for _ in range(n)]
        at = "at most 0.05" if setting.is_true else "power"
        print(figure(f"refuted, {setting.name}", [one.refuted for one in found], at))
        for name, hits in coverage(found).items():
            print(figure(f"coverage of the {name}, {setting.name}", hits, "0.95"))
        if setting.copies == 1:
            plain = [usual(setting, rng) for _ in range(n // 5)]
            print(figure(f"coverage of a plain bootstrap, {setting.name}", plain, "0.95"), flush=True)
        else:
            flips = [sign_flips(setting, rng) for _ in range(n)]
            print(figure(f"refuted by sign flips, {setting.name}", flips, at), flush=True)


def coverage(found: Sequence[Outcome]) -> dict[str, list[bool]]:
    """Which interval held the truth, by draw."""
    names = ("error", "gap", "difference") if found[0].difference is not None else ("error", "gap")
    return {name: [bool(getattr(one, name)) for one in found] for name in names}


def figure(name: str, hits: Sequence[bool], against: str) -> str:
    """A share of the draws with its exact interval."""
    seen = clopper_pearson(sum(hits), len(hits))
    rounded = {k: round(v, 4) for k, v in (("value", seen.value), ("low", seen.low), ("high", seen.high))}
    return json.dumps({"name": name, **rounded, "unit": f"share of {len(hits)}", "against": against})


if __name__ == "__main__":
    main()
