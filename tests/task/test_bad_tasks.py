"""Broken task files and data: each gives one clear error that says the rule, the value and the way out."""
# ruff: noqa: E501  (a case a line)

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from jettison.errors import InvalidInput, UnknownName, UnsafeArtifact
from jettison.task import read_task
from task_writing import rows, write_jsonl, write_task

SPLIT_FILES = 'train = "train.jsonl"\ndev = "dev.jsonl"\ntest = "test.jsonl"\n'


def refused(path: Path, match: str, kind: type[Exception] = InvalidInput) -> None:
    with pytest.raises(kind, match=match) as caught:
        read_task(path)
    assert "\n" not in str(caught.value)
    assert str(caught.value).rstrip().endswith((".", "?"))


TASK_FILES = {
    "unknown key": ("[data]\npth = 'x'", r"unknown field `pth` - at `\$\.data`\. Did you mean 'path'\?"),
    "unknown section": ("[data]\npath = 'x'\n[slice]\n", r"unknown field `slice`\. Did you mean 'slices'\?"),
    "unknown column role": (
        "[data]\npath = 'x'\n[data.columns]\ngropu = 'g'",
        r"`gropu` - at `\$\.data\.columns`\. Did you mean 'group'\?",
    ),
    "nothing like it": ("[data]\npath = 'x'\nzzz = 1", r"`zzz` - at `\$\.data`\. The keys are \['path',"),
    "no data": ("", r"missing required field `data`"),
    "wrong type": ("[data]\npath = 3", r"Expected `str \| null`, got `int` - at `\$\.data\.path`"),
    "both path and train": ("[data]\npath = 'x'\ntrain = 'y'", r"either `path` or a path per split, got `path` and"),
    "neither": ("[data]\ndrop_leaked = true", r"\[data\] must have `path`, or `train`, `dev` and `test`"),
    "test share": ("[data]\npath = 'x'\n[split]\ntest_share = 1.2", r"test_share must be between 0 and 1, got 1\.2"),
    "dev share": ("[data]\npath = 'x'\n[split]\ndev_share = 0.0", r"dev_share must be between 0 and 1, got 0\.0"),
    "both shares": (
        "[data]\npath = 'x'\n[split]\ntest_share = 0.6\ndev_share = 0.5",
        r"must leave at least a tenth to train, got 0\.6 \+ 0\.5",
    ),
    "seed": ("[data]\npath = 'x'\n[split]\nseed = -1", r"split\.seed must be 0 or more, got -1"),
    "unknown split": ("[data]\npath = 'x'\nsplits = {ood = 'tset'}", r"Invalid enum value 'tset' - at"),
    "labels twice": ("[data]\npath = 'x'\n[labels]\nnames = ['a', 'a']", r"labels\.names must be .* all different"),
    "slice": ("[data]\npath = 'x'\n[slices]\nrequired = ['domain']", r"slices\.required must hold .* got 'domain'"),
    "no TOML": ("[data", r"must be valid TOML: Expected '\]'"),
}  # fmt: skip


@pytest.mark.parametrize("case", TASK_FILES)
def test_a_broken_task_file_is_refused_with_its_place(tmp_path: Path, case: str) -> None:
    text, match = TASK_FILES[case]
    path = tmp_path / "task.toml"
    path.write_text(f'format = 1\nname = "orders"\n{text}\n')
    refused(path, match)


def test_a_newer_format_asks_for_an_upgrade(tmp_path: Path) -> None:
    path = tmp_path / "task.toml"
    path.write_text("format = 2\nnew_things = true\n")
    refused(path, r"must have format = 1, got 2\. Upgrade jettison")


def test_an_empty_name_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "task.toml"
    path.write_text('format = 1\nname = " "\n[data]\npath = "x"\n')
    refused(path, r"name must be non-empty text, got ' ' at `\$\.name`")


def test_an_unknown_kind_of_task_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "task.toml"
    path.write_text('format = 1\nname = "orders"\nkind = "translate"\n[data]\npath = "x"\n')
    refused(path, r"Invalid enum value 'translate' - at `\$\.kind`")


def test_a_missing_task_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    refused(tmp_path / "task.toml", r"got nothing there\. `jettison init` writes one")
    refused(tmp_path, r"must be a task\.toml file, got a folder")


def test_a_task_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "task.toml").write_bytes(b"format = 1\nname = '\xff'")
    refused(tmp_path / "task.toml", r"must be UTF-8 text, got byte 19")


def file_of(name: str, content: bytes) -> Callable[[Path], str]:
    def write(folder: Path) -> str:
        (folder / name).write_bytes(content)
        return SPLIT_FILES.replace("train.jsonl", name)

    return write


def missing(folder: Path) -> str:
    return SPLIT_FILES.replace("train.jsonl", "trian.jsonl")


def folder_for_file(folder: Path) -> str:
    (folder / "raw").mkdir()
    return SPLIT_FILES.replace("train.jsonl", "raw")


GOOD_LINE = b'{"text": "a", "label": "buy"}\n'
DATA_FILES: dict[str, tuple[Callable[[Path], str], str]] = {
    "missing": (missing, r"trian\.jsonl must be a data file, got nothing there"),
    "folder": (folder_for_file, r"raw must be a data file, got a folder"),
    "unknown format": (file_of("a.xlsx", b"PK"), r"must end in one of \['\.jsonl'.*got .*a\.xlsx"),
    "empty file": (file_of("a.jsonl", b"\n\n"), r"a\.jsonl must have at least one row, got 0"),
    "empty CSV": (file_of("a.csv", b"text,label\n"), r"a\.csv must have at least one row, got 0"),
    "broken line": (file_of("a.jsonl", GOOD_LINE * 2 + b'{"text": \n'), r"a\.jsonl:3 must be one JSON object"),
    "after a blank line": (file_of("a.jsonl", GOOD_LINE + b"\n[1]\n"), r"a\.jsonl:3 must be .* got `array`"),
    "NaN in JSON": (file_of("a.jsonl", b'{"text": NaN}\n'), r"a\.jsonl:1 must be .* NaN is no JSON: write null"),
    "JSON lines in JSON": (file_of("a.json", GOOD_LINE * 2), r"a\.json must be a JSON list of objects"),
    "ragged": (file_of("a.csv", b"text,label\na,buy\nb,c,sell\n"), r"a\.csv:3 must have 2 fields .* got 3"),
    "open quote": (file_of("a.csv", b'text,label\n"a,buy\n'), r"a\.csv:\d must be valid CSV: unexpected end"),
    "column twice": (file_of("a.csv", b"text,text\na,b\n"), r"must have columns of different names"),
    "bad UTF-8": (file_of("a.csv", b"text,label\ncaf\xe9,buy\n"), r"a\.csv:2 must be UTF-8 text, got byte 0xe9"),
    "torn Parquet": (file_of("a.parquet", b"PAR1 torn"), r"a\.parquet must be a whole parquet file"),
    "torn Arrow": (file_of("a.arrow", b"torn"), r"a\.arrow must be a whole arrow file"),
    "null label": (
        file_of("a.jsonl", GOOD_LINE + b'{"text": "b", "label": null}\n'),
        r"label must be a label in every row .* got None at a\.jsonl:2\. Rows without answers belong in",
    ),
    "empty label": (file_of("a.csv", b"text,label\na,\n"), r"label must be a label .* got None at a\.csv:2"),
    "half a label": (file_of("a.jsonl", b'{"text": "b", "label": 0.5}\n'), r"text or a whole number, got 0\.5 at"),
    "list label": (file_of("a.jsonl", b'{"text": "b", "label": ["x"]}\n'), r"text or a whole number, got \['x'\]"),
    "number for text": (file_of("a.jsonl", b'{"text": 7, "label": "x"}\n'), r"text must be text in .* got 7 at"),
    "null text": (file_of("a.jsonl", b'{"text": null, "label": "x"}\n'), r"text must be text .* got None at"),
    "wrong column": (file_of("a.jsonl", b'{"texts": "a", "label": "b"}\n'), r"got 'text' .* Did you mean 'texts'\?"),
    "no label column": (file_of("a.jsonl", b'{"text": "a"}\n'), r"data\.columns\.expected must be one of \['text'\]"),
}  # fmt: skip


@pytest.mark.parametrize("case", DATA_FILES)
def test_a_broken_data_file_is_refused_with_its_line(tmp_path: Path, case: str) -> None:
    write_task(tmp_path)
    write, match = DATA_FILES[case]
    refused(write_task(tmp_path, data=write(tmp_path)), match)


@pytest.mark.parametrize("suffix", ["pkl", "pickle", "pt", "npy"])
def test_a_file_that_could_run_code_is_never_opened(tmp_path: Path, suffix: str) -> None:
    write_task(tmp_path)
    data = file_of(f"a.{suffix}", b"\x80\x04cos\nsystem\n")(tmp_path)
    refused(write_task(tmp_path, data=data), r"may hold a pickle that runs code", UnsafeArtifact)


def test_parquet_labels_that_are_not_numbers_are_refused(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    write_task(tmp_path)
    pq.write_table(pa.table({"text": ["a", "b"], "label": [1.0, float("nan")]}), tmp_path / "a.parquet")
    data = SPLIT_FILES.replace("train.jsonl", "a.parquet")
    refused(
        write_task(tmp_path, data=data),
        r"label must be a label in every row .* got nan at a\.parquet row 1",
    )


def test_one_class_alone_is_refused(tmp_path: Path) -> None:
    splits = {split: rows(split=split, labels=["buy"]) for split in ("train", "dev", "test")}
    refused(write_task(tmp_path, **splits), r"data must have at least two labels, got \['buy'\]")


def test_a_label_that_train_lacks_is_refused_with_the_way_out(tmp_path: Path) -> None:
    test = [*rows(split="test"), {"text": "hm", "label": "sel"}]
    refused(
        write_task(tmp_path, test=test),
        r"labels of test must be among the 2 of train, got 'sel' at test\.jsonl:13 \(1 rows\)\. "
        r"Did you mean 'sell'\? .*\[labels\.aliases\]",
    )


def test_test_data_that_is_train_data_is_refused(tmp_path: Path) -> None:
    train = rows(split="train")
    refused(
        write_task(tmp_path, train=train, test=train),
        r"test must be kept apart from train, got 12 of 12 test texts in train too\. .*drop_leaked",
    )


def test_test_data_that_is_dev_data_is_refused(tmp_path: Path) -> None:
    dev = rows(split="dev")
    refused(
        write_task(tmp_path, dev=dev, test=dev),
        r"test must be kept apart from dev, got 12 of 12 test texts in dev too: what is chosen on dev "
        r"would be chosen on test\. .*drop_leaked",
    )


def test_an_empty_test_is_refused(tmp_path: Path) -> None:
    write_task(tmp_path)
    refused(
        write_task(tmp_path, data='train = "train.jsonl"'),
        r"test split must have at least one example, got 0",
    )


def test_data_without_any_split_asks_for_one(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "all.jsonl", rows())
    refused(
        write_task(tmp_path, data='path = "all.jsonl"'), r"must say which rows are test.*test_share = 0\.2"
    )


def test_an_unknown_value_in_the_split_column_is_refused(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "all.jsonl", [{**row, "part": "ood"} for row in rows()])
    data = 'path = "all.jsonl"\ncolumns.split = "part"'
    refused(
        write_task(tmp_path, data=data), r"a split must be one of .* got 'ood' at all\.jsonl:1\. Add `ood ="
    )


def test_an_empty_value_in_the_split_column_is_refused(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "all.jsonl", [{**rows()[0], "part": "train"}, rows()[1]])
    data = 'path = "all.jsonl"\ncolumns.split = "part"'
    refused(write_task(tmp_path, data=data), r"a split must be one of .* got None at all\.jsonl:2")


def test_a_wrong_split_column_is_refused(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "all.jsonl", [{**row, "split": "train"} for row in rows()])
    data = 'path = "all.jsonl"\ncolumns.split = "splt"'
    refused(
        write_task(tmp_path, data=data),
        r"columns\.split must be one of .* Did you mean 'split'\?",
        UnknownName,
    )


def test_a_share_for_a_split_that_is_there_is_refused(tmp_path: Path) -> None:
    refused(
        write_task(tmp_path, rest="[split]\ntest_share = 0.2"),
        r"test_share must be left out where .* got 0\.2",
    )
    refused(
        write_task(tmp_path, rest="[split]\ndev_share = 0.2"),
        r"dev_share must be left out where .* got 0\.2",
    )


def test_a_group_in_two_splits_is_refused(tmp_path: Path) -> None:
    splits = {split: [{**r, "chat": "c7"} for r in rows(split=split)] for split in ("train", "dev", "test")}
    path = write_task(tmp_path, rest='[data.columns]\ngroup = "chat"', **splits)
    refused(
        path,
        r"a group must be in one split, got 'c7' in train \(train\.jsonl:1\) and in dev \(dev\.jsonl:1\)",
    )


def test_ids_that_are_not_unique_are_refused_across_splits(tmp_path: Path) -> None:
    splits = {
        split: [{**r, "uid": f"{split[0]}{i}"} for i, r in enumerate(rows(split=split))]
        for split in ("train", "dev", "test")
    }
    path = write_task(tmp_path, rest='[data.columns]\nid = "uid"', **splits)
    refused(path, r"ids must each stand for one example, got 't0' at train\.jsonl:1 and at test\.jsonl:1")
    splits["dev"][3]["uid"] = ""
    path = write_task(tmp_path, rest='[data.columns]\nid = "uid"', **splits)
    refused(path, r"uid must be an id in every row, got '' at dev\.jsonl:4")


@pytest.mark.parametrize("weight", [-1, 0, "nan", "heavy", None, True])
def test_a_weight_that_is_no_positive_number_is_refused(tmp_path: Path, weight: object) -> None:
    splits = {split: [{**r, "w": 1} for r in rows(split=split)] for split in ("train", "dev", "test")}
    splits["dev"][2]["w"] = weight
    path = write_task(tmp_path, rest='[data.columns]\nweight = "w"', **splits)
    refused(path, rf"w must be a finite number above 0, got {re.escape(repr(weight))} at dev\.jsonl:3")


def test_a_label_outside_the_fixed_names_is_refused(tmp_path: Path) -> None:
    path = write_task(tmp_path, rest='[labels]\nnames = ["buy", "sells"]')
    refused(path, r"must be one of labels\.names, got 'sell' at train\.jsonl:7\. Did you mean 'sells'\?")


def test_a_number_beyond_the_fixed_names_is_refused(tmp_path: Path) -> None:
    train = [*rows(split="train"), {"text": "x", "label": 2}]
    path = write_task(tmp_path, train=train, rest='[labels]\nnames = ["buy", "sell"]')
    refused(path, r"label must be from 0 to 1, a position among its label names, got 2 at train\.jsonl:13")


def test_an_unknown_out_of_scope_label_is_refused(tmp_path: Path) -> None:
    refused(
        write_task(tmp_path, rest='[labels]\nout_of_scope = "oos"'),
        r"must be one of the 2 labels, got 'oos'",
    )


def test_an_alias_of_an_unknown_label_is_refused(tmp_path: Path) -> None:
    path = write_task(tmp_path, rest='[labels]\naliases = {by = "buyy"}')
    refused(path, r"aliases must point to labels of the data, got 'buyy' for 'by'\. Did you mean 'buy'\?")


@pytest.mark.parametrize("slice_name", ["domain=web", "domain=*", "scope=in"])
def test_a_required_slice_without_test_examples_is_refused(tmp_path: Path, slice_name: str) -> None:
    path = write_task(tmp_path, rest=f'[slices]\nrequired = ["{slice_name}"]')
    refused(path, rf"slices\.required must name slices of the test split, got '{re.escape(slice_name)}'")


def test_a_wrong_slice_column_is_refused(tmp_path: Path) -> None:
    path = write_task(tmp_path, rest='[data.columns]\nslices = ["lable"]')
    refused(
        path, r"data\.columns\.slices must be one of .* got 'lable' .* Did you mean 'label'\?", UnknownName
    )


def test_weights_further_apart_than_a_mean_can_hold_are_refused(tmp_path: Path) -> None:
    splits = {split: [{**r, "w": 1} for r in rows(split=split)] for split in ("train", "dev", "test")}
    splits["dev"][2]["w"] = 1e300
    path = write_task(tmp_path, rest='[data.columns]\nweight = "w"', **splits)
    refused(path, r"a weight must be from 1e-100 to 1e\+100, got 1e\+300 at dev\.jsonl:3")
    splits["dev"][2]["w"] = 1e-13
    path = write_task(tmp_path, rest='[data.columns]\nweight = "w"', **splits)
    refused(path, r"within a factor of 1e\+12 of each other, got 1 at .* and 1e-13 at dev\.jsonl:3")
