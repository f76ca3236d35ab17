"""Hugging Face data set folders, in each of the layouts they come in."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jettison.errors import InvalidInput
from jettison.task import read_task
from task_writing import rows, write_jsonl, write_task

CLASS_LABEL = {"label": {"names": ["buy", "sell"], "_type": "ClassLabel"}, "text": {"_type": "Value"}}


def numbered(split: str) -> list[dict[str, Any]]:
    return [{**row, "label": int(row["label"] == "sell")} for row in rows(split=split)]


def read_folder_task(folder: Path, more: str = "") -> Any:
    return read_task(write_task(folder, data=f'path = "set"\n{more}'))


def test_parquet_shards_under_data_are_read_with_their_class_names(tmp_path: Path) -> None:
    (tmp_path / "set" / "data").mkdir(parents=True)
    for split in ("train", "validation", "test"):
        table = pa.Table.from_pylist(numbered(split)).replace_schema_metadata(
            {"huggingface": json.dumps({"info": {"features": CLASS_LABEL}})}
        )
        for shard in range(2):
            part = table.slice(shard * 6, 6)
            pq.write_table(part, tmp_path / "set" / "data" / f"{split}-0000{shard}-of-00002.parquet")
    task = read_folder_task(tmp_path)
    assert (len(task.train), len(task.dev), task.n_test) == (12, 12, 12)
    assert task.labels == ("buy", "sell")


def test_a_saved_dataset_dict_is_read_without_datasets(tmp_path: Path) -> None:
    for split in ("train", "dev", "test"):
        folder = tmp_path / "set" / split
        folder.mkdir(parents=True)
        table = pa.Table.from_pylist(numbered(split))
        file = folder / "data-00000-of-00001.arrow"
        with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
        (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": file.name}]}))
        (folder / "dataset_info.json").write_text(json.dumps({"features": CLASS_LABEL}))
    (tmp_path / "set" / "dataset_dict.json").write_text('{"splits": ["train", "dev", "test"]}')
    task = read_folder_task(tmp_path)
    assert (len(task.train), task.n_test, task.labels) == (12, 12, ("buy", "sell"))


def test_a_card_names_the_files_and_the_classes(tmp_path: Path) -> None:
    (tmp_path / "set" / "raw").mkdir(parents=True)
    for split in ("a", "b", "c"):
        write_jsonl(tmp_path / "set" / "raw" / f"{split}.jsonl", numbered(split))
    (tmp_path / "set" / "README.md").write_text(
        "---\nconfigs:\n- config_name: default\n  data_files:\n  - {split: train, path: raw/a.jsonl}\n"
        "  - {split: validation, path: 'raw/b*.jsonl'}\n  - {split: test, path: [raw/c.jsonl]}\n"
        "dataset_info:\n  features:\n  - name: label\n    dtype:\n      class_label:\n        names:\n"
        "          '0': buy\n          '1': sell\n---\n# Orders\n"
    )
    task = read_folder_task(tmp_path)
    assert (len(task.train), len(task.dev), task.n_test) == (12, 12, 12)
    assert task.labels == ("buy", "sell")


def test_of_several_configurations_one_must_be_named(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    for split in ("train", "dev", "test"):
        write_jsonl(tmp_path / "set" / f"{split}.jsonl", rows(split=split))
    (tmp_path / "set" / "README.md").write_text(
        "---\nconfigs:\n- config_name: small\n  data_files: {train: train.jsonl, test: test.jsonl}\n"
        "- config_name: large\n  data_files: {train: dev.jsonl, test: test.jsonl}\n---\n"
    )
    with pytest.raises(InvalidInput, match=r"data\.config must say which of \['small', 'large'\]"):
        read_folder_task(tmp_path)
    assert read_folder_task(tmp_path, 'config = "small"').train[0].input.startswith("train")
    with pytest.raises(
        InvalidInput, match=r"data\.config must be one of .* got 'smal' .* Did you mean 'small'\?"
    ):
        read_folder_task(tmp_path, 'config = "smal"')


def test_files_named_by_split_are_read_and_others_passed_over(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    for split in ("train", "dev", "test"):
        write_jsonl(tmp_path / "set" / f"{split}.jsonl", rows(split=split))
    (tmp_path / "set" / "labels.json").write_text('[{"name": "buy"}]')
    assert read_folder_task(tmp_path).n_test == 12


def test_a_folder_without_data_is_refused(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "notes.txt").write_text("nothing")
    with pytest.raises(InvalidInput, match=r"set must hold data files .* got none"):
        read_folder_task(tmp_path)


def test_a_card_that_names_a_missing_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "README.md").write_text("---\nconfigs:\n- data_files: gone.csv\n---\n")
    with pytest.raises(InvalidInput, match=r"data_files of .* must exist, got 'gone\.csv'"):
        read_folder_task(tmp_path)
