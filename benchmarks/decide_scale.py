"""How long does a decision on 100,000 records across 20 slices take?

Two models' records on 100,000 examples, twenty slices that must each hold beside all, one machine, one
thread. Beside it stands the habit it replaces: a percentile bootstrap of the same 21 differences, 1,000
draws, in NumPy. Prints one JSON object a figure.
"""

import argparse
import json
import os
import statistics
import time

import numpy as np

from jettison.decide.decide import Evidence, decide
from jettison.decision import CostSummary, Interval, NotWorse
from jettison.record import Record

N_EXAMPLES, N_SLICES = 100_000, 20


def records(digest: str, right: np.ndarray, slices: np.ndarray, confidence: np.ndarray) -> list[Record]:
    """One model's records, each with a label, a confidence and a slice."""
    return [
        Record(
            candidate=digest,
            example_id=str(i),
            split="test",
            output=f"label{i % 50}" if ok else "other",
            expected=f"label{i % 50}",
            confidence=sure,
            scores={"label": float(ok)},
            slices={"domain": f"d{where}"},
        )
        for i, (ok, where, sure) in enumerate(
            zip(right.tolist(), slices.tolist(), confidence.tolist(), strict=True)
        )
    ]


def bootstrap(
    incumbent: np.ndarray, candidate: np.ndarray, slices: np.ndarray, rng: np.random.Generator
) -> None:
    """Lower bounds of 21 differences by 1,000 resamples each."""
    difference = candidate.astype(float) - incumbent
    for part in (difference, *(difference[slices == k] for k in range(N_SLICES))):
        means = [part[rng.integers(0, len(part), len(part))].mean() for _ in range(1000)]
        np.quantile(means, 0.025)


def main() -> None:
    """Time the decision and the bootstrap in turns."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    rng = np.random.default_rng(0)
    slices = rng.integers(0, N_SLICES, N_EXAMPLES)
    incumbent = rng.random(N_EXAMPLES) < 0.95
    flip = rng.random(N_EXAMPLES)
    candidate = np.where(flip < 0.01, ~incumbent, incumbent)
    confidence = rng.uniform(0.5, 1, N_EXAMPLES)
    cost = CostSummary(cpu_ratio=Interval(value=0.3, low=0.28, high=0.32))
    sides = [
        Evidence(
            name=name, digest=name, records=records(name, right, slices, confidence), cost=cost, role=role
        )
        for name, right, role in (("large", incumbent, "incumbent"), ("lean", candidate, "nominee"))
    ]
    gates = [NotWorse(margin=0.02, slices=("all", "domain=*"))]
    ours, theirs, cpu = [], [], []
    for _ in range(rounds):
        started, burnt = time.perf_counter(), time.process_time()
        decision = decide(
            "scale",
            sides[0],
            sides[1:],
            gates,
            test_digest="t",
            n_test_reads=1,
            seed=0,
            machine={},
            created="",
        )
        ours.append(time.perf_counter() - started)
        cpu.append(time.process_time() - burnt)
        started = time.perf_counter()
        bootstrap(incumbent, candidate, slices, rng)
        theirs.append(time.perf_counter() - started)
    assert len(decision.candidates[1].gates) == N_SLICES + 2  # all, the slices, and that it costs less
    print(
        json.dumps(
            {
                "name": "seconds_100k",
                "value": round(statistics.median(ours), 3),
                "low": round(min(ours), 3),
                "high": round(max(ours), 3),
                "unit": "s",
                "cpu_s": round(statistics.median(cpu), 3),
                "load": round(os.getloadavg()[0], 1),
                "against": "percentile bootstrap of the same differences, 1,000 draws: "
                f"{statistics.median(theirs):.2f} s; low and high are the extremes of {rounds} rounds",
            }
        )
    )


if __name__ == "__main__":
    main()
