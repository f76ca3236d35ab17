"""Rows in, examples out: every value checked, each fault with its file and line."""

import hashlib
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jettison.errors import InvalidInput, UnknownName
from jettison.task.answers import Answer, answers_of, column_of, expected_of
from jettison.task.source import Columns, Labels, TaskSource, did_you_mean
from jettison.task.tables import Table
from jettison.task.types import Example


@dataclass(frozen=True, kw_only=True)
class Row:
    """An example before it has an id, with the place it came from and the split it was found in."""

    input: str
    expected: str | None
    id: str | None
    group: str | None
    slices: dict[str, str]
    weight: float
    place: str
    split: str
    """`train`, `dev`, `test`, `unlabelled`, or `any` where a split is still to be made."""
    choices: tuple[str, ...] = ()
    references: tuple[str, ...] = ()
    tests: tuple[str, ...] = ()
    relevance: tuple[float, ...] = ()
    source: str | None = None
    """Where the example came from before it was in the file, where the data says it."""


def text_key(text: str) -> str:
    """What two texts share when they differ only in case and white space."""
    return " ".join(text.casefold().split())


def content_key(item: "Row | Example") -> str:
    """What two rows share that ask the same: their text, and the choices where they bring some."""
    return text_key("\n".join((item.input, *item.choices)))


def rows_of(table: Table, splits: Sequence[str], source: TaskSource) -> list[Row]:
    """The rows of one table that are in a split.

    Args:
        table: Rows of one file.
        splits: Split of each row, or `ignore`, shape (n_rows,).
        source: Names the columns and the labels.

    Raises:
        UnknownName: A column is not there.
        InvalidInput: A value is missing or of the wrong kind.
    """
    columns = source.data.columns
    inputs = column_of(table, columns.input, "input")
    ids, groups, weights = (
        _optional(table, getattr(columns, role), role) for role in ("id", "group", "weight")
    )
    slices = {name: column_of(table, name, "slices") for name in columns.slices}
    sources = _optional(table, columns.source, "source")
    answers = (
        _labels(table, splits, source) if source.kind == "classify" else answers_of(table, splits, source)
    )
    return [
        Row(
            input=_input(inputs[i], table, i, columns),
            expected=answers[i].expected,
            id=_name(ids, i, table, columns.id),
            group=None if groups is None or groups[i] is None else str(groups[i]),
            slices={name: str(values[i]) for name, values in slices.items() if values[i] is not None},
            weight=1.0 if weights is None else _weight(weights[i], table, i, columns),
            place=table.place(i),
            split=split,
            choices=answers[i].choices,
            references=answers[i].references,
            tests=answers[i].tests,
            relevance=answers[i].relevance,
            source=None if sources is None or sources[i] is None else str(sources[i]),
        )
        for i, split in enumerate(splits)
        if split != "ignore"
    ]


def _labels(table: Table, splits: Sequence[str], source: TaskSource) -> list[Answer]:
    expected = expected_of(table, splits, source)
    label = _LabelReader(table, source.data.columns, source.labels)
    return [
        Answer()
        if split == "ignore"
        else Answer(expected=label.read(expected[i], i, required=split != "unlabelled"))
        for i, split in enumerate(splits)
    ]


def examples_of(rows: Sequence[Row], *, out_of_scope: str | None) -> list[Example]:
    """Examples with ids; ids that the data does not bring are made of the content.

    Raises:
        InvalidInput: An id of the data stands for two rows.
    """
    seen: Counter[str] = Counter()
    first_place: dict[str, str] = {}
    examples = []
    for row in rows:
        if row.id is not None and row.id in first_place:
            raise InvalidInput(
                f"ids must each stand for one example, got {row.id!r} at {first_place[row.id]} and at "
                f"{row.place}."
            )
        name = row.id or _content_id(row, seen)
        first_place[name] = row.place
        slices = row.slices
        if out_of_scope is not None and row.expected is not None:
            slices = {**slices, "scope": "out" if row.expected == out_of_scope else "in"}
        examples.append(
            Example(
                id=name,
                input=row.input,
                expected=row.expected,
                group=row.group,
                slices=slices,
                weight=row.weight,
                source=row.source or row.place,
                choices=row.choices,
                references=row.references,
                tests=row.tests,
                relevance=row.relevance,
            )
        )
    return examples


def _content_id(row: Row, seen: Counter[str]) -> str:
    """Hash of text, choices, label and group; `-2`, `-3`, ... for each further copy."""
    content = "\0".join((row.input, row.expected or "", row.group or "", *row.choices))
    digest = hashlib.blake2b(content.encode(), digest_size=8).hexdigest()
    seen[digest] += 1
    return digest if seen[digest] == 1 else f"{digest}-{seen[digest]}"


class _LabelReader:
    """Turns the values of one label column into label names."""

    def __init__(self, table: Table, columns: Columns, labels: Labels) -> None:
        self._table = table
        self._column = columns.expected
        self._aliases = labels.aliases
        self._fixed = labels.names
        self._names = table.label_names.get(columns.expected) or labels.names
        self._known = None if labels.names is None else {*labels.names, labels.out_of_scope}

    def read(self, value: Any, row: int, *, required: bool) -> str | None:
        """One label; None where there is none and none is needed."""
        if isinstance(value, bool):
            value = str(value).lower()
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, str) and value.isdecimal() and value not in (self._names or (value,)):
            value = int(value)  # a CSV has no numbers
        if isinstance(value, int) and self._names is not None:
            value = self._named(value, row)
        missing = value is None or value == "" or (isinstance(value, float) and math.isnan(value))
        if missing:
            if required:
                raise InvalidInput(
                    f"{self._column} must be a label in every row of train, dev and test, got {value!r} at "
                    f"{self._table.place(row)}. Rows without answers belong in the split `unlabelled`."
                )
            return None
        if not isinstance(value, str | int):
            raise InvalidInput(
                f"{self._column} must be text or a whole number, got {value!r} at {self._table.place(row)}."
            )
        label = self._aliases.get(str(value), str(value))
        if self._known is not None and label not in self._known:
            raise UnknownName(
                f"{self._column} must be one of labels.names, got {label!r} at {self._table.place(row)}."
                f"{did_you_mean(label, self._fixed or ())} Add it to labels.names or to [labels.aliases]."
            )
        return label

    def _named(self, value: int, row: int) -> str | None:
        assert self._names is not None
        if value == -1:  # Hugging Face's mark of a hidden label
            return None
        if not 0 <= value < len(self._names):
            raise InvalidInput(
                f"{self._column} must be from 0 to {len(self._names) - 1}, a position among its label "
                "names, "
                f"got {value} at {self._table.place(row)}."
            )
        return self._names[value]


def _optional(table: Table, name: str | None, role: str) -> list[Any] | None:
    return None if name is None else column_of(table, name, role)


def _input(value: Any, table: Table, row: int, columns: Columns) -> str:
    if isinstance(value, str):
        return value
    if value is None and table.path.suffix.lower() in (".csv", ".tsv"):
        return ""  # CSV cannot tell an empty text from none; it is reported as empty
    raise InvalidInput(f"{columns.input} must be text in every row, got {value!r} at {table.place(row)}.")


def _name(values: Sequence[Any] | None, row: int, table: Table, column: str | None) -> str | None:
    if values is None:
        return None
    if values[row] is None or values[row] == "":
        raise InvalidInput(
            f"{column} must be an id in every row, got {values[row]!r} at {table.place(row)}. "
            "Leave data.columns.id out to have ids made of the content."
        )
    return str(values[row])


def _weight(value: Any, table: Table, row: int, columns: Columns) -> float:
    try:
        weight = float(value)
    except (TypeError, ValueError, OverflowError):
        weight = math.nan
    if isinstance(value, bool) or not (math.isfinite(weight) and weight > 0):
        raise InvalidInput(
            f"{columns.weight} must be a finite number above 0, got {value!r} at {table.place(row)}."
        )
    return weight
