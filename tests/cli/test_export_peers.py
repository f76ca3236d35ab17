"""What `jettison export` writes, opened and run by the very tools it is written for.

Each lives in an environment of its own in `$JETTISON_PEERS` (or `../peers` beside the checkout):
`inspect-ai` with inspect_ai 0.3.285, `lm-eval` with lm-eval 0.4.13, and `every-eval-ever`, the unpacked
wheel 0.3.0.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fake_runs import FakeLean, config_at
from jettison import registry
from jettison.cli.main import jettison
from jettison.decide.predictions import read_predictions
from jettison.loop.run import run
from jettison.record import read_records
from jettison.release import open_release

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]
PEERS = Path(os.environ.get("JETTISON_PEERS", ROOT.parent / "peers")).absolute()


def peer(name: str) -> str:
    python = PEERS / name / "bin" / "python"
    if not python.is_file():
        pytest.skip(f"no environment with {name} at {PEERS}")
    return str(python)


def said_by(python: str, script: str, *arguments: object, **environment: str) -> dict:
    """What a script in another tool's environment prints as JSON."""
    done = subprocess.run(
        [python, "-c", script, *map(str, arguments)],
        capture_output=True, text=True, check=False, timeout=300, env={**os.environ, **environment},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


def export(*arguments: object) -> None:
    assert jettison.main(["export", *map(str, arguments)], standalone_mode=False) == 0


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """The folder of a run that released its candidate; not made where no tool is there to look at it."""
    if not PEERS.is_dir():
        pytest.skip(f"no environments of other tools at {PEERS}")
    folder = tmp_path_factory.mktemp("exported")
    registry.register("steps", "fake_lean", FakeLean)
    outcome = run(config_at(folder, {"name": "lean", "accuracy": 0.97}))
    assert outcome.release is not None
    return outcome.folder


READ_LOG = """
import json, sys
from inspect_ai.log import read_eval_log, read_eval_log_sample, read_eval_log_sample_summaries
log = read_eval_log(sys.argv[1])
one = read_eval_log_sample(sys.argv[1], id=log.samples[0].id, epoch=1)
head = read_eval_log(sys.argv[1], header_only=True)
print(json.dumps({
    "status": log.status, "task": head.eval.task, "model": head.eval.model,
    "accuracy": log.results.scores[0].metrics["accuracy"].value,
    "values": {s.id: s.scores["label"].value for s in log.samples},
    "inputs": {s.id: s.input for s in log.samples},
    "summaries": len(read_eval_log_sample_summaries(sys.argv[1])),
    "answer": one.output.completion,
}))
"""


def test_inspect_reads_the_log_of_a_run_and_of_its_release(finished, tmp_path):
    python = peer("inspect-ai")
    export(finished, "--to", "inspect", "-o", tmp_path / "run.eval")
    found = said_by(python, READ_LOG, tmp_path / "run.eval")
    release = open_release(finished / "release")
    digest = next(iter(release.candidates.values()))
    evidence = [read_records(release.path / "evidence" / name) for name in release.evidence]
    (records,) = (side for side in evidence if side[0].candidate == digest)
    assert found["values"] == {r.example_id: r.scores["label"] for r in records}
    assert found["accuracy"] == pytest.approx(sum(found["values"].values()) / len(records))
    assert (found["status"], found["task"], found["model"]) == ("success", "questions", "jettison/lean")
    assert found["summaries"] == len(records)
    assert all("question about order" in text for text in found["inputs"].values())
    again = tmp_path / "release.eval"
    export(finished / "release", "--to", "inspect", "-o", again, "--task", finished.parent / "task.toml")
    assert (
        read_predictions(again).records[0].scores
        == read_predictions(tmp_path / "run.eval").records[0].scores
    )
    export(finished, "--to", "inspect", "-o", tmp_path / "old.eval", "--candidate", "incumbent")
    assert said_by(python, READ_LOG, tmp_path / "old.eval")["model"] == "jettison/incumbent"


def test_the_validator_of_every_eval_ever_passes_the_records_of_a_run(finished, tmp_path):
    if not (PEERS / "every-eval-ever" / "every_eval_ever").is_dir():
        pytest.skip(f"no unpacked wheel of every-eval-ever at {PEERS}")
    told = ("--organization", "Us", "--model", "us/lean")
    export(finished, "--to", "every-eval-ever", "-o", tmp_path, *told)
    done = subprocess.run(
        [sys.executable, "-m", "every_eval_ever.validator.validate", "--format", "json", "data/**/*.json*"],
        cwd=tmp_path, capture_output=True, text=True, check=False, timeout=300,
        env={**os.environ, "PYTHONPATH": str(PEERS / "every-eval-ever")},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]


RUN_TASK = """
import json, sys
import lm_eval
from lm_eval.tasks import TaskManager
manager = TaskManager(include_path=sys.argv[1], include_defaults=False)
found = lm_eval.simple_evaluate(
    model="dummy", tasks=["questions"], task_manager=manager, limit=40, log_samples=True, bootstrap_iters=0
)
samples = found["samples"]["questions"]
print(json.dumps({
    "prompts": [s["arguments"][0][0] for s in samples], "targets": [s["target"] for s in samples],
    "ids": [s["doc"]["id"] for s in samples], "accuracy": found["results"]["questions"]["acc,none"],
}, default=str))
"""


def test_lm_eval_loads_the_task_of_a_run_and_runs_it(finished, tmp_path):
    python = peer("lm-eval")
    export(finished, "--to", "lm-eval", "-o", tmp_path / "tasks")
    found = said_by(
        python, RUN_TASK, tmp_path / "tasks",
        HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", TRANSFORMERS_OFFLINE="1", HF_HOME=str(tmp_path / "hf"),
    )  # fmt: skip
    written = (tmp_path / "tasks" / "questions.test.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in written[:40]]
    assert found["ids"] == [row["id"] for row in rows]
    assert found["prompts"] == [row["question"] for row in rows]
    assert 0 <= found["accuracy"] <= 1
