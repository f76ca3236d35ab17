"""How often a target beside itself shows a difference: 20 A/A runs, each with its ratio's interval.

One real classifier (MiniLM in int8 ONNX, as `int8_parity.py` makes it) is named twice to the functions
that `jettison cost` calls, each opened in six fresh processes. `--part single`: CPU-seconds in interleaved
rounds, one task at a time. `--part load`: median latency, and CPU-seconds, under Poisson arrivals, paired
blocks. A 95 % interval should cover 1 in 18 of 20 runs or more. Runs are kept in the workspace: a second
call goes on where the first ended (`--most-s`). Run: `python benchmarks/aa_runs.py --part single`, then
`--part load` (10 and 15 minutes).
"""

import argparse
import os
import time
from collections.abc import Sequence
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

from beside import figure
from int8_parity import read_incumbent
from jettison.candidate import Candidate
from jettison.compress.quantize import Quantize
from jettison.compress.step import StepContext, apply_step
from jettison.cost.inputs import sample_inputs
from jettison.cost.load_measure import Scenario, measure_load
from jettison.cost.measure import measure_costs
from jettison.cost.ratio import OPENINGS
from jettison.decision import Interval
from jettison.files import read_json, write_json
from jettison.stats.binomial import wilson

MUST_COVER = 0.9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--part", choices=["single", "load"], default="single")
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--openings", type=int, default=OPENINGS)
    parser.add_argument("--most-s", type=float, default=1e9, help="begin no run after so many seconds")
    parser.add_argument("--workspace", type=Path, default=Path(".jettison/benchmarks/int8_parity"))
    given = parser.parse_args()
    incumbent, data = read_incumbent(given.workspace)
    context = StepContext(data=data, incumbent=incumbent, folder=given.workspace, workspace=given.workspace)
    target = apply_step(Quantize(method="dynamic"), incumbent, context, cache=given.workspace / "made")
    inputs = sample_inputs([example.input for example in data.dev], n=128, seed=0)
    run = run_single if given.part == "single" else run_load
    kept = given.workspace / f"aa_{given.part}_{given.openings}.json"
    found = read_json(kept, list[dict[str, Interval]]) if kept.exists() else []
    began = time.time()
    for seed in range(len(found), given.runs):
        if time.time() - began > given.most_s:
            break
        started = time.time()
        found.append(run(target, inputs, seed, given.openings))
        write_json(kept, found)
        told = ", ".join(
            f"{name} {r.value:.4f} [{r.low:.4f}, {r.high:.4f}]" for name, r in found[-1].items()
        )
        print(f"run {seed}: {told}; {time.time() - started:.0f} s", flush=True)
    for name in found[0]:
        report(name, [ratios[name] for ratios in found])


def run_single(target: Candidate, inputs: Sequence[str], seed: int, openings: int) -> dict[str, Interval]:
    """CPU-seconds over its own, and those of the twin that every run has, whose interval stands alone."""
    costs = measure_costs(
        [target, target], inputs, rounds=18, openings=openings, seed=seed, budget_s=8.0, throughput=False
    )
    ratio, twin = costs[1].cpu_ratio, costs[0].aa_ratio
    assert ratio is not None
    assert twin is not None
    return {"single": ratio, "single_twin": twin}


def run_load(target: Candidate, inputs: Sequence[str], seed: int, openings: int) -> dict[str, Interval]:
    """Median latency from the schedule, and CPU-seconds, over its own, at 40 requests a second."""
    scenario = Scenario(kind="server", rate_per_s=40.0, duration_s=6.0)
    found = measure_load([target, target], inputs, scenario, seed=seed, openings=openings)
    ratio, cpu = found.targets[1].latency_ratio, found.targets[1].cpu_ratio
    assert ratio is not None
    assert cpu is not None
    assert found.aa_ratio is not None
    return {"load": ratio, "load_cpu": cpu, "load_twin": found.aa_ratio}


def report(part: str, found: Sequence[Interval]) -> None:
    n_cover = sum(ratio.low <= 1 <= ratio.high for ratio in found)
    share = wilson(n_cover, len(found))
    widths = sorted(ratio.high - ratio.low for ratio in found)
    farthest = max(max(ratio.value, 1 / ratio.value) for ratio in found) - 1
    print(f"median width of the interval {widths[len(widths) // 2]:.3f}, farthest from 1 by {farthest:.1%}")
    print(
        figure(
            f"aa_covers_{part}", n_cover / len(found), share.low, share.high, "share",
            "1, the ratio of a target to itself", runs=len(found),
            is_enough=n_cover >= MUST_COVER * len(found),
        )
    )  # fmt: skip


if __name__ == "__main__":
    main()
