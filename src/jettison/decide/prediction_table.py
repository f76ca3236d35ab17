"""Plain tables of predictions: a column with the example, and one with the answer or a score."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from jettison.errors import InvalidInput
from jettison.record import Record
from jettison.task.cells import short, text_of
from jettison.task.tables import Table

ID = ("example_id", "id")
OUTPUT = ("output", "prediction", "predicted", "predicted_label", "pred")
EXPECTED = ("expected", "target", "gold", "reference", "true_label", "label")
SCORE = ("score", "correct", "acc")
ROLES = {"example": ID, "output": OUTPUT, "expected": EXPECTED, "score": SCORE}
FURTHER = ("confidence", "group", "weight", "error", "unanswered", "input")


@dataclass(frozen=True, kw_only=True)
class Predictions:
    """What one source of predictions holds."""

    records: tuple[Record, ...]
    prompts: dict[str, str] = field(default_factory=dict)
    """Digest of the prompt by example, where the source says it: both sides must share it."""
    retry: str | None = None
    """The command that asks again for answers that were lost, where another tool asked for them."""


def records_of_table(
    table: Table,
    digest: str,
    *,
    slice_columns: Sequence[str] = (),
    columns: Mapping[str, str] | None = None,
) -> tuple[Record, ...]:
    """Records of a table, one a row.

    Args:
        table: With a column for the example, and one for the answer or a score.
        digest: Stands for the candidate.
        slice_columns: Further columns to report on; one that is not there is left out.
        columns: Role (`example`, `output`, `expected`, `score`, `confidence`, ...) → column, where a name
            is none of the usual ones.

    Raises:
        InvalidInput: A column is missing, or a value cannot be.
    """
    found = _Columns.find(table, columns or {})
    return tuple(found.record(row, digest, slice_columns) for row in range(table.n_rows))


@dataclass(frozen=True)
class _Columns:
    table: Table
    id: str
    output: str | None
    expected: str | None
    score: str | None
    further: Mapping[str, str]
    """Optional role → column."""

    @classmethod
    def find(cls, table: Table, named: Mapping[str, str]) -> "_Columns":
        _check_named(table, named)
        found = {role: named.get(role) or _first(table, names) for role, names in ROLES.items()}
        if found["example"] is None:
            raise InvalidInput(
                f"{table.path} must have a column named one of {list(ID)}, got {sorted(table.columns)}. "
                "Answers are paired by example. Name another by --column example=NAME."
            )
        if found["output"] is None and found["score"] is None:
            raise InvalidInput(
                f"{table.path} must have an answer in one of {list(OUTPUT)} or a score in one of "
                f"{list(SCORE)}, got {sorted(table.columns)}. Name another by --column output=NAME."
            )
        further = {role: named.get(role, role) for role in FURTHER}
        return cls(table, found["example"], found["output"], found["expected"], found["score"], further)

    def record(self, row: int, digest: str, slice_columns: Sequence[str]) -> Record:
        output, expected = self._answer(self.output, row), self._answer(self.expected, row)
        error = self._error(row)
        example = self._text(self.id, row)
        if example is None:
            raise InvalidInput(f"{self.id} must be given, got nothing at {self.table.place(row)}.")
        if self.score is not None:
            scores = {"score": self._number(self.score, row)}
        else:
            scores = label_score(output, expected)
        weight = self._number(self.further["weight"], row)
        confidence = self._number(self.further["confidence"], row)
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
            group=self._text(self.further["group"], row),
            weight=1.0 if weight is None else weight,
            unanswered=self._number(self.further["unanswered"], row) == 1.0,
            input=self._text(self.further["input"], row),
            error=error or ("no answer" if self.score is None and output is None else None),
        )

    def _slices(self, row: int, slice_columns: Sequence[str]) -> dict[str, str]:
        present = [column for column in slice_columns if column in self.table.columns]
        named = {column: self.table.columns[column][row] for column in present}
        given = {} if "slices" in present else self._given_slices(row)
        merged = {**given, **named}
        return {column: str(value) for column, value in merged.items() if value is not None}

    def _given_slices(self, row: int) -> dict[str, Any]:
        """The object in the column `slices`, or the JSON text of one, as CSV has it."""
        given = self._value("slices", row)
        if given is None or isinstance(given, dict):
            return given or {}
        try:
            return msgspec.json.decode(given, type=dict[str, Any])
        except (msgspec.DecodeError, TypeError) as error:
            raise InvalidInput(
                f'slices must be a JSON object, as {{"column": "value"}}, got {short(given)} '
                f"at {self.table.place(row)}."
            ) from error

    def _value(self, column: str | None, row: int) -> Any:
        """What stands there; None where nothing does."""
        rows = None if column is None else self.table.columns.get(column)
        value = None if rows is None else rows[row]
        is_nothing = value == "" or (isinstance(value, float) and math.isnan(value))
        return None if is_nothing else value

    def _text(self, column: str | None, row: int) -> str | None:
        """As a task reads ids, groups and slices."""
        value = self._value(column, row)
        return None if value is None else str(value)

    def _answer(self, column: str | None, row: int) -> str | None:
        """As a task reads labels and answers: `true`, 1.0 as 1, an object as JSON."""
        value = self._value(column, row)
        if column is None or value is None:
            return None
        if isinstance(value, str):
            return value
        names = self.table.label_names.get(column)
        if names is not None and isinstance(value, int):
            if not -1 <= value < len(names):
                raise InvalidInput(
                    f"{column} must be from 0 to {len(names) - 1}, a position among its label names, "
                    f"got {value} at {self.table.place(row)}."
                )
            return None if value == -1 else names[value]  # Hugging Face's mark of a hidden label
        if isinstance(value, dict | list):
            return msgspec.json.encode(value).decode()
        if isinstance(value, int | float):
            return text_of(value, column=column, place=self.table.place(row))
        return str(value)

    def _error(self, row: int) -> str | None:
        """Why there is no answer, in words; False and 0, as flags are written, are no error."""
        column = self.further["error"]
        value = self._value(column, row)
        if value is None or (isinstance(value, int | float) and not value):
            return None
        if not isinstance(value, str):
            raise InvalidInput(
                f"{column} must say in words what went wrong, or be empty or false where nothing did, "
                f"got {short(value)} at {self.table.place(row)}."
            )
        return None if value.strip().lower() in ("", "0", "0.0", "false") else value

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


def label_score(output: str | None, expected: str | None) -> dict[str, float | None]:
    """Whether the answer is the expected one, letter for letter; nothing where none is expected."""
    return {} if expected is None else {"label": float(output == expected)}


def _check_named(table: Table, named: Mapping[str, str]) -> None:
    known = (*ROLES, *FURTHER)
    for role, column in named.items():
        if role not in known:
            raise InvalidInput(f"the role of a column must be one of {list(known)}, got {role!r}.")
        if column not in table.columns:
            raise InvalidInput(
                f"the column of {role} must be one of {sorted(table.columns)}, got {column!r} "
                f"at {table.path}."
            )


def _first(table: Table, names: Sequence[str]) -> str | None:
    return next((name for name in names if name in table.columns), None)
