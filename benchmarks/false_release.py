"""How often does the whole pipeline release a candidate that truly loses the margin?

Simulated projects, each with twelve candidates that all sit at the boundary: every release is an error.
Dev picks a nominee and a fallback (the best looking of all), test decides; a project that was refused makes
twelve new candidates and tries again on the same test split, up to three times. Three set-ups:

- `slice`: each loses exactly the margin (3 points) on one of four slices of 250 and nothing elsewhere;
- `even`: each loses exactly 1 point everywhere, and one gate at 1 point looks at all 2,000 examples;
- `small`: as `slice`, on two slices of 40 examples: the long tail, where bootstraps do not hold.

Ours is `jettison.decide.decide` with its roles and its ledger of readings; beside it stand what teams do on
the same draws: "test accuracy dropped by less than the margin", overall and on every slice and for the best
of the twelve on test, and a percentile-bootstrap bound on every slice. Prints one JSON object a figure.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from jettison.decide.decide import Evidence, decide
from jettison.decision import CostSummary, Interval, NotWorse
from jettison.record import Record
from jettison.stats.binomial import clopper_pearson

N_CANDIDATES, N_TRIES = 12, 3
ACCURACY = 0.95
CHURN = (0.0, 0.01)
"""Share of answers gained, with as many lost beside the margin."""
COST = CostSummary(cpu_ratio=Interval(value=0.3, low=0.28, high=0.32))


@dataclass(frozen=True, kw_only=True)
class Setup:
    """What a project looks like."""

    margin: float
    n_slices: int
    n_per_slice: int
    n_dev_per_slice: int
    is_even: bool = False
    """Whether the loss is spread over all slices and one gate looks at them together."""

    @property
    def gate(self) -> NotWorse:
        """What a candidate must hold."""
        parts = ("all",) if self.is_even else tuple(f"part={k}" for k in range(self.n_slices))
        return NotWorse(margin=self.margin, slices=parts)


SETUPS = {
    "slice": Setup(margin=0.03, n_slices=4, n_per_slice=250, n_dev_per_slice=150),
    "even": Setup(margin=0.01, n_slices=1, n_per_slice=2000, n_dev_per_slice=1000, is_even=True),
    "small": Setup(margin=0.03, n_slices=2, n_per_slice=40, n_dev_per_slice=30),
}


@cache
def record(i: int, outcome: int, part: int) -> Record:
    """What a model answered to one example: 1 right, 0 wrong. Made once, since it never changes."""
    return Record(
        candidate="c",
        example_id=str(i),
        split="test",
        output="right" if outcome else "wrong",
        expected="right",
        scores={"label": float(outcome)},
        slices={"part": str(part)},
    )


def answers(right: np.ndarray) -> list[Record]:
    """Records of one model, shape (n_slices, n_per_slice)."""
    return [record(i, int(ok), i // right.shape[1]) for i, ok in enumerate(right.ravel())]


def candidate(
    rng: np.random.Generator, incumbent: np.ndarray, churn: float, weak: int, setup: Setup
) -> np.ndarray:
    """Answers of a candidate at the boundary, which loses right answers and gains wrong ones."""
    lost = np.full((len(incumbent), 1), churn)
    lost[slice(None) if setup.is_even else weak] += setup.margin
    draw = rng.random(incumbent.shape)
    return np.where(incumbent, draw >= lost / ACCURACY, draw < churn / (1 - ACCURACY))


def released(incumbent: np.ndarray, finalists: Sequence[np.ndarray], n_reads: int, gate: NotWorse) -> bool:
    """Whether our decision on the test split releases the nominee or the fallback."""
    base, *sides = (
        Evidence(name=role, digest=role, records=answers(right), cost=COST, role=role)
        for role, right in zip(("incumbent", "nominee", "fallback"), (incumbent, *finalists), strict=True)
    )
    decision = decide(
        "p", base, sides, [gate], test_digest="t", n_test_reads=n_reads, seed=0, machine={}, created=""
    )
    return decision.chosen is not None


def bootstrap_holds(difference: np.ndarray, margin: float, rng: np.random.Generator) -> bool:
    """Whether the 2.5 % quantile of 400 resampled means is above minus the margin on every slice."""
    for part in difference:
        n = len(part)
        shares = [float((part == -1).mean()), float((part == 1).mean())]
        drawn = rng.multinomial(n, [*shares, 1 - sum(shares)], 400)
        if np.quantile((drawn[:, 1] - drawn[:, 0]) / n, 0.025) <= -margin:
            return False
    return True


WAYS = {
    "false_release": "our decision; alpha 0.025, all three readings together promise at most 0.05",
    "naive_false_release": "test accuracy dropped by less than the margin, on all examples together",
    "naive_slices_false_release": "test accuracy dropped by less than the margin on every slice",
    "naive_best_on_test_false_release": "the best of twelve on test dropped by less than the margin",
    "bootstrap_false_release": "percentile-bootstrap bound above minus the margin on every slice",
}


def project(rng: np.random.Generator, setup: Setup, churn: float, n_tries: int) -> list[dict[str, bool]]:
    """One team on one test split: after each try, whether each way of deciding has released by then."""
    found = dict.fromkeys(WAYS, False)
    after = []
    dev = rng.random((setup.n_slices, setup.n_dev_per_slice)) < ACCURACY
    test = rng.random((setup.n_slices, setup.n_per_slice)) < ACCURACY
    for attempt in range(1, n_tries + 1):
        weak = rng.integers(0, setup.n_slices, N_CANDIDATES).tolist()
        looks = [float((candidate(rng, dev, churn, w, setup) - 1.0 * dev).mean(axis=1).min()) for w in weak]
        order = sorted(range(N_CANDIDATES), key=lambda i: -looks[i])
        on_test = [candidate(rng, test, churn, weak[i], setup) for i in order]
        difference = on_test[0] - 1.0 * test
        found["false_release"] |= released(test, on_test[:2], attempt, setup.gate)
        found["naive_false_release"] |= bool(difference.mean() > -setup.margin)
        found["naive_slices_false_release"] |= bool((difference.mean(axis=1) > -setup.margin).all())
        best = max(float((right - 1.0 * test).mean()) for right in on_test)
        found["naive_best_on_test_false_release"] |= best > -setup.margin
        found["bootstrap_false_release"] |= bootstrap_holds(difference, setup.margin, rng)
        after.append(dict(found))
    return after


def simulate(
    n_projects: int, *, setup: str = "slice", seed: int = 0, n_tries: int = N_TRIES
) -> list[dict[str, int]]:
    """After each try, projects in which each way of deciding has released what must not be."""
    rng = np.random.default_rng(seed)
    hits = [dict.fromkeys(WAYS, 0) for _ in range(n_tries)]
    for i in range(n_projects):
        for so_far, after in zip(
            hits, project(rng, SETUPS[setup], CHURN[i % len(CHURN)], n_tries), strict=True
        ):
            for way, is_hit in after.items():
                so_far[way] += is_hit
    return hits


def main() -> None:
    """Simulate and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--projects", type=int, default=2000)
    parser.add_argument("--setups", nargs="*", choices=tuple(SETUPS), default=list(SETUPS))
    arguments = parser.parse_args()
    for setup in arguments.setups:
        after = simulate(arguments.projects, setup=setup)
        for n_tries in (1, N_TRIES):
            # The named figures are those of the first set-up with all its tries.
            named = "" if (setup, n_tries) == ("slice", N_TRIES) else f", {setup}, tries {n_tries}"
            for way, n in after[n_tries - 1].items():
                seen = clopper_pearson(n, arguments.projects)
                figure = {"name": way + named, "value": seen.value}
                figure |= {"low": round(seen.low, 4), "high": round(seen.high, 4)}
                print(json.dumps({**figure, "unit": "share of projects", "against": WAYS[way]}), flush=True)


if __name__ == "__main__":
    main()
