"""Prediction files in, records out: JSONL, CSV or Parquet with an id and an output or a score."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from jettison.errors import InvalidInput
from jettison.files import file_sha256
from jettison.record import Record, read_records
from jettison.task import Example
from jettison.task.tables import SUFFIXES, Table, read_table

ID = ("example_id", "id")
OUTPUT = ("output", "prediction", "predicted", "predicted_label", "pred")
EXPECTED = ("expected", "target", "gold", "reference", "true_label", "label")
SCORE = ("score", "correct", "acc")
ERROR = ("error",)


@dataclass(frozen=True, kw_only=True)
class Predictions:
    """What a prediction file holds."""

    records: tuple[Record, ...]
    prompts: dict[str, str] = field(default_factory=dict)
    """Digest of the prompt by example, where the file says it (lm-eval): both sides must share it."""


def is_prediction_file(source: str) -> bool:
    """Whether a source names a data file, rather than a model, candidate or release."""
    return Path(source).suffix.lower() in SUFFIXES


def read_predictions(path: Path, *, slice_columns: Sequence[str] = ()) -> Predictions:
    """Read predictions of one model.

    Columns, by the first name present: the example (`example_id`, `id`), the answer (`output`,
    `prediction`, ...) with the right one (`expected`, `target`, `gold`, `label`, ...), or a
    `score`; and where they are, `confidence` (0-1), `group`, `weight`, `error`, `slices`.
    Records that jettison wrote and lm-eval's `samples_*.jsonl` are known by their columns.

    Args:
        path: The file.
        slice_columns: Further columns to report on; one that is not there is left to the other side.

    Raises:
        InvalidInput: A column is missing, or a value cannot be.
    """
    table = read_table(path)
    if {"candidate", "example_id", "scores", "slices"} <= set(table.columns) and path.suffix == ".parquet":
        return Predictions(records=tuple(read_records(path)))
    digest = file_sha256(path)
    if {"doc_hash", "filter"} <= set(table.columns):
        return _read_lm_eval(table, digest)
    columns = _Columns.find(table)
    rows = range(table.n_rows)
    return Predictions(records=tuple(columns.record(row, digest, slice_columns) for row in rows))


def complete(records: Sequence[Record], known: Mapping[str, Example | Record]) -> tuple[Record, ...]:
    """Add expected answer, group and slices from elsewhere where a record brings none, and score it."""
    completed = []
    for record in records:
        other = known.get(record.example_id)
        if other is None:
            completed.append(record)
            continue
        expected = record.expected if record.expected is not None else other.expected
        judged = record.scores or _label_score(record.output, expected)
        completed.append(
            msgspec.structs.replace(
                record,
                expected=expected,
                group=record.group or other.group,
                slices={**other.slices, **record.slices},
                scores=judged,
            )
        )
    return tuple(completed)


@dataclass(frozen=True)
class _Columns:
    table: Table
    id: str
    output: str | None
    expected: str | None
    score: str | None

    @classmethod
    def find(cls, table: Table) -> "_Columns":
        found = {name: _first(table, names) for name, names in (("id", ID), ("output", OUTPUT))}
        if found["id"] is None:
            raise InvalidInput(
                f"{table.path} must have a column named one of {list(ID)}, got {sorted(table.columns)}. "
                "Answers are paired by example."
            )
        score = _first(table, SCORE)
        if found["output"] is None and score is None:
            raise InvalidInput(
                f"{table.path} must have an answer in one of {list(OUTPUT)} or a score in one of "
                f"{list(SCORE)}, got {sorted(table.columns)}."
            )
        return cls(table, found["id"], found["output"], _first(table, EXPECTED), score)

    def record(self, row: int, digest: str, slice_columns: Sequence[str]) -> Record:
        output, expected = self._text(self.output, row), self._text(self.expected, row)
        error = self._text("error", row)
        example = self._text(self.id, row)
        if example is None:
            raise InvalidInput(f"{self.id} must be given, got nothing at {self.table.place(row)}.")
        if self.score is not None:
            score = self._number(self.score, row)
            scores = {"score": score}
        else:
            scores = _label_score(output, expected)
        weight = self._number("weight", row)
        confidence = self._number("confidence", row)
        if confidence is not None and not 0 <= confidence <= 1:
            raise InvalidInput(f"confidence must be in 0-1, got {confidence} at {self.table.place(row)}.")
        if weight is not None and weight <= 0:
            raise InvalidInput(f"weight must be positive, got {weight} at {self.table.place(row)}.")
        return Record(
            candidate=digest,
            example_id=example,
            split="test",
            output=output,
            expected=expected,
            confidence=confidence,
            scores=scores,
            slices=self._slices(row, slice_columns),
            group=self._text("group", row),
            weight=1.0 if weight is None else weight,
            unanswered=self._number("unanswered", row) == 1.0,
            error=error or ("no answer" if self.score is None and output is None else None),
        )

    def _slices(self, row: int, slice_columns: Sequence[str]) -> dict[str, str]:
        given = self.table.columns.get("slices", [None] * self.table.n_rows)[row]
        present = [column for column in slice_columns if column in self.table.columns]
        named = {column: self.table.columns[column][row] for column in present}
        merged = {**(given if isinstance(given, dict) else {}), **named}
        return {column: str(value) for column, value in merged.items() if value is not None}

    def _text(self, column: str | None, row: int) -> str | None:
        if column is None or column not in self.table.columns:
            return None
        value = self.table.columns[column][row]
        names = self.table.label_names.get(column)
        if names is not None and isinstance(value, int):
            return names[value]
        return None if value is None or value == "" else str(value)

    def _number(self, column: str, row: int) -> float | None:
        value = self.table.columns[column][row] if column in self.table.columns else None
        if value is None or value == "":
            return None
        words = {"true": 1.0, "false": 0.0}
        try:
            number = (
                words[value.lower()]
                if str(value).lower() in words and isinstance(value, str)
                else float(value)
            )
        except (TypeError, ValueError, OverflowError):
            number = math.nan
        if not math.isfinite(number):
            raise InvalidInput(
                f"{column} must be a finite number, got {value!r} at {self.table.place(row)}."
            )
        return number


def _read_lm_eval(table: Table, digest: str) -> Predictions:
    """lm-eval's samples: one row a document and filter; a repeated document is told apart by its order."""
    listed = table.columns.get("metrics", [None])[0]
    metrics = [m for m in (listed or ("acc", "exact_match", "acc_norm", "f1")) if m in table.columns]
    if not metrics:
        raise InvalidInput(
            f"{table.path} must have a column for a metric such as `acc`, got {sorted(table.columns)}. "
            "Run lm-eval with --log_samples."
        )
    seen: Counter[str] = Counter()
    records, prompts = [], {}
    for row in range(table.n_rows):
        document = f"{table.columns['doc_hash'][row]}/{table.columns['filter'][row]}"
        seen[document] += 1
        example = document if seen[document] == 1 else f"{document}#{seen[document]}"
        answers = table.columns.get("filtered_resps", [None] * table.n_rows)[row]
        answer = answers[0] if isinstance(answers, list) and answers else None
        target = table.columns.get("target", [None] * table.n_rows)[row]
        prompt = table.columns.get("prompt_hash", [None] * table.n_rows)[row]
        if prompt is not None:
            prompts[example] = str(prompt)
        records.append(
            Record(
                candidate=digest,
                example_id=example,
                split="test",
                output=answer if isinstance(answer, str) else None,
                expected=None if target is None else str(target),
                scores={name: _metric(table, name, row) for name in metrics},
            )
        )
    return Predictions(records=tuple(records), prompts=prompts)


def _metric(table: Table, name: str, row: int) -> float | None:
    value: Any = table.columns[name][row]
    try:
        number = float(value) if isinstance(value, (int, float)) else math.nan
    except OverflowError:  # a whole number of hundreds of digits
        number = math.nan
    return number if math.isfinite(number) else None


def _label_score(output: str | None, expected: str | None) -> dict[str, float | None]:
    return {} if expected is None else {"label": float(output == expected)}


def _first(table: Table, names: Sequence[str]) -> str | None:
    return next((name for name in names if name in table.columns), None)
