"""How `release-1` was made: a tiny linear student, calibrated, judged on its dev split, released.

It stands for every release of format 1 and is not made again: if it no longer opens, the
code has changed and the format number must rise.

    python tests/golden/make_release_1.py tests/golden/release-1
"""

import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

import msgspec

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from jettison.candidate import write_candidate
from jettison.compress.step import StepContext, apply_step, step_from
from jettison.evaluate import calibrate, evaluate, evaluation_file, reference_profile
from jettison.release import write_release
from releasing import make_decision
from tiny import make_tiny_development


def make(folder: Path, workspace: Path) -> None:
    data = make_tiny_development()
    (workspace / "teacher").mkdir()
    teacher = write_candidate(
        workspace / "teacher",
        name="teacher",
        backend="fake",
        labels=data.labels,
        out_of_scope=data.out_of_scope,
        licence="Apache-2.0",
    )
    context = StepContext(data=data, incumbent=teacher, folder=workspace, workspace=workspace / "shared")
    step = step_from({"step": "distill_linear", "max_features": 400, "epochs": 5})
    student = apply_step(step, teacher, context, cache=workspace / "steps", name="lean|er")
    student = calibrate(student, data, cache=workspace / "calibrated")
    kept = workspace / "records"
    records = evaluate(student, data.dev, split="dev", folder=kept)
    write_release(
        folder,
        candidate=student,
        decision=msgspec.structs.replace(make_decision(student), headline="A golden file: no proof."),
        evidence=[evaluation_file(kept, student, data.dev, split="dev")],
        task_name="tiny",
        profile=reference_profile(records, [example.input for example in data.dev]),
        now=datetime(2026, 11, 23, tzinfo=UTC),
    )


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as workspace:
        make(Path(sys.argv[1]), Path(workspace))
