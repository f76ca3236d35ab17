"""`jettison export`: what it writes says what the records say, and opens where it is meant to."""

import json
import zipfile
from datetime import date, datetime, timedelta
from pathlib import Path
from xml.etree import ElementTree

import jsonschema
import pytest
import yaml
from huggingface_hub import ModelCard, parse_eval_result_entries

from jettison.cli.main import jettison
from jettison.decide.compare import compare_files
from jettison.decide.predictions import read_predictions
from jettison.decision import NotWorse, Verdict
from jettison.errors import InvalidInput
from releasing import EXAMPLES, make_release
from task_writing import write_jsonl, write_task

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
SCHEMAS = GOLDEN / "every-eval-ever"


def export(*arguments: object) -> int:
    return jettison.main(["export", *map(str, arguments)], standalone_mode=False)


@pytest.fixture
def predictions(tmp_path) -> Path:
    """Of 40 questions in two languages: 30 right, 8 wrong, one call that failed, one lost on the way."""
    rows = [
        {
            "id": f"q{i}",
            "input": f"Is {i} even?\nSay « yes » or no.",
            "output": None if i >= 38 else "no" if i % 5 == 0 else "yes",
            "expected": "yes",
            "lang": "de" if i % 2 else "en",
            "confidence": 0.75,
            "error": "too long" if i == 38 else "timed out" if i == 39 else None,
            "unanswered": i == 39,
            "slices": {"lang": "de" if i % 2 else "en"},
        }
        for i in range(40)
    ]
    return write_jsonl(tmp_path / "lean.jsonl", rows)


def test_an_inspect_log_reads_back_as_what_was_written(predictions, tmp_path):
    log = tmp_path / "lean.eval"
    assert export(predictions, "--to", "inspect", "-o", log) == 0
    told, back = (read_predictions(path, slice_columns=("lang",)).records for path in (predictions, log))
    by_id = {record.example_id: record for record in back}
    assert len(by_id) == 40
    for record in told:
        other = by_id[record.example_id]
        assert (other.expected, other.input, other.slices) == (record.expected, record.input, record.slices)
        if record.unanswered:
            assert (other.unanswered, other.scores) == (True, {})
        elif record.error:
            assert other.scores == {"label": 0.0}  # the model's own failure stays wrong
        else:
            assert (other.output, other.scores) == (record.output, record.scores)
    found = compare_files(predictions, log, gate=NotWorse(margin=0.01))
    assert found.results[0].n == 39
    assert found.results[0].flips is not None
    assert (found.results[0].flips.harmful, found.results[0].flips.beneficial) == (0, 0)


def test_an_inspect_log_is_the_same_bytes_each_time_and_tells_the_mean(predictions, tmp_path):
    for name in ("a.eval", "b.eval"):
        export(
            *(predictions, "--to", "inspect", "-o", tmp_path / name, "--name", "even", "--model", "us/lean")
        )
    with zipfile.ZipFile(tmp_path / "a.eval") as archive:
        header = json.loads(archive.read("header.json"))
    assert header["results"]["scores"][0]["metrics"]["accuracy"]["value"] == pytest.approx(30 / 39)
    assert header["results"]["completed_samples"] == 39
    assert header["eval"]["model"] == "jettison/us/lean"
    assert _without_dates(tmp_path / "a.eval") == _without_dates(tmp_path / "b.eval")


def _without_dates(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist() if name.startswith("samples/")}


def test_records_of_every_eval_ever_fit_its_schemas_and_belong_together(predictions, tmp_path):
    told = ("--organization", "Us", "--model", "us/lean", "--name", "even")
    assert export(predictions, "--to", "every-eval-ever", "-o", tmp_path / "store", *told) == 0
    (main,) = (tmp_path / "store" / "data" / "even" / "us" / "lean").glob("*[0-9a-f].json")
    aggregate = json.loads(main.read_text())
    jsonschema.validate(aggregate, json.loads((SCHEMAS / "eval.schema.json").read_text()))
    detail = aggregate["detailed_evaluation_results"]
    lines = [
        json.loads(line) for line in (tmp_path / "store" / detail["file_path"]).read_text().splitlines()
    ]
    schema = json.loads((SCHEMAS / "instance_level_eval.schema.json").read_text())
    for line in lines:
        jsonschema.validate(line, schema)
    assert len(lines) == detail["total_rows"] == 39
    scores = [line["evaluation"]["score"] for line in lines]
    results = {one["evaluation_name"]: one for one in aggregate["evaluation_results"]}
    overall = results["even"]["score_details"]
    assert overall["score"] == pytest.approx(sum(scores) / 39)
    assert overall["details"]["n_unscored"] == "1"
    interval = overall["uncertainty"]["confidence_interval"]
    # Wilson's interval of 30 of 39: center (p + z2 / 2n) / (1 + z2 / n).
    assert (interval["lower"], interval["upper"]) == pytest.approx((0.6166, 0.8737), abs=5e-4)
    assert set(results) == {"even", "even [lang=de]", "even [lang=en]"}
    assert {line["evaluation_id"] for line in lines} == {aggregate["evaluation_id"]}


def test_the_hub_library_reads_the_eval_results(predictions, tmp_path):
    path = tmp_path / ".eval_results" / "even.yaml"
    told = ("--dataset", "us/even", "--task-id", "even_test", "--url", "https://example.org/report")
    assert export(predictions, "--to", "eval-results", "-o", path, *told) == 0
    (entry,) = parse_eval_result_entries(yaml.safe_load(path.read_text()))
    assert (entry.dataset_id, entry.task_id) == ("us/even", "even_test")
    assert entry.value == pytest.approx(30 / 39, abs=1e-6)
    assert "95 % interval 0.61" in entry.notes
    assert entry.source_url == "https://example.org/report"


CARD = """---
license: apache-2.0  # checked
model-index:
- name: old
  results: []
tags: [a]
---
# Mine

--- as it was
"""


def test_a_model_card_keeps_everything_but_the_old_scores(predictions, tmp_path):
    path = tmp_path / "README.md"
    path.write_text(CARD)
    for _ in range(2):  # twice gives the same card
        assert export(predictions, "--to", "model-index", "-o", path, "--model", "us/lean") == 0
    text = path.read_text()
    assert text.startswith("---\nlicense: apache-2.0  # checked\ntags: [a]\nmodel-index:\n")
    assert text.endswith("---\n# Mine\n\n--- as it was\n")
    card = ModelCard(text)
    assert card.data.model_name == "us/lean"
    value = {one.metric_args["slice"]: one.metric_value for one in card.data.eval_results}
    assert value["all"] == pytest.approx(30 / 39, abs=1e-6)
    assert set(value) == {"all", "lang=de", "lang=en"}


def test_a_release_gives_junit_and_a_log_with_its_decision(tmp_path, capsys):
    make_release(tmp_path)
    assert export(tmp_path / "7", "--to", "junit", "-o", tmp_path / "gates.xml", "--json") == 0
    assert json.loads(capsys.readouterr().out)["files"] == [str(tmp_path / "gates.xml")]
    suite = ElementTree.parse(tmp_path / "gates.xml").getroot()
    assert (suite.get("tests"), suite.get("failures")) == ("1", "0")
    rows = [{"id": e.id, "text": e.input, "label": e.expected} for e in EXAMPLES]
    columns = '[data.columns]\nid = "id"\ninput = "text"\nexpected = "label"\n'
    train, test = (
        [{**row, "id": f"{split}{row['id']}", "text": f"{split} {row['text']}"} for row in rows]
        for split in ("train", "test")
    )
    task = write_task(tmp_path, train=train, dev=rows, test=test, rest=columns)
    log = tmp_path / "release.eval"
    assert export(tmp_path / "7", "--to", "inspect", "-o", log, "--task", task) == 0
    back = read_predictions(log).records
    assert {record.input for record in back} == {example.input for example in EXAMPLES}
    with zipfile.ZipFile(log) as archive:
        header = json.loads(archive.read("header.json"))
    assert header["eval"]["metadata"]["verdict"] == Verdict.SHIP.value
    assert header["eval"]["task"] == "fruit"
    with pytest.raises(InvalidInput, match=r"--candidate must be one of \['lean|er'\], got 'nosuch'"):
        export(tmp_path / "7", "--to", "model-index", "-o", tmp_path / "x.md", "--candidate", "nosuch")


def test_a_task_goes_to_lm_eval_as_yaml_and_jsonl(tmp_path):
    task = write_task(tmp_path)
    assert export(task, "--to", "lm-eval", "-o", tmp_path / "out") == 0
    config = yaml.safe_load((tmp_path / "out" / "orders.yaml").read_text())
    assert config["output_type"] == "multiple_choice"
    assert (tmp_path / "out" / "orders.test.jsonl").read_text().count("\n") == 12


def test_logs_of_lm_eval_go_on_to_every_eval_ever(tmp_path):
    told = ("--organization", "Us", "--model", "tiny/lean", "--name", "sums")
    assert export(GOLDEN / "lm-eval" / "lean", "--to", "every-eval-ever", "-o", tmp_path, *told) == 0
    (main,) = (tmp_path / "data" / "sums" / "tiny" / "lean").glob("*[0-9a-f].json")
    results = json.loads(main.read_text())["evaluation_results"]
    (found,) = (r for r in results if r["evaluation_result_id"] == "sums:acc:task=sums_choose")
    (file,) = (GOLDEN / "lm-eval" / "lean").glob("results_*.json")
    its_own = json.loads(file.read_text())["results"]["sums_choose"]["acc,none"]
    assert found["score_details"]["score"] == pytest.approx(its_own)


def test_samples_of_lm_eval_are_called_by_their_task_and_dated_by_their_run(tmp_path):
    (samples,) = (GOLDEN / "lm-eval" / "lean").glob("samples_sums_choose*.jsonl")
    export(samples, "--to", "eval-results", "-o", tmp_path / "x.yaml", "--dataset", "acme/sums")
    (entry,) = yaml.safe_load((tmp_path / "x.yaml").read_text())
    assert entry["dataset"]["task_id"] == "sums_choose"
    day = samples.name.removeprefix("samples_sums_choose_").partition("T")[0]
    assert abs(datetime.fromisoformat(entry["date"]).date() - date.fromisoformat(day)) <= timedelta(days=1)


REFUSED = {
    "no text": (("inspect", "x.eval"), "must hold what was asked, got no text"),
    "name of the log": (("inspect", "x.json"), r"must end in \.eval"),
    "no owner": (("every-eval-ever", "x", "--organization", "Us"), "must be named owner/name, got 'bare'"),
    "no organization": (("every-eval-ever", "x"), "--organization must say who"),
    "no data set": (("eval-results", "x.yaml"), "--dataset must name the benchmark"),
    "bad data set": (("eval-results", "x.yaml", "--dataset", "mine"), "must be owner/name of a data set"),
    "unknown scorer": (
        ("eval-results", "x.yaml", "--dataset", "a/b", "--scorer", "rouge"),
        r"--scorer must be one of \['label'\], got 'rouge'",
    ),
    "not a card": (("model-index", "x.yaml"), r"model card must end in \.md"),
    "no decision": (("junit", "x.xml"), "jettison compare A B --junit"),
    "no task": (("lm-eval", "x"), "must be a task.toml"),
    "no candidate": (("inspect", "x.eval", "--candidate", "lean"), "--candidate must come with a run"),
}


@pytest.mark.parametrize("case", REFUSED, ids=lambda name: name.replace(" ", "-"))
def test_what_cannot_be_written_is_refused_in_one_line_and_leaves_no_file(case, tmp_path, monkeypatch):
    (target, output, *more), said = REFUSED[case]
    source = write_jsonl(tmp_path / "bare.jsonl", [{"id": 1, "output": "a", "expected": "a"}])
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InvalidInput, match=said):
        export(source, "--to", target, "-o", output, *more)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bare.jsonl"]


def test_predictions_of_another_task_are_refused(predictions, tmp_path):
    (tmp_path / "other").mkdir()
    task = write_task(tmp_path / "other")
    with pytest.raises(InvalidInput, match="must be of the examples of task 'orders', got 40 of others"):
        export(predictions, "--to", "inspect", "-o", tmp_path / "x.eval", "--task", task)
