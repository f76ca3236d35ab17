"""Tests as data: rows that a person writes, cases made of them, verdicts with intervals."""

import json

import pytest

from jettison.backends.open import open_model
from jettison.candidate import write_candidate
from jettison.cli.main import main
from jettison.errors import InvalidInput
from jettison.evaluate.suites.behaviour import read_tests, run_tests
from task_writing import write_task

LABELS = ("buy", "sell")
TOML = """
[[tests]]
name = "names a label"
type = "MFT"
capability = "vocabulary"
input = "please {verb} {n} shares"
fill = { verb = ["buy"], n = ["1", "2", "3"] }
expected = "buy"

[[tests]]
name = "negation"
type = "MFT"
input = "please sell, do not keep"
expected = ["sell"]
not_expected = "buy"

[[tests]]
name = "greeting"
type = "INV"
input = "sell my shares now"
variants = ["hello, sell my shares now"]
perturbation = ["suffix", "casing"]
most_failures = 0.5

[[tests]]
name = "more sell"
type = "DIR"
input = "buy now"
variants = ["sell now"]
label = "sell"
direction = "up"
by = 0.2
"""


@pytest.fixture
def model(tmp_path):
    """The fake backend answers the first label that a text names, `buy` if none."""
    folder = tmp_path / "model"
    folder.mkdir()
    write_candidate(folder, name="m", backend="fake", labels=LABELS)
    from jettison.candidate import Candidate

    return open_model(Candidate.at(folder))


def written(tmp_path, text, name="tests.toml"):
    path = tmp_path / name
    path.write_text(text)
    return path


def test_every_kind_of_test_passes_or_fails_as_it_should(tmp_path, model):
    results = {one.name: one for one in run_tests(model, read_tests(written(tmp_path, TOML)))}
    assert (results["names a label"].n, results["names a label"].n_failed) == (3, 0)
    assert results["negation"].passed
    assert results["more sell"].passed
    # The fake model looks for `sell` in small letters: SELL or Sell may be lost, and half may fail.
    assert results["greeting"].n == 3
    assert results["greeting"].passed
    # No failure in 3: the share may still be 1 - 0.025^(1/3) = 0.708.
    assert results["names a label"].failed_high == pytest.approx(0.708, abs=1e-3)


def test_failures_say_what_was_asked_and_answered(tmp_path, model):
    rows = [
        {"name": "wrong", "type": "MFT", "input": "hold", "expected": "sell"},
        {"name": "moves", "type": "INV", "input": "buy it", "variants": ["sell it"]},
        {
            "name": "falls",
            "type": "DIR",
            "input": "buy",
            "variants": ["sell"],
            "label": "sell",
            "direction": "down",
        },
    ]
    path = written(tmp_path, "\n".join(json.dumps(row) for row in rows), "tests.jsonl")
    wrong, moves, falls = run_tests(model, read_tests(path))
    assert wrong.failures == ("'hold': 'buy'",)
    assert moves.failures == ("'buy it': 'buy', but 'sell it': 'sell'",)
    assert falls.failures[0].startswith("'buy' → 'sell': 'sell' +")
    assert not any(one.passed for one in (wrong, moves, falls))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"type": "MFT", "input": "x"}, "MFT needs expected or not_expected, at test 't' of .*:1"),
        ({"type": "INV", "input": "x"}, "INV needs variants or a perturbation"),
        ({"type": "DIR", "input": "x", "variants": ["y"]}, "DIR needs the label"),
        (
            {"type": "INV", "input": "x", "variants": ["y"], "expected": "buy"},
            "INV compares answers with one another: expected and not_expected are for MFT",
        ),
        ({"type": "MFT", "input": "x", "expected": "buy", "variants": ["y"]}, "are for INV and DIR"),
        (
            {"type": "MFT", "input": "{verb} it", "expected": "buy", "fill": {"vreb": ["buy", "get"]}},
            r"every slot of fill must stand in input or variants, got \['vreb'\]",
        ),
        (
            {"type": "INV", "input": "{a} it", "variants": ["{b} it"], "fill": {"a": ["buy"]}},
            r"every slot of input and variants must be in fill, got \['b'\]",
        ),
        ({"type": "INV", "input": "x", "perturbation": "typo"}, "perturbation must be of"),
        ({"type": "ABC", "input": "x"}, "Invalid enum value 'ABC'"),
        ({"type": "MFT", "input": "x", "expect": "y"}, "unknown field `expect`"),
        (
            {"type": "MFT", "input": "{a}", "expected": "y", "fill": {"a": []}},
            "fill must make 1 to 1000 texts",
        ),
    ],
)
def test_a_row_that_means_nothing_is_refused_with_its_place(tmp_path, row, message):
    path = written(tmp_path, json.dumps({"name": "t", **row}), "tests.jsonl")
    with pytest.raises(InvalidInput, match=message):
        read_tests(path)


def test_a_direction_of_an_unknown_label_is_refused(tmp_path, model):
    row = {"name": "t", "type": "DIR", "input": "x", "variants": ["y"], "label": "hold", "direction": "up"}
    with pytest.raises(InvalidInput, match=r"one of the model's labels, got 'hold'"):
        run_tests(model, read_tests(written(tmp_path, json.dumps(row), "t.jsonl")))


def test_the_command_compares_models_and_fails_where_one_does(tmp_path, capsys, model):
    path = write_task(tmp_path)
    tests = written(tmp_path, TOML)
    with pytest.raises(SystemExit) as end:
        main(["suites", "check", str(tests), str(tmp_path / "model"), "--task", str(path)])
    assert end.value.code == 0
    assert "names a label" in capsys.readouterr().out
    failing = written(tmp_path, TOML.replace('expected = "buy"', 'expected = "sell"'), "failing.toml")
    with pytest.raises(SystemExit) as end:
        main(["suites", "check", str(failing), str(tmp_path / "model"), "--task", str(path)])
    assert end.value.code == 1


def test_a_test_without_a_case_is_refused_and_does_not_vanish(tmp_path, model):
    rows = [
        {"name": "short", "type": "INV", "input": "sell", "perturbation": "truncation"},
        {"name": "same", "type": "INV", "input": "sell", "variants": ["sell"]},
    ]
    for row in rows:
        path = written(tmp_path, json.dumps(row), "t.jsonl")
        with pytest.raises(InvalidInput, match=f"must have a case, got none at test '{row['name']}'"):
            run_tests(model, read_tests(path))


def test_what_is_asked_twice_counts_once(tmp_path, model):
    row = {"name": "t", "type": "MFT", "input": "hold {n}", "expected": "sell"}
    rows = [{**row, "fill": {"n": ["1", "1", "2"]}}, {**row, "input": "hold 2"}, {**row, "name": "other"}]
    path = written(tmp_path, "\n".join(json.dumps(row) for row in rows), "t.jsonl")
    found = run_tests(model, read_tests(path))
    assert [(one.n, one.n_failed) for one in found] == [(2, 2), (1, 1)]


def test_rows_of_one_name_agree_on_what_the_test_is(tmp_path):
    row = {"name": "t", "type": "MFT", "input": "sell", "expected": "sell"}
    for other, field in (
        ({"type": "INV", "variants": ["x"], "expected": None}, "type"),
        ({"most_failures": 0.2}, "most_failures"),
    ):
        path = written(tmp_path, "\n".join(json.dumps(r) for r in (row, {**row, **other})), "t.jsonl")
        with pytest.raises(InvalidInput, match=f"must have one {field}, got .* at test 't' of .*:2"):
            read_tests(path)


@pytest.mark.parametrize("field", ["expected", "not_expected"])
def test_a_label_that_is_none_of_the_tasks_is_refused(tmp_path, capsys, model, field):
    path = write_task(tmp_path)
    row = {"name": "t", "type": "MFT", "input": "x", field: "sel"}
    tests = written(tmp_path, json.dumps(row), "t.jsonl")
    with pytest.raises(SystemExit) as end:
        main(["suites", "check", str(tests), str(tmp_path / "model"), "--task", str(path)])
    assert end.value.code == 2
    assert "must name labels of the task, got 'sel' at test 't'. Did you mean 'sell'?" in (
        " ".join(capsys.readouterr().err.split())
    )


def test_free_answers_are_judged_by_the_tasks_scorer(tmp_path, model):
    from jettison.evaluate.score_text import NormalizedExactScorer

    row = {"name": "t", "type": "MFT", "input": "sell it", "expected": "Sell.", "not_expected": "The buy"}
    tests = read_tests(written(tmp_path, json.dumps(row), "t.jsonl"))
    assert not run_tests(model, tests)[0].passed
    assert run_tests(model, tests, scorer=NormalizedExactScorer())[0].passed


def test_an_answer_that_the_scorer_cannot_judge_holds_no_test(tmp_path, model):
    from jettison.evaluate.score_code import CodeScorer

    # The code scorer runs unit tests, and an answer named by a test of behaviour brings none.
    row = {"name": "t", "type": "MFT", "input": "sell it", "not_expected": "buy"}
    tests = read_tests(written(tmp_path, json.dumps(row), "t.jsonl"))
    assert run_tests(model, tests)[0].passed
    (found,) = run_tests(model, tests, scorer=CodeScorer(run_code=True))
    assert not found.passed
    assert "could not be judged (the example has no unit tests in `tests`)" in found.failures[0]


def test_a_direction_of_a_model_without_probabilities_says_so(tmp_path, model):
    class Bare:
        labels = LABELS

        def predict(self, inputs):
            import msgspec

            return [msgspec.structs.replace(one, logits=None) for one in model.predict(inputs)]

    row = {"name": "t", "type": "DIR", "input": "x", "variants": ["y"], "label": "sell", "direction": "up"}
    with pytest.raises(InvalidInput, match="gives every label a probability"):
        run_tests(Bare(), read_tests(written(tmp_path, json.dumps(row), "t.jsonl")))
