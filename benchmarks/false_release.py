"""How often does the whole pipeline release a candidate that truly loses the margin on some slice?

Simulated projects, each with twelve candidates that all sit at the boundary: each loses exactly the margin
on one of four slices and nothing elsewhere. Dev picks a nominee and a fallback (the best looking of
all), test decides; a project that was refused makes twelve new candidates and tries again on the same
test split, up to three times. Every release is an error. Ours is `jettison.decide.decide` with its roles
and its ledger of readings; beside it stand what teams do on the same draws: "test accuracy dropped by
less than the margin", overall and on every slice, and a percentile-bootstrap bound on every slice.
Prints one JSON object a figure.
"""

import argparse
import json
from collections.abc import Sequence
from functools import cache

import numpy as np

from jettison.decide.decide import Evidence, decide
from jettison.decision import CostSummary, Interval, NotWorse
from jettison.record import Record
from jettison.stats.binomial import clopper_pearson

MARGIN, N_SLICES, N_CANDIDATES, N_TRIES = 0.03, 4, 12, 3
N_PER_SLICE, N_DEV_PER_SLICE = 250, 150
ACCURACY = 0.95
CHURN = (0.0, 0.01)
"""Share of answers gained, with as many lost beside the margin."""
COST = CostSummary(cpu_ratio=Interval(value=0.3, low=0.28, high=0.32))
GATE = NotWorse(margin=MARGIN, slices=tuple(f"part={k}" for k in range(N_SLICES)))


@cache
def record(i: int, outcome: int) -> Record:
    """What a model answered to one example: 1 right, 0 wrong. Made once, since it never changes."""
    return Record(
        candidate="c",
        example_id=str(i),
        split="test",
        output="right" if outcome else "wrong",
        expected="right",
        scores={"label": float(outcome)},
        slices={"part": str(i // N_PER_SLICE)},
    )


def answers(right: np.ndarray) -> list[Record]:
    """Records of one model."""
    return [record(i, int(ok)) for i, ok in enumerate(right.ravel())]


def candidate(rng: np.random.Generator, incumbent: np.ndarray, churn: float, weak: int) -> np.ndarray:
    """Answers of a candidate that loses the margin on one slice: lost where right, gained where wrong."""
    lost = np.full((N_SLICES, 1), churn)
    lost[weak] += MARGIN
    draw = rng.random(incumbent.shape)
    return np.where(incumbent, draw >= lost / ACCURACY, draw < churn / (1 - ACCURACY))


def released(incumbent: np.ndarray, finalists: Sequence[np.ndarray], n_reads: int) -> bool:
    """Whether our decision on the test split releases the nominee or the fallback."""
    base, *sides = (
        Evidence(name=role, digest=role, records=answers(right), cost=COST, role=role)
        for role, right in zip(("incumbent", "nominee", "fallback"), (incumbent, *finalists), strict=True)
    )
    decision = decide(
        "p", base, sides, [GATE], test_digest="t", n_test_reads=n_reads, seed=0, machine={}, created=""
    )
    return decision.chosen is not None


def bootstrap_holds(difference: np.ndarray, rng: np.random.Generator) -> bool:
    """Whether the 2.5 % quantile of 400 resampled means is above minus the margin on every slice."""
    for part in difference:
        n = len(part)
        shares = [float((part == -1).mean()), float((part == 1).mean())]
        drawn = rng.multinomial(n, [*shares, 1 - sum(shares)], 400)
        if np.quantile((drawn[:, 1] - drawn[:, 0]) / n, 0.025) <= -MARGIN:
            return False
    return True


WAYS = {
    "false_release": "our decision; alpha 0.025, all three readings together promise at most 0.05",
    "naive_false_release": "test accuracy dropped by less than the margin, on all examples together",
    "naive_slices_false_release": "test accuracy dropped by less than the margin on every slice",
    "bootstrap_false_release": "percentile-bootstrap bound above minus the margin on every slice",
}


def project(rng: np.random.Generator, churn: float, *, n_tries: int = N_TRIES) -> dict[str, bool]:
    """One team and its tries on one test split; whether each way of deciding ever released."""
    found = dict.fromkeys(WAYS, False)
    dev = rng.random((N_SLICES, N_DEV_PER_SLICE)) < ACCURACY
    test = rng.random((N_SLICES, N_PER_SLICE)) < ACCURACY
    for attempt in range(1, n_tries + 1):
        weak = rng.integers(0, N_SLICES, N_CANDIDATES).tolist()
        looks = [float((candidate(rng, dev, churn, w) - 1.0 * dev).mean(axis=1).min()) for w in weak]
        best = sorted(range(N_CANDIDATES), key=lambda i: -looks[i])[:2]
        finalists = [candidate(rng, test, churn, weak[i]) for i in best]
        difference = finalists[0] - 1.0 * test
        found["false_release"] |= released(test, finalists, attempt)
        found["naive_false_release"] |= bool(difference.mean() > -MARGIN)
        found["naive_slices_false_release"] |= bool((difference.mean(axis=1) > -MARGIN).all())
        found["bootstrap_false_release"] |= bootstrap_holds(difference, rng)
    return found


def simulate(n_projects: int, *, seed: int = 0, n_tries: int = N_TRIES) -> dict[str, int]:
    """Projects in which each way of deciding released a candidate that must not be."""
    rng = np.random.default_rng(seed)
    hits = dict.fromkeys(WAYS, 0)
    for i in range(n_projects):
        for way, is_hit in project(rng, CHURN[i % len(CHURN)], n_tries=n_tries).items():
            hits[way] += is_hit
    return hits


def main() -> None:
    """Simulate and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--projects", type=int, default=2000)
    parser.add_argument("--tries", type=int, default=N_TRIES)
    arguments = parser.parse_args()
    hits = simulate(arguments.projects, n_tries=arguments.tries)
    for way, n in hits.items():
        seen = clopper_pearson(n, arguments.projects)
        figure = {"name": way, "value": seen.value, "low": round(seen.low, 4), "high": round(seen.high, 4)}
        print(json.dumps({**figure, "unit": "share of projects", "against": WAYS[way]}))


if __name__ == "__main__":
    main()
