"""Reading tasks: what comes out of each format, and how the splits stay apart."""

import csv
import gc
import json
import os
import re
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import jettison.task
from jettison.errors import InvalidInput
from jettison.task import Development, Example, read_task
from jettison.task.source import (
    Columns,
    DataSource,
    Labels,
    MadeSplit,
    PromptSource,
    Slices,
    parse_task_source,
)
from task_writing import hash_word, rows, write_jsonl, write_task


def test_splits_named_by_file_are_read_with_their_rows_in_order(tmp_path: Path) -> None:
    task = read_task(write_task(tmp_path))
    assert [e.input for e in task.train] == [row["text"] for row in rows(split="train")]
    assert (len(task.train), len(task.dev), task.n_test) == (12, 12, 12)
    assert task.labels == ("buy", "sell")
    assert task.required_slices == ("all",)
    assert task.train[1].source == "train.jsonl:2"


@pytest.mark.parametrize("suffix", ["jsonl", "json", "csv", "tsv", "parquet", "arrow"])
def test_every_format_gives_the_same_task(tmp_path: Path, suffix: str) -> None:
    data = [{**row, "split": split} for split in ("train", "dev", "test") for row in rows(split=split)]
    path = tmp_path / f"data.{suffix}"
    if suffix == "jsonl":
        write_jsonl(path, data)
    elif suffix == "json":
        path.write_text(json.dumps(data))
    elif suffix in ("csv", "tsv"):
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(data[0]), delimiter="," if suffix == "csv" else "\t")
            writer.writeheader()
            writer.writerows(data)
    elif suffix == "parquet":
        pq.write_table(pa.Table.from_pylist(data), path)
    else:
        table = pa.Table.from_pylist(data)
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
    (tmp_path / "here").mkdir()
    source = f'path = "data.{suffix}"\ncolumns.split = "split"'
    task = read_task(write_task(tmp_path, data=source))
    reference = read_task(write_task(tmp_path / "here"))
    assert task.test_digest == reference.test_digest
    assert [(e.id, e.input, e.expected) for e in task.train] == [
        (e.id, e.input, e.expected) for e in reference.train
    ]


def test_the_task_holds_no_test_example_until_one_is_asked_for(tmp_path: Path) -> None:
    task = read_task(write_task(tmp_path))
    gc.collect()
    known = {e.id for e in (*task.train, *task.dev)}
    # By type: isinstance() asks lazy objects of other libraries, and some answer with a warning.
    held = [e for e in gc.get_objects() if type(e) is Example and e.input.startswith("test says")]
    assert not held
    assert not [e for e in gc.get_referents(task._load_test) if type(e) is Example]
    assert isinstance(task.development, Development)
    reading = task.read_test(purpose="decision 1")
    assert reading.n_reads == 1
    assert not known & {e.id for e in reading.examples}
    assert (tmp_path / ".jettison" / "test_reads.jsonl").exists()
    assert task.read_test(purpose="decision 1").n_reads == 1
    assert task.read_test(purpose="decision 2").n_reads == 2
    assert task.read_test(purpose="decision 1").n_reads == 1  # asked again, it was the first still
    assert task.read_test(purpose="decision 3").n_reads == 3


def test_a_test_file_changed_after_reading_is_refused(tmp_path: Path) -> None:
    task = read_task(write_task(tmp_path))
    write_jsonl(tmp_path / "test.jsonl", rows(split="other"))
    with pytest.raises(
        InvalidInput, match=r"test split must stay as it was .* has changed\. Read the task"
    ):
        task.read_test(purpose="decision")


def test_ids_follow_the_content_and_not_the_place(tmp_path: Path) -> None:
    first = read_task(write_task(tmp_path))
    moved = rows(split="train")
    second = read_task(write_task(tmp_path, train=[{"text": "new one", "label": "buy"}, *moved[::-1]]))
    assert {e.input: e.id for e in first.train}.items() <= {e.input: e.id for e in second.train}.items()


def test_copies_of_one_text_have_ids_of_their_own(tmp_path: Path) -> None:
    again = rows(split="train")
    task = read_task(write_task(tmp_path, train=[*again, again[0]]))
    assert task.train[-1].id == f"{task.train[0].id}-2"


def test_the_digest_of_test_ignores_order_and_sees_content(tmp_path: Path) -> None:
    test = rows(split="test")
    digest = read_task(write_task(tmp_path, test=test)).test_digest
    assert read_task(write_task(tmp_path, test=test[::-1])).test_digest == digest
    assert read_task(write_task(tmp_path, test=test[1:])).test_digest != digest


def test_columns_carry_ids_groups_slices_and_weights(tmp_path: Path) -> None:
    splits = {
        split: [
            {"q": row["text"], "intent": row["label"], "uid": f"{split}{i}", "chat": f"{split}-{i // 2}",
             "domain": "web" if i % 2 else None, "w": 2}
            for i, row in enumerate(rows(split=split))
        ]
        for split in ("train", "dev", "test")
    }  # fmt: skip
    rest = (
        '[data.columns]\ninput = "q"\nexpected = "intent"\nid = "uid"\ngroup = "chat"\n'
        'slices = ["domain"]\nweight = "w"\n[slices]\nrequired = ["all", "domain=*"]'
    )
    task = read_task(write_task(tmp_path, rest=rest, **splits))
    one = task.train[1]
    assert (one.id, one.group, one.slices, one.weight) == ("train1", "train-0", {"domain": "web"}, 2.0)
    assert task.train[0].slices == {}
    assert task.slice_counts == {"all": 12, "domain=web": 6}
    assert task.required_slices == ("all", "domain=web")


def test_an_out_of_scope_label_makes_the_slice_scope(tmp_path: Path) -> None:
    test = [*rows(split="test"), {"text": "sing me a song", "label": "oos"}]
    task = read_task(write_task(tmp_path, test=test, rest='[labels]\nout_of_scope = "oos"'))
    assert task.out_of_scope == "oos"
    assert "oos" in task.labels
    assert task.slice_counts == {"all": 13, "scope=in": 12, "scope=out": 1}
    assert task.train[0].slices == {"scope": "in"}


def test_aliases_merge_labels_and_names_fix_their_order(tmp_path: Path) -> None:
    train = [*rows(split="train"), {"text": "get it", "label": "by"}]
    rest = '[labels]\nnames = ["sell", "buy"]\naliases = {by = "buy"}'
    task = read_task(write_task(tmp_path, train=train, rest=rest))
    assert task.labels == ("sell", "buy")
    assert task.train[-1].expected == "buy"


def test_whole_number_labels_are_positions_among_the_names(tmp_path: Path) -> None:
    numbered = {
        split: [{**row, "label": int(row["label"] == "sell")} for row in rows(split=split)]
        for split in ("train", "dev", "test")
    }
    named = read_task(write_task(tmp_path, rest='[labels]\nnames = ["buy", "sell"]', **numbered))
    assert named.train[0].expected == "buy"
    assert read_task(write_task(tmp_path, **numbered)).labels == ("0", "1")


def test_unlabelled_rows_need_no_label(tmp_path: Path) -> None:
    task = read_task(write_task(tmp_path, unlabelled=[{"text": "who knows"}]))
    assert task.unlabelled[0].expected is None
    assert task.n_test == 12


def test_their_split_names_are_mapped_or_ignored(tmp_path: Path) -> None:
    data = [
        {**row, "split": split}
        for split in ("training", "VAL", "held", "junk")
        for row in rows(split=split)
    ]
    write_jsonl(tmp_path / "all.jsonl", data)
    source = 'path = "all.jsonl"\ncolumns.split = "split"\nsplits = {held = "test", junk = "ignore"}'
    task = read_task(write_task(tmp_path, data=source))
    assert (len(task.train), len(task.dev), task.n_test) == (12, 12, 12)


def test_a_missing_dev_split_is_taken_from_train_and_said(tmp_path: Path) -> None:
    splits = {"train": rows(40, split="train"), "test": rows(split="test")}
    for name, content in splits.items():
        write_jsonl(tmp_path / f"{name}.jsonl", content)
    task = read_task(write_task(tmp_path, data='train = "train.jsonl"\ntest = "test.jsonl"'))
    assert (len(task.train), len(task.dev)) == (72, 8)
    assert [f.message for f in task.findings if f.rule == "made_split"] == [
        "the data brings no such split, so 8 as dev (10%) were set apart, by seed 0."
    ]


def test_a_task_for_comparing_alone_needs_only_test(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "test.jsonl", rows(split="test"))
    task = read_task(write_task(tmp_path, data='test = "test.jsonl"'))
    assert (task.n_test, task.train, task.dev) == (12, (), ())


def test_lists_of_files_are_joined(tmp_path: Path) -> None:
    write_task(tmp_path)
    write_jsonl(tmp_path / "more.jsonl", rows(3, split="more"))
    data = 'train = ["train.jsonl", "more.jsonl"]\ndev = "dev.jsonl"\ntest = "test.jsonl"'
    assert len(read_task(write_task(tmp_path, data=data)).train) == 18


def test_what_test_has_is_dropped_from_dev_too(tmp_path: Path) -> None:
    test, dev = rows(split="test"), rows(split="dev")
    row = {"text": f" {test[1]['text']} ", "label": "buy"}
    path = write_task(tmp_path, dev=[*dev, row], train=[*rows(split="train"), row], test=test)
    warned = [f for f in read_task(path).findings if f.rule == "duplicate_across_splits"]
    assert all("`drop_leaked = true` under [data]" in finding.message for finding in warned)
    data = 'train = "train.jsonl"\ndev = "dev.jsonl"\ntest = "test.jsonl"\ndrop_leaked = true'
    task = read_task(write_task(tmp_path, data=data))
    assert (len(task.train), len(task.dev), task.n_test) == (12, 12, 12)
    assert [f.message for f in task.findings if f.rule == "dropped_leaked"] == [
        "rows left out of dev because their text is in test (data.drop_leaked): 1.",
        "rows left out of train because their text is in dev or test (data.drop_leaked): 1.",
    ]


def test_leaked_rows_are_dropped_from_train_when_asked(tmp_path: Path) -> None:
    train, test = rows(split="train"), rows(split="test")
    path = write_task(
        tmp_path, train=[*train, {"text": test[0]["text"].upper(), "label": "buy"}], test=test
    )
    assert [f.n_examples for f in read_task(path).findings if f.rule == "duplicate_across_splits"] == [1]
    data = 'train = "train.jsonl"\ndev = "dev.jsonl"\ntest = "test.jsonl"\ndrop_leaked = true'
    task = read_task(write_task(tmp_path, data=data))
    assert (len(task.train), task.n_test) == (12, 12)
    assert [f.message for f in task.findings if f.rule == "dropped_leaked"] == [
        "rows left out of train because their text is in dev or test (data.drop_leaked): 1."
    ]


def test_reading_the_task_again_gives_the_same_digests(tmp_path: Path) -> None:
    path = write_task(tmp_path)
    first, second = read_task(path), read_task(str(path))
    assert first.development.digest == second.development.digest
    assert first.test_digest == second.test_digest


def test_25000_rows_are_read_and_inspected_in_seconds(tmp_path: Path) -> None:
    data = {
        split: [
            {"text": f"{hash_word(split, i)} {hash_word(i, split)} {i}", "label": f"label {i % 50}"}
            for i in range(n)
        ]
        for split, n in (("train", 17_000), ("dev", 3_000), ("test", 5_000))
    }
    path = write_task(tmp_path, **data)
    started = time.process_time()
    assert read_task(path).n_test == 5_000
    assert time.process_time() - started < 6  # 0.5 s on a free core


SHARED = Path(os.environ.get("JETTISON_SHARED", Path(__file__).resolve().parents[3] / "shared"))


@pytest.mark.shared
@pytest.mark.skipif(
    not (SHARED / "data" / "clinc150").exists(), reason="no shared data beside the checkout"
)
def test_clinc150_is_read_as_its_source_describes_it(tmp_path: Path) -> None:
    columns = '{split = "split", slices = ["domain"]}'
    data = f'path = "{SHARED}/data/clinc150/clinc150.jsonl"\ncolumns = {columns}'
    task = read_task(write_task(tmp_path, data=data, rest='[labels]\nout_of_scope = "oos"'))
    assert (len(task.train), len(task.dev), task.n_test) == (15_100, 3_100, 5_500)
    assert (task.slice_counts["scope=in"], task.slice_counts["scope=out"]) == (4_500, 1_000)
    assert len(task.labels) == 151


DOCS = Path(__file__).resolve().parents[2] / "docs" / "task.md"


def test_the_task_file_in_the_docs_is_a_valid_one() -> None:
    text = DOCS.read_text().partition("```toml\n")[2].partition("```")[0]
    assert parse_task_source(text, where="docs/task.md").labels.out_of_scope == "oos"


@pytest.mark.parametrize("section", [DataSource, Columns, MadeSplit, Labels, Slices, PromptSource])
def test_every_setting_is_documented(section: type) -> None:
    missing = [name for name in section.__struct_fields__ if f"`{name}`" not in DOCS.read_text()]
    assert set(missing) <= {"columns"}  # a section of its own


def test_every_finding_is_documented() -> None:
    package = Path(jettison.task.__file__).parent
    sources = "".join((package / name).read_text() for name in ("inspect.py", "apportion.py", "typos.py"))
    rules = set(re.findall(r'rule="(\w+)"', sources)) | set(re.findall(r'_finding\(\s*"(\w+)"', sources))
    assert len(rules) > 10
    assert not [rule for rule in rules if f"`{rule}`" not in DOCS.read_text()]


def test_traffic_without_answers_stands_beside_one_file_of_all_splits(tmp_path):
    data = [row | {"split": split} for split in ("train", "dev", "test") for row in rows(split=split)]
    write_jsonl(tmp_path / "all.jsonl", data)
    write_jsonl(tmp_path / "traffic.jsonl", [{"text": "where is my parcel"}, {"text": "sell it all"}])
    columns = 'path = "all.jsonl"\nunlabelled = "traffic.jsonl"\n[data.columns]\nsplit = "split"\n'
    task = read_task(write_task(tmp_path, data=columns))
    assert [e.input for e in task.unlabelled] == ["where is my parcel", "sell it all"]
    assert (len(task.train), len(task.dev), task.n_test) == (12, 12, 12)
