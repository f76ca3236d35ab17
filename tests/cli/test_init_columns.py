"""Which columns `jettison init` takes for which role, and what it says of those it passes over."""

import re
from pathlib import Path
from typing import Any

import pytest

from init_orders import orders, run
from jettison.errors import InvalidInput
from jettison.task import read_task
from jettison.task.guess import guess_data
from task_writing import Row, write_jsonl


def findings_of(tmp_path: Path, change: Any) -> tuple[Any, list[str]]:
    """What is guessed of `orders` with some rows changed, and what is said of columns passed over."""
    some = [change(i, dict(row)) for i, row in enumerate(orders())]
    guess = guess_data(write_jsonl(tmp_path / "d.jsonl", some))
    return guess, [finding.message for finding in guess.findings]


@pytest.mark.parametrize(
    ("label", "why"),
    [
        (lambda i: i / 8, r"'label' holds 0\.125 at .*d\.jsonl:2, where labels are text or whole numbers"),
        (lambda i: [i], r"'label' holds \[0\] at .*d\.jsonl:1"),
        (lambda i: None, "'label' has 0 different values in 270 rows"),
        (lambda i: "buy", "'label' has 1 different value in 270 rows"),
    ],
)
def test_labels_of_the_wrong_kind_are_no_reason_to_take_another_column(tmp_path, label, why) -> None:
    with pytest.raises(InvalidInput, match=rf"must have a column of labels.*{why}.*`--expected COLUMN`"):
        findings_of(tmp_path, lambda i, row: {**row, "label": label(i)})
    guess, said = findings_of(tmp_path, lambda i, row: {**row, "label": label(i), "intent": row["label"]})
    assert guess.columns.expected == "intent"
    assert len(said) == 1
    why = why.replace("'label' ", "column 'label' is not taken as expected, as it ", 1)
    assert re.search(rf"{why}.*; 'intent' is\.", said[0])


def test_a_number_among_texts_is_no_reason_to_take_another_column(tmp_path: Path) -> None:
    def change(i: int, row: Row) -> Row:
        return {**row, "text": 7 if i == 4 else row["text"], "note": row["text"] * 2}

    with pytest.raises(
        InvalidInput, match=r"'text' holds 7 at .*d\.jsonl:5, where inputs are texts\. Name"
    ):
        findings_of(tmp_path, change)
    guess, said = findings_of(tmp_path, lambda i, row: {**change(i, row), "title": row["text"]})
    assert guess.columns.input == "title"
    assert "column 'text' is not taken as input, as it holds 7" in said[0]


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        (
            "weight",
            lambda i: i - 1,
            r"not taken as weight, as it holds -1 at .*:1, where weights are above 0",
        ),
        ("weight", lambda i: True, "not taken as weight, as it holds True"),
        ("id", lambda i: i // 2, r"not taken as id, as it holds 0 at .*:1 and at .*:2"),
        ("split", lambda i: None if i == 3 else "test", r"not taken as split, as it holds None at .*:4"),
    ],
)
def test_a_column_that_is_passed_over_is_said(tmp_path, model, name, value, why) -> None:
    def change(i: int, row: Row) -> Row:
        part = {} if name == "split" else {"part": row.pop("part")}
        row.pop("part", None)
        return {**row, **part, name: value(i)}

    guess, said = findings_of(tmp_path, change)
    assert getattr(guess.columns, name) is None
    assert re.search(rf"column '{name}' is {why}", said[0])
    shown = " ".join(run(model, tmp_path / "d.jsonl", "--out", tmp_path / "o").output.split())
    assert f"warning: column '{name}' is not taken as {name}" in shown


def test_weights_of_a_csv_are_weights(tmp_path: Path) -> None:
    lines = [f"{row['text']},{row['label']},{1 + i % 2}.5" for i, row in enumerate(orders())]
    (tmp_path / "d.csv").write_text("\n".join(["text,label,weight", *lines]) + "\n")
    assert guess_data(tmp_path / "d.csv").columns.weight == "weight"


def test_whole_numbers_as_floats_are_labels(tmp_path: Path) -> None:
    guess, said = findings_of(tmp_path, lambda i, row: {**row, "label": float(i % 3)})
    assert (guess.columns.expected, guess.labels, said) == ("label", ("0", "1", "2"), [])


def test_blanks_around_a_split_are_nothing_and_rows_of_an_ignored_one_are_counted(tmp_path, model) -> None:
    def change(i: int, row: Row) -> Row:
        return {**row, "part": "extra" if i < 7 else f" {row['part']} "}

    guess, said = findings_of(tmp_path, change)
    assert (guess.splits, guess.our_splits) == ({"extra": "ignore"}, {"ignore", "train", "dev", "test"})
    assert said == [
        "split 'extra' is none of ours, so its 7 rows will be ignored; say under [data.splits] what it is, "
        "if it is to count."
    ]
    run(model, tmp_path / "d.jsonl", "--out", tmp_path)
    task = read_task(tmp_path / "task.toml")
    assert (len(task.train), len(task.dev), task.n_test) == (83, 90, 90)


@pytest.mark.parametrize("value", [["a", "b"], {"a": 1}])
@pytest.mark.parametrize(("column", "option"), [("label", "--expected"), ("domain", "--slice")])
def test_a_column_of_lists_is_no_column_of_labels_or_slices(
    tmp_path: Path, model: Path, column: str, option: str, value: object
) -> None:
    changed = [{**row, column: value} if i == 4 else row for i, row in enumerate(orders())]
    path = write_jsonl(tmp_path / "lists.jsonl", changed)
    with pytest.raises(
        InvalidInput, match=rf"must be texts or numbers, got .* at lists\.jsonl:5\. .*{option}"
    ):
        run(model, path, "--out", tmp_path / "o", "--expected", "label", option, column)
