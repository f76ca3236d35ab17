"""`jettison compare` on models: the gate alone, test split read once."""

import json
import subprocess
import sys

from fake_runs import LABELS, task_at
from jettison.candidate import write_candidate


def compare(tmp_path, *more):
    command = [sys.executable, "-m", "jettison.cli", "compare", str(tmp_path / "a"), str(tmp_path / "b")]
    command += ["--task", str(tmp_path / "task.toml"), *more]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_two_candidates_are_compared_on_the_test_split(tmp_path):
    task_at(tmp_path, n_test=600)
    for name, accuracy in (("a", 0.97), ("b", 0.8)):
        (tmp_path / name).mkdir()
        settings = {"accuracy": accuracy}
        write_candidate(tmp_path / name, name=name, backend="fake", labels=LABELS, settings=settings)
    done = compare(tmp_path, "--json")
    assert done.returncode == 1, done.stderr
    assert "BLOCK" in done.stdout
    json.loads(done.stdout)
    assert compare(tmp_path).returncode == 1
    ledger = (tmp_path / ".jettison" / "test_reads.jsonl").read_text().splitlines()
    assert len(ledger) == 1


def test_a_model_that_is_not_there_is_bad_input(tmp_path):
    task_at(tmp_path, n_test=600)
    done = compare(tmp_path)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
