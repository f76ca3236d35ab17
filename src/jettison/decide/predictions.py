"""Predictions in, records out: plain tables and data sets, jettison's records, logs of other harnesses."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from jettison.decide.prediction_every_eval_ever import is_every_eval_ever_table, read_every_eval_ever
from jettison.decide.prediction_inspect import is_inspect_log, read_inspect_log
from jettison.decide.prediction_lm_eval import (
    is_lm_eval_table,
    lm_eval_samples,
    read_lm_eval_folder,
    read_lm_eval_samples,
)
from jettison.decide.prediction_scores import refuse_scores_alone
from jettison.decide.prediction_table import Predictions, label_score, records_of_table
from jettison.errors import InvalidInput
from jettison.files import file_sha256, value_sha256
from jettison.record import Record, read_records
from jettison.task import Example
from jettison.task.folder import is_data_folder, read_one_split
from jettison.task.tables import SUFFIXES, Table, read_table

__all__ = ["Predictions", "complete", "is_prediction_file", "read_predictions"]


def is_prediction_file(source: str) -> bool:
    """Whether a source names predictions (data file, log), rather than a model, candidate or release."""
    path = Path(source)
    if path.is_dir():
        return bool(lm_eval_samples(path)) or is_data_folder(path)
    return path.suffix.lower() in (*SUFFIXES, ".eval")


def read_predictions(
    path: Path, *, slice_columns: Sequence[str] = (), columns: Mapping[str, str] | None = None
) -> Predictions:
    """Read predictions of one model.

    Columns of a plain table, by the first name present: the example (`example_id`, `id`), the answer
    (`output`, `prediction`, ...) with the right one (`expected`, `target`, `gold`, `label`, ...), or a
    `score`; and where they are, `confidence` (0-1), `group`, `weight`, `error`, `slices`, `prompt_hash`.
    Records that jettison wrote, data set folders, lm-eval's `samples_*.jsonl` or the folder of its run,
    Inspect's logs and samples of Every Eval Ever are known by what they hold.

    Args:
        path: The file or folder.
        slice_columns: Further columns to report on; one that is not there is left to the other side.
        columns: Role (`example`, `output`, `expected`, `score`, ...) → column of a plain table.

    Raises:
        InvalidInput: What pairing needs is missing, or a value cannot be.
        BrokenArtifact: A log cannot be read.
    """
    if path.is_dir() and lm_eval_samples(path):
        return read_lm_eval_folder(path, slice_columns=slice_columns)
    if path.is_dir():
        tables = read_one_split(path)
        digest = value_sha256([file_sha256(table.path) for table in tables])
        parts = [_of_table(table, digest, slice_columns, columns) for table in tables]
        return Predictions(
            records=tuple(record for part in parts for record in part.records),
            prompts={example: prompt for part in parts for example, prompt in part.prompts.items()},
        )
    if path.suffix == ".eval" and not path.is_file():
        raise InvalidInput(f"{path} must be a file, got nothing there.")
    if is_inspect_log(path):
        return read_inspect_log(path, slice_columns=tuple(slice_columns))
    refuse_scores_alone(path)
    table = read_table(path)
    if {"candidate", "example_id", "scores", "slices"} <= set(table.columns) and path.suffix == ".parquet":
        return Predictions(records=tuple(read_records(path)))
    return _of_table(table, file_sha256(path), slice_columns, columns)


def _of_table(
    table: Table, digest: str, slice_columns: Sequence[str], columns: Mapping[str, str] | None
) -> Predictions:
    if is_lm_eval_table(table):
        return read_lm_eval_samples(table, digest, slice_columns=slice_columns)
    if is_every_eval_ever_table(table):
        return read_every_eval_ever(table, digest, slice_columns=slice_columns)
    records = records_of_table(table, digest, slice_columns=slice_columns, columns=columns)
    said = table.columns.get("prompt_hash", [])
    prompts = {
        record.example_id: str(prompt)
        for record, prompt in zip(records, said, strict=bool(said))
        if prompt is not None
    }
    return Predictions(records=records, prompts=prompts)


def complete(records: Sequence[Record], known: Mapping[str, Example | Record]) -> tuple[Record, ...]:
    """Add expected answer, group and slices from elsewhere where a record brings none, and score it.

    Weights are taken from there too, where all of the records' are 1.
    """
    is_weighted = any(record.weight != 1.0 for record in records)
    completed = []
    for record in records:
        other = known.get(record.example_id)
        if other is None:
            completed.append(record)
            continue
        expected = record.expected if record.expected is not None else other.expected
        judged = record.scores or label_score(record.output, expected)
        completed.append(
            msgspec.structs.replace(
                record,
                expected=expected,
                group=record.group or other.group,
                slices={**other.slices, **record.slices},
                weight=record.weight if is_weighted else other.weight,
                scores=judged,
            )
        )
    return tuple(completed)
