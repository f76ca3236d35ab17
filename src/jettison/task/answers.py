"""What is right, for every kind but `classify`: choices, references, grades; each fault with its place."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from jettison.errors import InvalidInput, UnknownName
from jettison.task.cells import list_of, object_of, text_of
from jettison.task.source import Columns, TaskSource, did_you_mean
from jettison.task.tables import Table


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What is right in one row, and among what."""

    expected: str | None = None
    choices: tuple[str, ...] = ()
    references: tuple[str, ...] = ()
    tests: tuple[str, ...] = ()
    relevance: tuple[float, ...] = ()


@dataclass(frozen=True, kw_only=True)
class _Options:
    """The choices of one row, and what the data calls them, where it does."""

    texts: tuple[str, ...]
    names: tuple[str, ...] = ()


def answers_of(table: Table, splits: Sequence[str], source: TaskSource) -> list[Answer]:
    """The answer of each row; rows of the split `ignore` get an empty one.

    Raises:
        UnknownName: A column is not there.
        InvalidInput: A value is missing, of the wrong kind, or names no choice.
    """
    if source.kind in ("generate", "extract", "embed"):
        return _texts(table, splits, source)
    options = _options(table, splits, source)
    if source.kind == "choose":
        found = _chosen(table, splits, source, options)
        return [
            Answer(choices=some.texts, expected=None if at is None else some.texts[at])
            for some, at in zip(options, found, strict=True)
        ]
    return _ranked(table, splits, source, options)


def column_of(table: Table, name: str, role: str) -> list[Any]:
    """Values of one column.

    Raises:
        UnknownName: The table has no such column.
    """
    if name not in table.columns:
        raise UnknownName(
            f"data.columns.{role} must be one of {list(table.columns)[:20]}, got {name!r} for {table.path}."
            f"{did_you_mean(name, table.columns)}"
        )
    return table.columns[name]


def expected_of(table: Table, splits: Sequence[str], source: TaskSource) -> list[Any]:
    """The column of what is expected; None in every row where no split needs it."""
    name = source.data.columns.expected
    if name not in table.columns and all(split in ("unlabelled", "ignore") for split in splits):
        return [None] * table.n_rows
    return column_of(table, name, "expected")


def _texts(table: Table, splits: Sequence[str], source: TaskSource) -> list[Answer]:
    """Free text, JSON objects or ids of passages, with references where a column has them."""
    columns = source.data.columns
    read = object_of if source.kind == "extract" else text_of
    more = None if columns.references is None else column_of(table, columns.references, "references")
    tests = None if columns.tests is None else column_of(table, columns.tests, "tests")
    if (more is not None or tests is not None) and columns.expected not in table.columns:
        expected: list[Any] = [None] * table.n_rows
    else:
        expected = expected_of(table, splits, source)
    answers = []
    for row, split in enumerate(splits):
        place, value = table.place(row), expected[row]
        if split == "ignore":
            answers.append(Answer())
            continue
        several = value if isinstance(value, list) else [] if _is_missing(value) else [value]
        right = [read(one, column=columns.expected, place=place) for one in several]
        if more is not None:
            listed = list_of(
                more[row], separator=source.data.separator, column=str(columns.references), place=place
            )
            right += [read(one, column=str(columns.references), place=place) for one in listed or ()]
        checks = () if tests is None else _tests_of(tests[row], columns, place)
        if not right and not checks and split != "unlabelled":
            raise InvalidInput(
                f"{columns.expected} must be the right answer in every row of train, dev and test, got "
                f"{value!r} at {place}. Rows without answers belong in the split `unlabelled`."
            )
        answers.append(
            Answer(expected=right[0] if right else None, references=tuple(right[1:]), tests=checks)
        )
    return answers


def _tests_of(value: Any, columns: Columns, place: str) -> tuple[str, ...]:
    """Unit tests of one row: a list of programs, or one."""
    listed = value if isinstance(value, list) else [] if _is_missing(value) else [value]
    return tuple(text_of(one, column=str(columns.tests), place=place) for one in listed)


def _options(table: Table, splits: Sequence[str], source: TaskSource) -> list[_Options]:
    """Choices of each row: of one column of lists, or of a column a choice."""
    named = source.data.columns.choices or []
    if not isinstance(named, str):
        values = [column_of(table, name, "choices") for name in named]
        rows: list[Any] = [list(row) for row in zip(*values, strict=True)]
        names = tuple(named)
    else:
        rows, names = column_of(table, named, "choices"), ()
    said = named if isinstance(named, str) else ", ".join(named)
    return [
        _Options(texts=())
        if split == "ignore"
        else _options_of(row, names, separator=source.data.separator, column=said, place=table.place(i))
        for i, (row, split) in enumerate(zip(rows, splits, strict=True))
    ]


def _options_of(
    value: Any, names: tuple[str, ...], *, separator: str | None, column: str, place: str
) -> _Options:
    if isinstance(value, dict) and isinstance(value.get("text"), list):  # as in ARC: texts and their names
        names, value = tuple(map(str, value.get("label") or ())), value["text"]
    if names:
        value = [one for one in value if not _is_missing(one)]
    listed = list_of(value, separator=separator, column=column, place=place) or []
    if len(listed) < 2:
        raise InvalidInput(f"{column} must be at least two choices, got {listed} at {place}.")
    texts = tuple(text_of(one, column=column, place=place) for one in listed)
    return _Options(texts=texts, names=names[: len(texts)])


Resolve = Callable[[Any, _Options], int | None]


def _by_text(value: Any, options: _Options) -> int | None:
    return options.texts.index(str(value)) if str(value) in options.texts else None


def _by_name(value: Any, options: _Options) -> int | None:
    return options.names.index(str(value)) if str(value) in options.names else None


def _by_letter(value: Any, options: _Options) -> int | None:
    plain = str(value).strip().strip("().: ").upper()
    at = ord(plain) - ord("A") if len(plain) == 1 else -1
    return at if 0 <= at < min(26, len(options.texts)) else None


def _by_index(value: Any, options: _Options) -> int | None:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, str) and value.strip().isdecimal():
        value = int(value)
    is_index = isinstance(value, int) and not isinstance(value, bool)
    return value if is_index and 0 <= value < len(options.texts) else None


_WAYS: dict[str, Resolve] = {
    "its text": _by_text,
    "its name": _by_name,
    "its letter": _by_letter,
    "its position from 0": _by_index,
}


def _chosen(
    table: Table, splits: Sequence[str], source: TaskSource, options: Sequence[_Options]
) -> list[int | None]:
    """Position of the right choice in each row; the whole column is read in one way."""
    column = source.data.columns.expected
    values = expected_of(table, splits, source)
    needed = [i for i, value in enumerate(values) if splits[i] != "ignore" and not _is_missing(value)]
    for i, split in enumerate(splits):
        if split not in ("unlabelled", "ignore") and _is_missing(values[i]):
            raise InvalidInput(
                f"{column} must be a choice in every row of train, dev and test, got {values[i]!r} at "
                f"{table.place(i)}. Rows without answers belong in the split `unlabelled`."
            )
    resolved = {way: [find(values[i], options[i]) for i in needed] for way, find in _WAYS.items()}
    way = max(resolved, key=lambda name: sum(at is not None for at in resolved[name]))
    if None in resolved[way]:
        row = needed[resolved[way].index(None)]
        texts = options[row].texts
        raise InvalidInput(
            f"{column} must be one of the choices by its text, letter or position, the same way in every "
            f"row, got {values[row]!r} at {table.place(row)} among "
            f"{list(texts)[:8]} (most rows say {way}).{did_you_mean(str(values[row]), texts)}"
        )
    found: list[int | None] = [None] * len(values)
    for i, at in zip(needed, resolved[way], strict=True):
        found[i] = at
    return found


def _ranked(
    table: Table, splits: Sequence[str], source: TaskSource, options: Sequence[_Options]
) -> list[Answer]:
    """Grades of a column, or 1 for the choice expected and 0 for the others; expected is the best."""
    columns = source.data.columns
    if columns.relevance is None:
        found = _chosen(table, splits, source, options)
        return [
            Answer(choices=some.texts)
            if at is None
            else Answer(
                choices=some.texts,
                expected=some.texts[at],
                relevance=tuple(float(i == at) for i in range(len(some.texts))),
            )
            for some, at in zip(options, found, strict=True)
        ]
    values = column_of(table, columns.relevance, "relevance")
    answers = []
    for row, (some, split) in enumerate(zip(options, splits, strict=True)):
        answer = Answer(choices=some.texts)
        if split != "ignore" and not (split == "unlabelled" and _is_missing(values[row])):
            grades = _grades(values[row], len(some.texts), source, table.place(row))
            best = some.texts[grades.index(max(grades))]
            answer = replace(answer, relevance=grades, expected=best)
        answers.append(answer)
    return answers


def _grades(value: Any, n_choices: int, source: TaskSource, place: str) -> tuple[float, ...]:
    column = str(source.data.columns.relevance)
    listed = list_of(value, separator=source.data.separator, column=column, place=place) or []
    if len(listed) != n_choices:
        raise InvalidInput(
            f"{column} must be one grade for each of the {n_choices} choices, got {len(listed)} at {place}."
        )
    try:
        grades = tuple(float(one) for one in listed)
    except (TypeError, ValueError):
        grades = (math.nan,)
    if not all(math.isfinite(grade) and grade >= 0 for grade in grades):
        raise InvalidInput(f"{column} must be finite grades of 0 or more, got {listed} at {place}.")
    if not max(grades) > 0:
        raise InvalidInput(
            f"{column} must have a grade above 0, got {listed} at {place}. Leave out a query that "
            "nothing answers."
        )
    return grades


def _is_missing(value: Any) -> bool:
    return value is None or value == "" or (isinstance(value, float) and math.isnan(value))
