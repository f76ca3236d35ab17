"""Does the check of confidences hold what it says: few true ones refuted, its intervals over the truth?

Simulated classifiers that are right about nine times of ten. The truth of an error of calibration is the
mean distance of confidence and chance to be right in the bins that the answers themselves give. Beside it a
plain bootstrap of the error, as is usual. Prints one JSON object a figure.

    python benchmarks/calibration_check.py [--draws 1000]
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import expit, logit

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
)


def drawn(setting: Setting, rng: np.random.Generator) -> Answers:
    """One split of answers."""
    n_groups = setting.n // setting.copies
    base = np.repeat(rng.normal(4, 2.5, n_groups), setting.copies)
    own = rng.normal(0, 0.3, setting.n) if setting.copies > 1 else 0.0
    sure = expit(base + own).clip(0.02, 1 - 1e-9)
    chance = expit(setting.slope * logit(sure) + setting.shift)
    luck = np.repeat(rng.random(n_groups), setting.copies)
    luck = np.where(rng.random(setting.n) < 0.7, luck, rng.random(setting.n))
    groups = np.repeat(np.arange(n_groups), setting.copies) if setting.copies > 1 else None
    return Answers(sure=sure, right=(luck < chance) * 1.0, chance=chance, groups=groups)


@dataclass(frozen=True)
class Outcome:
    """Of one split: what was refuted, and which intervals held the truth."""

    refuted: bool
    error: bool
    gap: bool
    difference: bool
    """To a model whose confidences are true, on the same examples."""


def outcome(setting: Setting, rng: np.random.Generator) -> Outcome:
    """Check one split."""
    one = drawn(setting, rng)
    found = check_calibration(one.sure, one.right, groups=one.groups, seed=int(rng.integers(1 << 30)))
    right = (rng.random(setting.n) < one.chance) * 1.0
    other = Answers(sure=one.chance, right=right, chance=one.chance, groups=one.groups)
    difference = calibration_difference(
        one.sure,
        one.right,
        other.sure,
        other.right,
        groups=one.groups,
        seed=int(rng.integers(1 << 30)),
    ).ece
    return Outcome(
        refuted=found.p_value <= ALPHA,
        error=found.ece.low <= one.error + 1e-9 and one.error <= found.ece.high + 1e-9,
        gap=found.gap.low <= (one.sure - one.chance).mean() <= found.gap.high,
        difference=difference.low <= one.error <= difference.high,
    )


def usual(setting: Setting, rng: np.random.Generator, n_draws: int = 200) -> bool:
    """Whether a percentile bootstrap of the debiased error holds the truth."""
    one = drawn(setting, rng)
    errors = []
    for _ in range(n_draws):
        rows = rng.integers(0, setting.n, setting.n)
        errors.append(calibration_error(one.sure[rows], one.right[rows]))
    low, high = np.quantile(errors, [0.025, 0.975])
    return bool(low <= one.error <= high)


def main() -> None:
    """Simulate and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=1000)
    n = parser.parse_args().draws
    for setting in SETTINGS:
        rng = np.random.default_rng(0)
        found = [outcome(setting, rng) for _ in range(n)]
        at = "at most 0.05" if setting.is_true else "power"
        print(figure(f"refuted, {setting.name}", [one.refuted for one in found], at))
        for name in ("error", "gap", "difference"):
            print(
                figure(
                    f"coverage of the {name}, {setting.name}", [getattr(one, name) for one in found], "0.95"
                )
            )
        if setting.copies == 1:
            plain = [usual(setting, rng) for _ in range(n // 5)]
            print(figure(f"coverage of a plain bootstrap, {setting.name}", plain, "0.95"), flush=True)


def figure(name: str, hits: Sequence[bool], against: str) -> str:
    """A share of the draws with its exact interval."""
    seen = clopper_pearson(sum(hits), len(hits))
    rounded = {k: round(v, 4) for k, v in (("value", seen.value), ("low", seen.low), ("high", seen.high))}
    return json.dumps({"name": name, **rounded, "unit": f"share of {len(hits)}", "against": against})


if __name__ == "__main__":
    main()
