"""How much of the incumbent is left after half or two thirds of its layers go, and a minute of healing.

`python benchmarks/prune_distill.py [--seconds 60] [--depth 3 --depth 2] [--folder F]` trains on CLINC150's
train split and judges on the half of its val split that early stopping does not see. Nothing here
reads the test split. F keeps what was made. Prints one JSON object a figure.
"""

import argparse
import dataclasses
import os
import sys
import tempfile
import time
from pathlib import Path

from beside import figure
from jettison.backends.open import open_model
from jettison.candidate import Candidate
from jettison.compress.deadline import Deadline
from jettison.compress.distill import Distill
from jettison.compress.incumbent import take_in
from jettison.compress.prune import Prune
from jettison.compress.step import StepContext, apply_step
from jettison.compress.teacher import teacher_logits
from jettison.stats.binomial import clopper_pearson
from jettison.task import Development
from student_speed import MODEL, read_development


def report(name: str, candidate: Candidate, data: Development, against: str) -> None:
    """In-scope accuracy on the certifying half of dev."""
    kept = [example for example in data.dev_certify if example.expected != data.out_of_scope]
    outputs = open_model(candidate).predict([example.input for example in kept])
    right = sum(o.label == e.expected for o, e in zip(outputs, kept, strict=True))
    seen = clopper_pearson(right, len(kept))
    print(
        figure(f"{name}_dev_accuracy", right / len(kept), seen.low, seen.high, "share", against), flush=True
    )


def main(folder: Path, seconds: float, depths: list[int]) -> None:
    data = read_development()
    incumbent = take_in(
        str(MODEL), labels=data.labels, out_of_scope="oos", cache=folder / "cache", seed=0, data=data
    )
    context = StepContext(data=data, incumbent=incumbent, folder=folder, workspace=folder / "workspace")
    report("incumbent", incumbent, data, "none")
    started = time.process_time()
    teacher_logits(context, [example.input for example in data.train])
    taught_s = time.process_time() - started
    print(figure("teaching_cpu_s", taught_s, taught_s, taught_s, "s", "once for all students"))
    for depth in depths:
        pruned = apply_step(Prune(depth=depth), incumbent, context, cache=folder / "cache")
        report(f"{depth}_layers_pruned", pruned, data, "incumbent")
        timed = dataclasses.replace(context, deadline=Deadline(time.monotonic() + seconds))
        healed = apply_step(Distill(), pruned, timed, cache=folder / "cache")
        report(f"{depth}_layers_healed", healed, data, "incumbent")
        print(healed.lineage[-1].notes["training"], healed.lineage[-1].notes["texts"], file=sys.stderr)


if __name__ == "__main__":
    if os.environ.get("OMP_NUM_THREADS") != "1":
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, "OMP_NUM_THREADS": "1"})
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--depth", type=int, action="append")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        main(given.folder or Path(made), given.seconds, given.depth or [3, 2])
