"""`task.toml` in, a `Task` out: its splits apart, its faults refused, its oddities listed."""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from jettison.errors import InvalidInput, UnknownName
from jettison.files import read_json, value_sha256
from jettison.task.apportion import with_made_splits, without_leaked
from jettison.task.corpus import check_passages, read_corpus
from jettison.task.examples import Row, examples_of, rows_of
from jettison.task.folder import SplitTable, known_split, read_folder
from jettison.task.inspect import check_splits, inspect
from jettison.task.kinds import scorers_of
from jettison.task.prompt import Prompt
from jettison.task.prompting import resolve_prompt
from jettison.task.source import Paths, TaskSource, did_you_mean, read_task_source
from jettison.task.tables import Table, read_table
from jettison.task.types import SPLITS, Development, Example, Finding, Passage, Task, TaskKind
from jettison.task.weights import check_weights


def read_task(path: Path | str, *, needs_test: bool = True) -> Task:
    """Read a `task.toml`, or a task file of lm-eval (`.yaml`), and the data it names.

    The test examples are not kept: the task holds their number, counts and digest,
    and `Task.read_test` reads them again.

    Args:
        path: Of the file.
        needs_test: Refuse a task without test examples, which no decision can rest on. What reads dev or
            traffic alone does without (a file of lm-eval always names them).

    Raises:
        InvalidInput: The file or the data breaks a rule; the message says where and the way out.
        UnsafeArtifact: A data file could run code when opened.
    """
    file = Path(path)
    if file.suffix.lower() in (".yaml", ".yml"):
        from jettison.task.lm_eval import read_lm_eval

        return read_lm_eval(file)
    return build_task(read_task_source(file), file.absolute().parent, needs_test=needs_test)


def build_task(source: TaskSource, folder: Path, *, needs_test: bool = True) -> Task:
    """Read the data that a checked `task.toml` names; its relative paths start at `folder`.

    Raises:
        InvalidInput: The data breaks a rule.
    """
    found = _read_examples(source, folder, needs_test)
    prompt = None
    if source.prompt is not None:
        prompt = resolve_prompt(
            source.prompt,
            source.kind,
            labels=found.labels,
            train=found.splits["train"],
            held_out=[*found.splits["dev"], *found.splits["test"]],
        )
    return task_of(
        found,
        name=source.name,
        kind=source.kind,
        folder=folder,
        out_of_scope=source.labels.out_of_scope,
        prompt=prompt,
        scorers=scorers_of(source),
        schema=_schema(source, folder),
        scorer_settings=source.scorer,
        corpus=() if source.data.corpus is None else read_corpus(folder / source.data.corpus),
        required=source.slices.required,
        read_again=partial(_read_examples, source, folder, needs_test),
    )


def task_of(
    found: "Found",
    *,
    name: str,
    kind: TaskKind,
    folder: Path,
    prompt: Prompt | None,
    scorers: tuple[str, ...],
    read_again: Callable[[], "Found"],
    out_of_scope: str | None = None,
    schema: dict[str, Any] | None = None,
    scorer_settings: dict[str, dict[str, Any]] | None = None,
    corpus: tuple[Passage, ...] = (),
    required: Sequence[str] = ("all",),
) -> Task:
    """A task of examples that have been read; its test examples are let go and read again when asked for.

    Raises:
        UnknownName: A required slice has no test example, or an example names a passage that is not there.
    """
    if kind == "embed":
        check_passages([e for split in found.splits.values() for e in split], corpus)
    test = found.splits["test"]
    digest = examples_digest(test)
    return Task(
        development=Development(
            name=name,
            kind=kind,
            labels=found.labels,
            out_of_scope=out_of_scope,
            train=tuple(found.splits["train"]),
            dev=tuple(found.splits["dev"]),
            unlabelled=tuple(found.splits["unlabelled"]),
            prompt=prompt,
            scorers=scorers,
            schema=schema,
            scorer_settings=scorer_settings or {},
            corpus=corpus,
        ),
        required_slices=_required_slices(required, test) if test else (),
        findings=(*inspect(found.splits, out_of_scope=out_of_scope, kind=kind), *found.notes),
        folder=folder,
        test_digest=digest,
        n_test=len(test),
        slice_counts=slice_counts(test),
        _load_test=partial(_read_test_again, read_again, folder, digest),
    )


def _schema(source: TaskSource, folder: Path) -> dict[str, Any] | None:
    if source.schema is None:
        return None
    schema = read_json(folder / source.schema, dict[str, Any])
    if schema.get("type", "object") != "object":
        raise InvalidInput(
            f"{folder / source.schema} must be the JSON Schema of an object, got type {schema['type']!r}."
        )
    return schema


def examples_digest(examples: Iterable[Example]) -> str:
    """Digest of what the examples say, whatever their order and the file they came from."""
    return value_sha256(sorted((_said(e) for e in examples), key=lambda said: str(said[0])))


def _said(e: Example) -> list[Any]:
    more = [one for one in (e.choices, e.references, e.relevance) if one]
    more += [("tests", *e.tests)] if e.tests else []
    return [e.id, e.input, e.expected, e.group, e.slices, e.weight, *more]


def slice_counts(examples: Iterable[Example]) -> dict[str, int]:
    """Examples of `all` and of each `column=value`."""
    counts: Counter[str] = Counter()
    for example in examples:
        counts["all"] += 1
        counts.update(f"{column}={value}" for column, value in example.slices.items())
    return dict(counts)


@dataclass(frozen=True, kw_only=True)
class Found:
    """Examples by split, the labels, and what was noted on the way."""

    splits: dict[str, list[Example]]
    labels: tuple[str, ...]
    notes: tuple[Finding, ...]


def _read_test_again(read: Callable[[], Found], folder: Path, digest: str) -> tuple[Example, ...]:
    test = tuple(read().splits["test"])
    if examples_digest(test) != digest:
        raise InvalidInput(
            f"the test split must stay as it was when the task was read (digest {digest[:12]}…), "
            f"got {examples_digest(test)[:12]}…: a data file in {folder} has changed. Read the task again."
        )
    return test


def _read_examples(source: TaskSource, folder: Path, needs_test: bool) -> Found:
    rows = [
        row
        for split, table in _tables(source, folder)
        for row in rows_of(table, _splits_of(table, split, source), source)
    ]
    return found_of(rows, source, folder, needs_test=needs_test)


def found_of(rows: list[Row], source: TaskSource, folder: Path, *, needs_test: bool = True) -> Found:
    """Rows into examples: missing splits made, what no decision could rest on refused.

    Raises:
        InvalidInput: The splits or the labels break a rule.
    """
    rows, notes = with_made_splits(rows, source)
    if source.data.drop_leaked:
        rows, dropped = without_leaked(rows)
        notes += dropped
    check_splits(rows, out_of_scope=source.labels.out_of_scope, kind=source.kind, needs_test=needs_test)
    check_weights([row.weight for row in rows], [row.place for row in rows])
    examples = examples_of(rows, out_of_scope=source.labels.out_of_scope)
    splits: dict[str, list[Example]] = {name: [] for name in SPLITS}
    for row, example in zip(rows, examples, strict=True):
        splits[row.split].append(example)
    labels = _labels(rows, source) if source.kind == "classify" else ()
    return Found(splits=splits, labels=labels, notes=notes)


def _tables(source: TaskSource, folder: Path) -> list[tuple[str | None, Table]]:
    """Each table with the split that it is wholly of, in the data's words; None is not said."""
    data = source.data
    named: list[tuple[str | None, Table]] = [
        (split, read_table(folder / name)) for split in SPLITS for name in _listed(getattr(data, split))
    ]
    if data.path is None:
        return named
    path = folder / data.path
    found = (
        read_folder(path, config=data.config)
        if path.is_dir()
        else [SplitTable(split=None, table=read_table(path))]
    )
    return [*((one.split, one.table) for one in found), *named]


def _listed(paths: Paths | None) -> list[str]:
    return [] if paths is None else [paths] if isinstance(paths, str) else paths


def _splits_of(table: Table, split: str | None, source: TaskSource) -> list[str]:
    """Split of each row in our words; `any` where the data says nothing."""
    column = source.data.columns.split
    if split is not None:
        return [_our_split(split, source, str(table.path))] * table.n_rows
    if column is None:
        return ["any"] * table.n_rows
    if column not in table.columns:
        raise UnknownName(
            f"data.columns.split must be one of {list(table.columns)[:20]}, got {column!r} for "
            f"{table.path}."
            f"{did_you_mean(column, table.columns)}"
        )
    values = [value if value is None else str(value) for value in table.columns[column]]
    first_row = {value: row for row, value in reversed(list(enumerate(values)))}
    ours = {value: _our_split(value, source, table.place(row)) for value, row in first_row.items()}
    return [ours[value] for value in values]


def _our_split(name: str | None, source: TaskSource, place: str) -> str:
    if name in source.data.splits:
        return source.data.splits[name]
    if name is not None and (ours := known_split(name)) is not None:
        return ours
    key = name if name is not None and re.fullmatch(r"[\w-]+", name, re.ASCII) else f'"{name or ""}"'
    way_out = "Fill it in." if name is None else f'Add `{key} = "test"`, or `{key} = "ignore"`.'
    raise InvalidInput(
        f"a split must be one of {list(SPLITS)} or be mapped to one under [data.splits], got {name!r} "
        f"at {place}. "
        f"{way_out}"
    )


def _labels(rows: Sequence[Row], source: TaskSource) -> tuple[str, ...]:
    """The fixed labels, or those found, sorted; the out-of-scope label is one of them."""
    found = {row.expected for row in rows if row.expected is not None}
    out_of_scope = source.labels.out_of_scope
    known = set(source.labels.names or found)
    if out_of_scope is not None and out_of_scope not in known:
        raise UnknownName(
            f"labels.out_of_scope must be one of the {len(known)} labels, got {out_of_scope!r}."
            f"{did_you_mean(out_of_scope, known)}"
        )
    for written, meant in source.labels.aliases.items():
        if meant not in known:
            raise UnknownName(
                f"labels.aliases must point to labels of the data, got {meant!r} for {written!r}."
                f"{did_you_mean(meant, known)}"
            )
    if len(found) < 2 and not (source.labels.names and all(row.split == "unlabelled" for row in rows)):
        raise InvalidInput(f"the data must have at least two labels, got {sorted(found)}.")
    return tuple(source.labels.names or sorted(found))


def _required_slices(required: Sequence[str], test: Sequence[Example]) -> tuple[str, ...]:
    """`column=*` spelled out; each slice must have test examples."""
    counts = slice_counts(test)
    names: list[str] = []
    for one in required:
        column = one.removesuffix("=*")
        matches = (
            [name for name in sorted(counts) if name.startswith(f"{column}=")] if one != column else [one]
        )
        if not matches or matches[0] not in counts:
            raise UnknownName(
                f"slices.required must name slices of the test split, got {one!r}."
                f"{did_you_mean(one, counts)} List the column under data.columns.slices."
            )
        names += [name for name in matches if name not in names]
    return tuple(names)
