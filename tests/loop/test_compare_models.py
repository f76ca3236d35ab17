"""`jettison compare` on models: the gate alone, test split read once."""

import json
import subprocess
import sys

import pytest
from click.testing import CliRunner

from fake_runs import LABELS, task_at
from jettison.candidate import write_candidate
from jettison.cli.compare import command
from jettison.errors import InvalidInput
from jettison.loop.compare_models import candidate_of, records_of
from jettison.loop.compare_texts import texts_of
from jettison.model import CONFIDENCE_MAP
from jettison.task.read import read_task
from tiny import make_tiny_development, make_tiny_language


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
    shown = compare(tmp_path)
    assert shown.returncode == 1
    stages = [line.split()[1] for line in shown.stderr.splitlines() if line.strip()[:1].isdigit()]
    assert stages == ["opening", "opening", "asking", "asking"]
    ledger = (tmp_path / ".jettison" / "test_reads.jsonl").read_text().splitlines()
    assert len(ledger) == 1


def test_files_of_free_answers_are_judged_by_the_scorer_that_the_task_names_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = [{"id": str(i), "q": f"how many are {i}", "a": str(i), "split": "test"} for i in range(60)]
    dev = [{**row, "id": f"dev {row['id']}", "q": f"{row['q']} now", "split": "dev"} for row in rows]
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in [*dev, *rows]))
    (tmp_path / "task.toml").write_text(
        'format = 1\nname = "n"\nkind = "generate"\nscorers = ["numeric", "exact"]\n'
        '[data]\npath = "data.jsonl"\n'
        'columns = {id = "id", input = "q", expected = "a", split = "split"}\n'
    )
    for name, said in (("a", "{}"), ("b", "They are {}.")):
        answers = [{"id": row["id"], "output": said.format(row["a"])} for row in rows[1:]]
        answers.append({"id": "0", "output": None})
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in answers))

    def judged(*more: str) -> tuple[str, float]:
        arguments = ["a.jsonl", "b.jsonl", "--task", "task.toml", "--margin", "0.1", "--json", *more]
        found = json.loads(CliRunner().invoke(command, arguments, catch_exceptions=False).stdout)
        return found["gate"]["scorer"], found["results"][0]["candidate"]

    # Letter by letter, or by the scorer whose name comes first in the alphabet, none of B's is right.
    assert judged() == ("numeric", pytest.approx(59 / 60))
    assert judged("--scorer", "exact") == ("exact", 0.0)


def test_a_model_that_is_not_there_is_bad_input(tmp_path):
    task_at(tmp_path, n_test=600)
    done = compare(tmp_path)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("more", [(), ("--until-sure",)])
def test_a_model_that_cannot_be_opened_costs_no_reading_of_the_test_split(tmp_path, more):
    task_at(tmp_path, n_test=600)
    (tmp_path / "a").mkdir()
    write_candidate(tmp_path / "a", name="a", backend="fake", labels=LABELS, settings={})
    asked = [str(tmp_path / "a"), str(tmp_path / "b"), "--task", str(tmp_path / "task.toml"), *more]
    done = CliRunner().invoke(command, asked, standalone_mode=False)
    assert isinstance(done.exception, InvalidInput)
    assert "a model must be a folder, an .onnx file or a hub id org/name, got" in str(done.exception)
    assert not (tmp_path / ".jettison" / "test_reads.jsonl").exists()


def test_language_models_are_compared_on_texts_that_nobody_answered(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    texts = [example.input for example in make_tiny_development(train=30, dev=0, unlabelled=0).train]
    whole = str(make_tiny_language(tmp_path / "whole", texts))
    lean = str(make_tiny_language(tmp_path / "lean", texts, layers=1, seed=1))
    (tmp_path / "texts.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))

    def compared(*more):
        asked = [whole, lean, "--texts", str(tmp_path / "texts.jsonl"), "--n-texts", "6", *more]
        return CliRunner().invoke(command, asked, standalone_mode=False)

    far = compared("--json", "--kl-at-most", "0.001")
    found = json.loads(far.stdout)
    assert (far.return_value, found["holds"], found["n_texts"]) == (1, False, 6)
    assert 0 < found["kl"]["low"] < found["kl"]["value"] < found["kl"]["high"]
    near = compared("--kl-at-most", "100")
    assert near.return_value == 0
    assert f"{found['n_tokens']} next tokens of 6 texts (of 30)" in near.stdout
    assert "within 100 nats a token" in near.stdout


@pytest.mark.parametrize(("n_dev", "is_mapped"), [(60, True), (10, False)])
def test_a_language_model_that_chooses_is_taken_in_whether_dev_can_calibrate_it_or_not(
    n_dev, is_mapped, tmp_path
):
    questions = [f"is place {i} near the bank or the river" for i in range(n_dev + 4)]
    model = make_tiny_language(tmp_path / "model", questions)
    rows = [{"q": q, "choices": ["yes", "no"], "a": ("yes", "no")[i % 2]} for i, q in enumerate(questions)]
    for split, some in (("dev", rows[:n_dev]), ("test", rows[n_dev:])):
        (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in some))
    (tmp_path / "task.toml").write_text(
        'format = 1\nname = "near"\nkind = "choose"\n[data]\ndev = "dev.jsonl"\ntest = "test.jsonl"\n'
        'columns = {input = "q", expected = "a", choices = "choices"}\n'
    )
    task = read_task(tmp_path / "task.toml")
    found = candidate_of(str(model), task, cache=tmp_path / "cache")
    assert (CONFIDENCE_MAP in found.settings) is is_mapped
    if not is_mapped:
        (records,) = records_of([str(model)], task, purpose="a test")
        assert {record.output for record in records} <= {"yes", "no"}


def test_texts_of_a_task_are_those_of_dev_and_of_traffic_and_test_is_not_read(tmp_path):
    task_at(tmp_path, n_test=600)
    texts = texts_of(tmp_path / "task.toml")
    assert not (tmp_path / ".jettison").exists()
    task = read_task(tmp_path / "task.toml")
    assert texts[-len(task.dev) :] == [example.input for example in task.dev]
    assert not {example.input for example in task.read_test(purpose="a test").examples} & set(texts)


def test_texts_and_answers_are_not_mixed(tmp_path):
    (tmp_path / "texts.jsonl").write_text('{"text": "one"}\n')
    for more, said in (
        (["--texts", str(tmp_path / "texts.jsonl"), "--until-sure"], "--texts must come without --task"),
        (["--kl-at-most", "1"], "--kl-at-most must come with --texts"),
    ):
        with pytest.raises(InvalidInput, match=said):
            CliRunner().invoke(command, ["a", "b", *more], standalone_mode=False, catch_exceptions=False)
