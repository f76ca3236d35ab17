"""Logs that lm-eval and Inspect themselves wrote, as predictions (`tests/golden/make_*.py` makes them)."""

import json
import shutil
import zipfile
from pathlib import Path

import pytest

from jettison.cli.main import jettison
from jettison.decide.compare import compare_files
from jettison.decide.predictions import is_prediction_file, read_predictions
from jettison.decision import NotWorse
from jettison.errors import BrokenArtifact, InvalidInput, UnknownName

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
INSPECT, LM_EVAL = GOLDEN / "inspect", GOLDEN / "lm-eval"


@pytest.mark.parametrize("name", ["lean.eval", "lean.json"])
def test_an_inspect_log_says_what_inspect_says(name):
    found = read_predictions(INSPECT / name, slice_columns=("size",))
    assert len(found.records) == 24
    assert {r.group for r in found.records} == {f"q{i}" for i in range(12)}
    assert {r.slices["size"] for r in found.records} == {"small", "large"}
    lost = [r for r in found.records if r.unanswered]
    told = json.loads((INSPECT / "lean.json").read_text())["results"]
    assert len(lost) == told["total_samples"] - told["completed_samples"]
    assert all(r.scores == {} and r.output is None for r in lost)
    by_question = {}
    for record in found.records:
        if record.scores:
            by_question.setdefault(record.group, []).append(record.scores["includes"])
    mean = sum(sum(v) / len(v) for v in by_question.values()) / len(by_question)
    assert mean == pytest.approx(told["scores"][0]["metrics"]["accuracy"]["value"])
    assert all(r.scores["parts/odd"] in (None, 0.0, 1.0) for r in found.records if r.scores)
    assert found.records[0].cost.completion_tokens == 4


def test_both_forms_of_an_inspect_log_hold_the_same():
    one, other = (read_predictions(INSPECT / f"lean.{suffix}") for suffix in ("eval", "json"))
    told = [[(r.example_id, r.output, r.expected, r.scores) for r in side.records] for side in (one, other)]
    assert told[0] == told[1]
    assert one.prompts == other.prompts


def test_two_inspect_logs_are_compared_by_question_and_other_prompts_refused():
    gate = NotWorse(margin=0.5)
    found = compare_files(INSPECT / "large.eval", INSPECT / "lean.eval", gate=gate, scorer="includes")
    assert found.results[0].n == 23  # one answer was lost on the way
    assert found.results[0].reason.endswith(
        "only what is missing is asked for. "
        f"Here that is done by `inspect eval-retry {INSPECT / 'lean.eval'}`."
    )
    with pytest.raises(InvalidInput, match="same prompts, got 24 that differ"):
        compare_files(INSPECT / "large.eval", INSPECT / "reworded.eval", gate=gate, scorer="includes")


def test_tasks_of_lm_eval_with_two_metrics_are_told_how_to_be_judged_one_at_a_time():
    gate = NotWorse(margin=0.5, slices=("all", "task=*"))
    with pytest.raises(
        UnknownName, match="by itself: `--scorer exact_match --slice task=sums_generate`, or a gate"
    ):
        compare_files(LM_EVAL / "large", LM_EVAL / "lean", gate=gate)
    alone = NotWorse(margin=0.5, slices=("all", "task=sums_generate"))
    found = compare_files(LM_EVAL / "large", LM_EVAL / "lean", gate=alone, scorer="exact_match")
    assert [result.n for result in found.results] == [26, 26]


def test_an_inspect_log_that_cannot_serve_is_refused_in_one_line(tmp_path):
    (tmp_path / "torn.eval").write_bytes((INSPECT / "lean.eval").read_bytes()[:2000])
    with pytest.raises(BrokenArtifact, match=r"torn\.eval must be a log of Inspect"):
        read_predictions(tmp_path / "torn.eval")
    with zipfile.ZipFile(tmp_path / "header.eval", "w") as archive:
        archive.writestr("header.json", "{}")
    with pytest.raises(InvalidInput, match="must hold samples, got none"):
        read_predictions(tmp_path / "header.eval")
    with pytest.raises(InvalidInput, match="got nothing there"):
        read_predictions(tmp_path / "none.eval")


def test_a_member_that_unpacks_to_more_than_it_says_is_refused(tmp_path):
    content = bytearray((INSPECT / "lean.eval").read_bytes())
    # The size in the central directory, 24 bytes after its mark: all but the header's is made smaller.
    at = content.find(b"PK\x01\x02", content.find(b"PK\x01\x02") + 4)
    content[at + 24 : at + 28] = (100).to_bytes(4, "little")
    (tmp_path / "liar.eval").write_bytes(content)
    with pytest.raises(BrokenArtifact, match="does not have the 100 bytes it says"):
        read_predictions(tmp_path / "liar.eval")


def test_the_folder_of_a_run_of_lm_eval_is_read_task_by_task():
    assert is_prediction_file(str(LM_EVAL / "lean"))
    found = read_predictions(LM_EVAL / "lean")
    assert {r.slices["task"] for r in found.records} == {"sums_choose", "sums_generate"}
    (results,) = (LM_EVAL / "lean").glob("results_*.json")
    told = json.loads(results.read_text())["results"]["sums_choose"]["acc,none"]
    choose = [r.scores["acc"] for r in found.records if r.slices["task"] == "sums_choose"]
    assert sum(choose) / len(choose) == pytest.approx(told)


def test_runs_of_lm_eval_are_paired_by_document_whatever_their_order(tmp_path):
    turned = tmp_path / "lean"
    shutil.copytree(LM_EVAL / "lean", turned)
    for path in turned.glob("samples_*.jsonl"):
        path.write_text("\n".join(reversed(path.read_text().splitlines())) + "\n")
    gate = NotWorse(margin=0.5)
    one, other = (compare_files(LM_EVAL / "large", side, gate=gate) for side in (LM_EVAL / "lean", turned))
    assert one.results[0].flips == other.results[0].flips
    with pytest.raises(InvalidInput, match="same prompts"):
        compare_files(LM_EVAL / "large", LM_EVAL / "reworded", gate=gate)


def test_a_task_that_the_scorer_did_not_judge_is_named():
    gate = NotWorse(scorer="acc", slices=("task=*",))
    with pytest.raises(
        UnknownName, match=r"must be one of \['exact_match'\] on task=sums_generate, got 'acc'\. Judge that"
    ):
        compare_files(LM_EVAL / "large", LM_EVAL / "lean", gate=gate)


def test_samples_without_a_prompt_hash_are_refused(tmp_path):
    (path,) = (LM_EVAL / "lean").glob("samples_sums_choose*.jsonl")
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    lines = [json.dumps({k: v for k, v in row.items() if k != "prompt_hash"}) for row in rows]
    (tmp_path / path.name).write_text("\n".join(lines))
    with pytest.raises(InvalidInput, match="must have 'prompt_hash' in every row"):
        read_predictions(tmp_path / path.name)


def test_columns_of_any_name_can_be_told(tmp_path, capsys):
    for name, wrong in (("a", 5), ("b", 6)):
        rows = [{"nr": i, "said": "no" if i < wrong else "yes", "truth": "yes"} for i in range(400)]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    sides = [str(tmp_path / "a.jsonl"), str(tmp_path / "b.jsonl"), "--margin", "0.05"]
    told = [x for role in ("example=nr", "output=said", "expected=truth") for x in ("--column", role)]
    assert jettison.main(["compare", *sides, *told], standalone_mode=False) == 0
    assert "SHIP" in capsys.readouterr().out
    with pytest.raises(InvalidInput, match="Name another by --column example=NAME"):
        jettison.main(["compare", *sides], standalone_mode=False)
    with pytest.raises(InvalidInput, match="--column must be ROLE=COLUMN"):
        jettison.main(["compare", *sides, "--column", "said"], standalone_mode=False)


@pytest.mark.parametrize(
    ("samples", "said"),
    [
        ([7], "a sample must have an id"),
        ([{"input": "x"}], "a sample must have an id"),
        ([{"id": 1, "epoch": "two"}], "an epoch must be a whole number, got 'two'"),
        ([{"id": 1, "output": "said"}], "as Inspect writes them, got 1"),
        ([{"id": 1, "scores": [3]}], "as Inspect writes them, got 1"),
        ([{"id": 1, "output": {"completion": "x"}}], "must hold scores, got none in 1"),
    ],
)
def test_samples_that_inspect_would_not_write_are_one_clear_line(tmp_path, samples, said):
    (tmp_path / "log.json").write_text(json.dumps({"eval": {}, "samples": samples}))
    with pytest.raises((BrokenArtifact, InvalidInput), match=said):
        read_predictions(tmp_path / "log.json")
