"""What stands in a cell of a prediction file, and what two files may not say of one example."""

import json
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jettison.cli.main import main
from jettison.decide.compare import compare_files
from jettison.decide.predictions import read_predictions
from jettison.decision import NotWorse
from jettison.errors import InvalidInput


def jsonl(path: Path, *columns: dict[str, object], n: int = 60) -> Path:
    """`n` rows in turn of the columns given, each with an id."""
    rows = [{"id": i, **columns[i % len(columns)]} for i in range(n)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


RIGHT = {"output": "a", "expected": "a"}


@pytest.mark.parametrize("flag", [False, 0, 0.0, "", None, "False", "0", float("nan")])
def test_a_flag_that_says_no_error_is_none(tmp_path, flag):
    rows = [{"id": 1, **RIGHT, "error": flag}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    found = read_predictions(tmp_path / "a.parquet").records[0]
    assert (found.error, found.scores) == (None, {"label": 1.0})


def test_an_error_is_words(tmp_path):
    assert (
        read_predictions(jsonl(tmp_path / "a.jsonl", {**RIGHT, "error": "timed out"})).records[0].error
        == "timed out"
    )
    for bad in (True, 1, ["x"], {"code": 500}):
        with pytest.raises(InvalidInput, match=r"error must say in words .*a\.jsonl:1"):
            read_predictions(jsonl(tmp_path / "a.jsonl", {**RIGHT, "error": bad}))


@pytest.mark.parametrize(
    ("value", "said"),
    [(True, "true"), (1.0, "1"), (2, "2"), (0.5, "0.5"), ({"a": 1}, '{"a":1}'), ("True", "True")],
)
def test_answers_are_spelled_as_in_the_task(tmp_path, value, said):
    row = {"output": value, "expected": said}
    found = read_predictions(jsonl(tmp_path / "a.jsonl", row, n=1)).records[0]
    assert (found.output, found.scores) == (said, {"label": 1.0})


def test_slices_may_be_the_json_text_of_an_object(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text('id,output,expected,slices\n1,a,a,"{""lang"": ""de"", ""n"": null}"\n2,a,a,\n')
    assert [r.slices for r in read_predictions(path).records] == [{"lang": "de"}, {}]
    for bad in ("de", '"[1]"', "3"):
        path.write_text(f"id,output,expected,slices\n1,a,a,{bad}\n")
        with pytest.raises(InvalidInput, match=r"slices must be a JSON object.* at .*a\.csv:2"):
            read_predictions(path)
    assert read_predictions(path, slice_columns=["slices"]).records[0].slices == {"slices": "3"}


def test_a_position_among_no_label_names_is_refused(tmp_path):
    card = "---\ndataset_info:\n  features:\n  - name: output\n    dtype:\n      class_label:\n"
    (tmp_path / "README.md").write_text(f"{card}        names: {{'0': a, '1': b}}\n---\n")
    jsonl(tmp_path / "test.jsonl", {"output": 7, "expected": "a"}, n=1)
    with pytest.raises(InvalidInput, match=r"output must be from 0 to 1, a position .* got 7 at "):
        read_predictions(tmp_path)


@pytest.mark.parametrize(
    ("a", "b", "said"),
    [
        ({"group": "x"}, {"group": "y"}, "same group of an example, got 'x' and 'y' at 0"),
        ({"weight": 1}, {"weight": 3}, "same weight of an example, got 1.0 and 3.0 at 0"),
        (
            {"slices": {"lang": "de"}},
            {"slices": {"lang": "en"}},
            "same slice 'lang' of an example, got 'de' and 'en' at 0",
        ),
    ],
)
def test_what_two_files_say_of_one_example_must_agree(tmp_path, a, b, said):
    one = jsonl(tmp_path / "a.jsonl", {**RIGHT, **a}, {**RIGHT, **a, "weight": 2})
    other = jsonl(tmp_path / "b.jsonl", {**RIGHT, **b}, {**RIGHT, "weight": 2, **b})
    with pytest.raises(InvalidInput, match=f"both sides must say the {said}"):
        compare_files(one, other, gate=NotWorse())


def test_what_one_file_alone_says_holds_for_both(tmp_path):
    wrong = {"output": "b", "expected": "a"}
    one = jsonl(tmp_path / "a.jsonl", {**RIGHT, "slices": {"lang": "de"}}, RIGHT)
    other = jsonl(
        tmp_path / "b.jsonl", {**RIGHT, "weight": 3, "slices": {"size": "s"}}, {**wrong, "weight": 1}
    )
    for a, b, scores in ((one, other, (1.0, 0.75)), (other, one, (0.75, 1.0))):
        found = compare_files(a, b, gate=NotWorse())
        assert (found.results[0].incumbent, found.results[0].candidate) == pytest.approx(scores)
        assert set(found.n) == {"all", "lang=de", "size=s"}


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        ((1e308, 1.0), r"a weight must be from 1e-100 to 1e\+100, got 1e\+308 at 0"),
        ((1e-200, 1e-200), r"a weight must be from 1e-100"),
        ((1e13, 1.0), r"within a factor of 1e\+12 of each other, got 1e\+13 at 0 and 1 at 1"),
    ],
)
def test_weights_that_no_mean_can_hold_are_refused(tmp_path, weights, said):
    rows = [{**RIGHT, "weight": weight} for weight in weights]
    paths = [jsonl(tmp_path / name, *rows) for name in ("a.jsonl", "b.jsonl")]
    with pytest.raises(InvalidInput, match=said):
        compare_files(*paths, gate=NotWorse())


def test_answers_spelled_unlike_the_expected_ones_are_said(tmp_path, capsys):
    strange = {"output": "A", "expected": "a"}
    one = jsonl(tmp_path / "a.jsonl", RIGHT)
    other = jsonl(tmp_path / "b.jsonl", strange)
    note = "No answer of .*b.jsonl is one of the expected ones .*'A'.*'a'.* probably not spelled alike"
    (found,) = compare_files(one, other, gate=NotWorse()).notes
    assert re.match(note, found)
    with pytest.raises(SystemExit):
        main(["compare", str(one), str(other)])
    assert f"warning: {found}" in capsys.readouterr().out
    assert compare_files(one, one, gate=NotWorse()).notes == ()
    for b in (one, jsonl(tmp_path / "c.jsonl", strange)):
        with pytest.raises(InvalidInput, match=r"spelled as the expected ones are, got no such .*b\.jsonl"):
            compare_files(other, b, gate=NotWorse())
