"""How often does a gate release a candidate that truly loses the margin or more?

Every simulated candidate sits exactly at the margin's boundary, so each release is an
error; our gate promises at most alpha. Beside it stand what teams do today: "the accuracy
dropped by less than the margin", a percentile-bootstrap bound and a Wald bound. Prints one
JSON object a figure.
"""

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np
from scipy import stats

from jettison.stats.binomial import clopper_pearson
from jettison.stats.ltt import certify_threshold
from jettison.stats.noninferiority import margin_test
from jettison.stats.paired import tango_p
from jettison.stats.planning import gate_passes, pass_probability

ALPHA = 0.025


@dataclass(frozen=True)
class Share:
    """How often something happened in a simulation."""

    name: str
    hits: int
    n: int
    against: str

    def line(self) -> str:
        seen = clopper_pearson(self.hits, self.n)
        figure = {"name": self.name, "value": seen.value, "low": seen.low, "high": seen.high}
        return json.dumps({**figure, "unit": "share", "against": self.against})


SETTINGS = tuple(
    (n, beneficial, margin)
    for margin, sizes in ((0.03, (30, 50, 100, 200, 500, 2000)), (0.01, (500, 1000, 3000)))
    for n in sizes
    for beneficial in (0.0, 0.02)
)


SHAPES = ("equal", "uneven", "long tail", "three large")
HEAVY = ((150, 0.3, 0.1), (400, 0.3, 0.05), (400, 0.05, 0.05))


def paired_errors(n: int, beneficial: float, margin: float, *, n_draws: int, seed: int) -> list[Share]:
    """False releases on right-or-wrong answers whose true loss is the margin."""
    rng = np.random.default_rng(seed)
    rates = (beneficial, beneficial + margin, 1 - 2 * beneficial - margin)
    counts = rng.multinomial(n, rates, n_draws)
    b, c = counts[:, 0], counts[:, 1]
    released = {
        "jettison gate": gate_passes(b, c, n, margin=margin, alpha=ALPHA),
        "accuracy drop under the margin": (c - b) / n < margin,
        "percentile bootstrap": np.array(
            [_bootstrap_low(int(i), int(j), n) for i, j in zip(b, c, strict=True)]
        )
        > -margin,
        "Wald": _wald_low(b, c, n) > -margin,
    }
    where = f"n={n} beneficial={beneficial} margin={margin}"
    return [
        Share(f"false release, {who}, {where}", int(passed.sum()), n_draws, f"alpha {ALPHA}")
        for who, passed in released.items()
    ]


def clustered_errors(
    n_groups: int, spread: float, margin: float, *, n_draws: int, seed: int, largest: int = 9
) -> list[Share]:
    """False releases on dependent answers: each group has its own rate of harm, on average the margin."""
    rng = np.random.default_rng(seed)
    ours = naive = 0
    for _ in range(n_draws):
        sizes = rng.integers(1, largest + 1, n_groups)
        rate = rng.beta(margin / spread, (1 - margin) / spread, n_groups)
        groups = np.repeat(np.arange(n_groups), sizes)
        harmed = rng.random(len(groups)) < rate[groups]
        flat = rng.random((2, len(groups))) < 0.01  # both ways alike: changes, but no net loss
        candidate = np.where(harmed, 0.0, 1.0 - (flat[0] & ~flat[1]))
        baseline = np.where(harmed, 1.0, 1.0 - (flat[1] & ~flat[0]))
        ours += margin_test(candidate, baseline, margin=margin, groups=groups).p_not_worse <= ALPHA
        lost = int((candidate < baseline).sum())
        naive += tango_p(int((candidate > baseline).sum()), lost, len(groups), margin=margin) <= ALPHA
    where = f"groups={n_groups} spread={spread} margin={margin}"
    return [
        Share(f"false release, jettison gate by group, {where}", ours, n_draws, f"alpha {ALPHA}"),
        Share(f"false release, groups ignored, {where}", naive, n_draws, f"alpha {ALPHA}"),
    ]


def group_sizes(shape: str, n_groups: int, rng: np.random.Generator) -> np.ndarray:
    """Sizes of groups: all alike, uneven, a long tail, or three that hold a third of all examples."""
    if shape == "equal":
        return np.full(n_groups, 4)
    if shape == "uneven":
        return rng.integers(1, 9, n_groups)
    if shape == "long tail":
        return np.minimum((rng.pareto(1.2, n_groups) + 1).astype(int), 300)
    return np.append(np.full(3, max(2, n_groups // 6)), np.ones(n_groups - 3, int))


def whole_group_errors(
    shape: str, n_groups: int, margin: float, *, only_large: bool, n_draws: int, seed: int
) -> Share:
    """False releases when harm spoils whole groups, of any size or of the largest tenth alone."""
    rng = np.random.default_rng(seed)
    released = 0
    for _ in range(n_draws):
        sizes = np.sort(group_sizes(shape, n_groups, rng))[::-1]
        struck = slice(0, max(3, n_groups // 10) if only_large else n_groups)
        rate = np.zeros(n_groups)
        rate[struck] = min(1.0, margin * sizes.sum() / sizes[struck].sum())
        groups = np.repeat(np.arange(n_groups), sizes)
        candidate = np.where((rng.random(n_groups) < rate)[groups], 0.0, 1.0)
        released += release_by_group(candidate, np.ones(len(groups)), groups, margin)
    where = "the largest tenth" if only_large else "any"
    name = f"false release, {n_groups} groups, {shape}, {where} spoiled whole, margin={margin}"
    return Share(name, released, n_draws, f"alpha {ALPHA}")


def heavy_group_errors(n_groups: int, spread: float, margin: float, *, n_draws: int, seed: int) -> Share:
    """False releases when three groups hold a third of all examples, and each group has its own rate."""
    rng = np.random.default_rng(seed)
    released = 0
    for _ in range(n_draws):
        sizes = group_sizes("three large", n_groups, rng)
        groups = np.repeat(np.arange(n_groups), sizes)
        rate = rng.beta(margin / spread, (1 - margin) / spread, n_groups)
        candidate = np.where(rng.random(len(groups)) < rate[groups], 0.0, 1.0)
        released += release_by_group(candidate, np.ones(len(groups)), groups, margin)
    name = f"false release, {n_groups} groups, three large, spread={spread} margin={margin}"
    return Share(name, released, n_draws, f"alpha {ALPHA}")


def twin_releases(n_groups: int, harmful: int, margin: float, *, n_draws: int, seed: int) -> Share:
    """Releases of a candidate that loses only a few of 1,326 grouped examples."""
    rng = np.random.default_rng(seed)
    n, released = 1326, 0
    for _ in range(n_draws):
        candidate = np.ones(n)
        candidate[rng.choice(n, harmful, replace=False)] = 0.0
        released += release_by_group(candidate, np.ones(n), np.arange(n) % n_groups, margin)
    name = f"released, {harmful} of {n} harmed in {n_groups} groups, margin={margin}"
    return Share(name, released, n_draws, "higher is better")


def release_by_group(
    candidate: np.ndarray, baseline: np.ndarray, groups: np.ndarray, margin: float
) -> bool:
    """Whether the gate releases."""
    return margin_test(candidate, baseline, margin=margin, groups=groups).p_not_worse <= ALPHA


def slices_errors(n_slices: int, *, n_draws: int, seed: int) -> list[Share]:
    """False releases when every slice must hold; one sits at the boundary, the others lose nothing."""
    rng = np.random.default_rng(seed)
    n, margin = 500, 0.03
    held = np.ones(n_draws, bool)
    for index in range(n_slices):
        rates = (0.02, 0.02 + margin * (index == 0), 0.96 - margin * (index == 0))
        counts = rng.multinomial(n, rates, n_draws)
        held &= gate_passes(counts[:, 0], counts[:, 1], n, margin=margin, alpha=ALPHA)
    name = f"false release, every one of {n_slices} slices at full alpha"
    return [Share(name, int(held.sum()), n_draws, f"alpha {ALPHA}")]


def roles_errors(*, n_draws: int, seed: int) -> list[Share]:
    """False releases when a nominee and a fallback both sit at the boundary, at 0.8 and 0.2 of alpha."""
    rng = np.random.default_rng(seed)
    n, margin = 1000, 0.02
    split = np.zeros(n_draws, bool)
    twice = np.zeros(n_draws, bool)
    for part in (0.8, 0.2):
        counts = rng.multinomial(n, (0.01, 0.01 + margin, 0.98 - margin), n_draws)
        split |= gate_passes(counts[:, 0], counts[:, 1], n, margin=margin, alpha=ALPHA * part)
        twice |= gate_passes(counts[:, 0], counts[:, 1], n, margin=margin, alpha=ALPHA)
    return [
        Share(
            "false release, nominee or fallback, alpha split", int(split.sum()), n_draws, f"alpha {ALPHA}"
        ),
        Share(
            "false release, nominee or fallback, full alpha twice",
            int(twice.sum()),
            n_draws,
            f"alpha {ALPHA}",
        ),
    ]


def certificate_errors(n: int, epsilon: float, delta: float, *, n_draws: int, seed: int) -> list[Share]:
    """Certified thresholds whose true harm is above epsilon; confidence is uniform, harm falls with it."""
    rng = np.random.default_rng(seed)
    broken = n_certified = 0
    for _ in range(n_draws):
        score = rng.random(n)
        harmful = rng.random(n) < 0.4 * (1 - score) ** 2
        certified = certify_threshold(score, harmful, epsilon=epsilon, delta=delta)
        if certified is not None:
            n_certified += 1
            broken += 0.4 * (1 - certified.threshold) ** 3 / 3 > epsilon  # integral of the harm above it
    where = f"n={n} epsilon={epsilon}"
    return [
        Share(f"certificate does not hold, {where}", broken, n_draws, f"delta {delta}"),
        Share(f"certificate given, {where}", n_certified, n_draws, "higher is better"),
    ]


def forecast_errors(*, n_draws: int, seed: int) -> list[Share]:
    """Candidates that pass, among those whose predicted chance fell in a band: the two should agree."""
    rng = np.random.default_rng(seed)
    n_dev, n_test, margin = 1000, 1500, 0.02
    flips = 0.05 * rng.random((n_draws, 2)) ** 2  # dense near zero, as the forecast's own prior is
    truth = np.column_stack([flips, 1 - flips.sum(axis=1)])
    chance, passed = np.empty(n_draws), np.empty(n_draws, bool)
    for i, rates in enumerate(truth):
        b, c, _ = rng.multinomial(n_dev, rates)
        chance[i] = pass_probability(
            int(b), int(c), n_dev, n_test=n_test, margin=margin, n_draws=300, seed=i
        )
        on_test = rng.multinomial(n_test, rates)
        passed[i] = gate_passes(on_test[:1], on_test[1:2], n_test, margin=margin, alpha=ALPHA)[0]
    bands = ((0.0, 0.33), (0.33, 0.67), (0.67, 1.01))
    found = []
    for low, high in bands:
        here = (chance >= low) & (chance < high)
        if here.any():
            told = f"predicted {chance[here].mean():.3f}"
            found.append(
                Share(
                    f"pass rate, predicted {low} to {min(high, 1)}",
                    int(passed[here].sum()),
                    int(here.sum()),
                    told,
                )
            )
    return found


def figures(n_draws: int, seed: int) -> Iterator[Share]:
    """Every figure of this benchmark."""
    for setting in SETTINGS:
        yield from paired_errors(*setting, n_draws=n_draws, seed=seed)
    for n_groups, spread, margin in (
        (15, 0.3, 0.1),
        (40, 0.3, 0.1),
        (100, 0.3, 0.05),
        (300, 0.1, 0.05),
        (800, 0.1, 0.03),
    ):
        yield from clustered_errors(n_groups, spread, margin, n_draws=n_draws // 2, seed=seed)
    for shape in SHAPES:
        for n_groups, only_large in ((12, False), (40, False), (150, True), (400, False), (400, True)):
            yield whole_group_errors(
                shape, n_groups, 0.05, only_large=only_large, n_draws=n_draws // 8, seed=seed
            )
    for n_groups, spread, margin in HEAVY:
        yield heavy_group_errors(n_groups, spread, margin, n_draws=n_draws // 8, seed=seed)
    for n_groups in (15, 40, 300, 1000):
        for harmful in range(4):
            for margin in (0.01, 0.03):
                yield twin_releases(n_groups, harmful, margin, n_draws=20, seed=seed)
    yield from slices_errors(4, n_draws=n_draws, seed=seed)
    yield from roles_errors(n_draws=n_draws, seed=seed)
    for n, epsilon in ((200, 0.05), (500, 0.05), (2000, 0.01)):
        yield from certificate_errors(n, epsilon, 0.1, n_draws=n_draws // 2, seed=seed)
    yield from forecast_errors(n_draws=min(n_draws, 1500), seed=seed)


@cache
def _bootstrap_low(b: int, c: int, n: int) -> float:
    counts = np.random.default_rng(b * 100_003 + c).multinomial(n, (b / n, c / n, (n - b - c) / n), 1000)
    return float(np.quantile((counts[:, 0] - counts[:, 1]) / n, ALPHA))


def _wald_low(b: np.ndarray, c: np.ndarray, n: int) -> np.ndarray:
    mean = (b - c) / n
    return np.asarray(mean - stats.norm.isf(ALPHA) * np.sqrt(((b + c) / n - mean**2) / n))


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--draws", type=int, default=4000)
    arguments.add_argument("--seed", type=int, default=0)
    given = arguments.parse_args()
    for share in figures(given.draws, given.seed):
        print(share.line(), flush=True)
