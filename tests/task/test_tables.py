"""Whatever text a file can hold comes back as it was."""

import csv
import json
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jettison.errors import InvalidInput
from jettison.task import read_task
from jettison.task.tables import read_table
from task_writing import rows, write_jsonl, write_task

texts = st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=1, max_size=8)


@settings(max_examples=40, deadline=None)
@given(texts, st.sampled_from(["jsonl", "json", "csv", "tsv", "parquet"]))
def test_any_text_survives_any_format(values: list[str], suffix: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"data.{suffix}"
        if suffix in ("csv", "tsv"):
            with path.open("w", newline="", encoding="utf-8") as file:
                writer = csv.writer(file, delimiter="," if suffix == "csv" else "\t", quoting=csv.QUOTE_ALL)
                writer.writerows([["text", "n"], *([value, i] for i, value in enumerate(values))])
        elif suffix == "jsonl":
            write_jsonl(path, [{"text": value} for value in values])
        elif suffix == "json":
            path.write_text(json.dumps([{"text": value} for value in values]))
        else:
            pq.write_table(pa.table({"text": values}), path)
        found = read_table(path)
        assert [value or "" for value in found.columns["text"]] == values
        assert found.n_rows == len(values)


def test_places_count_lines_as_an_editor_does(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('text,label\n"two\nlines",x\nb,y\n')
    (tmp_path / "a.jsonl").write_text('{"text": "a"}\n\n{"text": "b"}')
    assert read_table(tmp_path / "a.csv").place(1) == "a.csv:4"
    assert read_table(tmp_path / "a.jsonl").place(1) == "a.jsonl:3"


def test_a_byte_order_mark_is_no_part_of_a_column_name(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"\xef\xbb\xbftext,label\na,x\n")
    assert list(read_table(tmp_path / "a.csv").columns) == ["text", "label"]
    (tmp_path / "a.jsonl").write_bytes(b'\xef\xbb\xbf{"text": "a"}\n')
    (tmp_path / "a.json").write_bytes(b'\xef\xbb\xbf[{"text": "a"}]')
    assert read_table(tmp_path / "a.jsonl").columns["text"] == ["a"]
    assert read_table(tmp_path / "a.json").columns["text"] == ["a"]


def test_columns_that_nobody_asks_for_are_not_converted(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["a", "b"], "vector": [[0.0] * 8] * 2}), tmp_path / "a.parquet")
    columns = read_table(tmp_path / "a.parquet").columns
    assert columns["text"] == ["a", "b"]
    assert list(columns) == ["text", "vector"]
    assert list(columns._made) == ["text"]  # type: ignore[attr-defined]
    with pytest.raises(KeyError, match="nothing"):
        columns["nothing"]


def test_half_a_surrogate_pair_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "\\ud83d"}\n')
    with pytest.raises(InvalidInput, match=r"a\.jsonl:1 must be one JSON object"):
        read_table(tmp_path / "a.jsonl")


def test_splits_may_be_numbers(tmp_path: Path) -> None:
    data = [
        {**row, "fold": i} for i, split in enumerate(("train", "dev", "test")) for row in rows(split=split)
    ]
    write_jsonl(tmp_path / "all.jsonl", data)
    source = 'path = "all.jsonl"\ncolumns.split = "fold"\nsplits = {0 = "train", 1 = "dev", 2 = "test"}'
    assert read_task(write_task(tmp_path, data=source)).n_test == 12
    with pytest.raises(InvalidInput, match=r"got '2' at all\.jsonl:25\. Add `2 = \"test\"`"):
        read_task(write_task(tmp_path, data=source.replace(', 2 = "test"', "")))


def test_an_odd_split_name_is_quoted_in_the_way_out(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "all.jsonl", [{**row, "part": "my test"} for row in rows()])
    source = 'path = "all.jsonl"\ncolumns.split = "part"'
    with pytest.raises(InvalidInput, match=r'Add `"my test" = "test"`'):
        read_task(write_task(tmp_path, data=source))


def test_times_that_python_cannot_hold_are_read_as_text(tmp_path: Path) -> None:
    columns = {
        "text": pa.array(["a", "b"]),
        "fine": pa.array([1, 2], pa.timestamp("ns")),
        "far": pa.array([2**60, None], pa.timestamp("ms")),
        "took": pa.array([1, 2], pa.duration("ns")),
        "day": pa.array([0, 1], pa.date32()),
        "zoned": pa.array([0, 1], pa.timestamp("s", "Europe/Oslo")),
    }
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    found = read_table(tmp_path / "a.parquet").columns
    assert found["fine"] == ["1970-01-01 00:00:00.000000001", "1970-01-01 00:00:00.000000002"]
    assert isinstance(found["far"][0], str)
    assert found["far"][1] is None
    assert found["took"] == ["1", "2"]
    assert found["day"] == ["1970-01-01", "1970-01-02"]
    assert all(isinstance(value, str) for value in found["zoned"])


def test_a_column_that_python_cannot_hold_is_named(tmp_path: Path) -> None:
    spans = pa.array([0, 2], pa.int32()).buffers()[1]
    bad = pa.Array.from_buffers(pa.string(), 1, [None, spans, pa.py_buffer(b"\xff\xfe")])
    pq.write_table(pa.table({"text": ["a"], "bad": bad}), tmp_path / "a.parquet")
    columns = read_table(tmp_path / "a.parquet").columns
    assert columns["text"] == ["a"]
    with pytest.raises(InvalidInput, match=r"a\.parquet must hold .*got string in 'bad'.*as UTF-8 text"):
        columns["bad"]


def test_two_parquet_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    twice = pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], names=["text", "text"])
    pq.write_table(twice, tmp_path / "a.parquet")
    with pytest.raises(InvalidInput, match=r"must have columns of different names, got \['text', 'text'\]"):
        read_table(tmp_path / "a.parquet")


@pytest.mark.parametrize("suffix", ["jsonl", "json"])
def test_json_nested_too_deep_is_refused(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    path.write_text(("[" if suffix == "json" else "") + '{"text": ' + "[" * 50_000)
    with pytest.raises(InvalidInput, match="nested too deep to read"):
        read_table(path)
