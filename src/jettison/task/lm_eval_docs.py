"""Documents of an lm-eval task and what its templates make of them.

A template that is the name of a field is that field; any other is Jinja, rendered in a sandbox.
"""

import ast
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
from jinja2.sandbox import ImmutableSandboxedEnvironment

from jettison.errors import InvalidInput
from jettison.task.examples import Row
from jettison.task.folder import KNOWN_SPLITS, read_folder
from jettison.task.lm_eval_config import LmEvalTask
from jettison.task.tables import SUFFIXES, Table, read_table

_BUILDERS = ("json", "csv", "parquet", "arrow")
MAX_CHARACTERS = 1_000_000
"""Longest text that a template may make."""


@dataclass(frozen=True, kw_only=True)
class Doc:
    """One row of the data, as the templates see it."""

    values: Mapping[str, Any]
    place: str


class _Sandbox(ImmutableSandboxedEnvironment):
    """Templates see the document alone, and make no text of any length out of nothing."""

    intercepted_binops = frozenset(["*", "**"])

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        texts = [one for one in (left, right) if isinstance(one, str | list | tuple)]
        numbers = [abs(one) for one in (left, right) if isinstance(one, int | float)]
        most = max((len(one) for one in texts), default=1) * max(numbers, default=1)
        if most > MAX_CHARACTERS or (operator == "**" and max(numbers, default=0) > 1000):
            raise jinja2.TemplateError(f"{operator} would make too much")
        return super().call_binop(context, operator, left, right)


_JINJA = _Sandbox(undefined=jinja2.StrictUndefined, keep_trailing_newline=True)
_JINJA.filters["regex_replace"] = lambda string, pattern, repl, count=0: re.sub(
    pattern, repl, string, count=count
)


def docs_of(config: LmEvalTask, folder: Path, split: str) -> list[Doc]:
    """Documents of one split.

    Raises:
        InvalidInput: The data is not on this disk, or has no such split.
    """
    found = []
    for table in _tables(config, folder, split):
        names = list(table.columns)
        for i, values in enumerate(zip(*(table.columns[name] for name in names), strict=True)):
            found.append(Doc(values=dict(zip(names, values, strict=True)), place=table.place(i)))
    return found


def _tables(config: LmEvalTask, folder: Path, split: str) -> list[Table]:
    if config.dataset_path in _BUILDERS:
        return [read_table(path) for path in _files(config, folder, split)]
    place = _existing(folder, config.dataset_path)
    if place is None or not place.is_dir():
        raise InvalidInput(
            f"`dataset_path` of task {config.task!r} must be one of {list(_BUILDERS)} with data_files, or "
            f"a folder here, got {config.dataset_path!r}. Nothing is downloaded: save the data first."
        )
    tables = read_folder(place, config=config.dataset_name)
    wanted = KNOWN_SPLITS.get(split, split)
    found = [one.table for one in tables if one.split in (split,)] or [
        one.table for one in tables if one.split is not None and KNOWN_SPLITS.get(one.split) == wanted
    ]
    if not found:
        raise InvalidInput(
            f"a split of task {config.task!r} must be one of {sorted({str(one.split) for one in tables})}, "
            f"got {split!r}."
        )
    return found


def _files(config: LmEvalTask, folder: Path, split: str) -> list[Path]:
    more = sorted(set(config.dataset_kwargs) - {"data_files", "trust_remote_code"})
    if more:
        raise InvalidInput(
            f"`dataset_kwargs` of task {config.task!r} must have data_files alone, got {more[0]!r}."
        )
    files = config.dataset_kwargs.get("data_files")
    if not files:
        raise InvalidInput(f"`dataset_kwargs` of task {config.task!r} must have data_files, got none.")
    by_split = files if isinstance(files, dict) else {"train": files}
    if split not in by_split:
        raise InvalidInput(
            f"a split of task {config.task!r} must be one of {list(by_split)} of data_files, got {split!r}."
        )
    listed = by_split[split] if isinstance(by_split[split], list) else [by_split[split]]
    found = []
    for name in listed:
        path = _existing(folder, str(name))
        if path is None or path.suffix.lower() not in SUFFIXES:
            raise InvalidInput(
                f"`data_files` of task {config.task!r} must be files here ({', '.join(SUFFIXES)}), "
                f"got {name!r}."
            )
        found.append(path)
    return found


def _existing(folder: Path, name: str) -> Path | None:
    """Beside the task file or, as lm-eval has it, where the command runs."""
    return next((path for path in (folder / name, Path(name)) if path.exists()), None)


def rendered(template: str, doc: Doc, key: str) -> str:
    """Jinja over one document; `key` names the template in messages.

    Raises:
        InvalidInput: It does not render, or makes too long a text.
    """
    try:
        text = _JINJA.from_string(template).render(**doc.values)
    except (jinja2.TemplateError, TypeError, ValueError, re.error, OverflowError) as error:
        raise InvalidInput(
            f"`{key}` must render on every document, got {type(error).__name__}: "
            f"{' '.join(str(error).split())[:160]} at {doc.place}."
        ) from error
    if len(text) > MAX_CHARACTERS:
        raise InvalidInput(
            f"`{key}` must make at most {MAX_CHARACTERS} characters, got {len(text)} at {doc.place}."
        )
    return text


def template_of_nothing(template: str, key: str) -> str:
    """A template that is the same for every document.

    Raises:
        InvalidInput: It reads a field.
    """
    try:
        return rendered(template, Doc(values={}, place="no document"), key)
    except InvalidInput as error:
        raise InvalidInput(f"`{key}` must be the same for every document: {error}") from error


def row_of(config: LmEvalTask, doc: Doc, *, split: str) -> Row:
    """One document as lm-eval would ask it.

    Raises:
        InvalidInput: Its text, choices or target are of no kind that is read here.
    """
    text = _field(config.doc_to_text, doc, "doc_to_text")
    if not isinstance(text, str) or (text.isdigit() and config.doc_to_choice is not None):
        raise InvalidInput(
            f"`doc_to_text` must give text, got {text!r} at {doc.place}. Tasks whose choices go into the "
            "context are not read."
        )
    choices = _choices(config, doc)
    target = _target(config, doc)
    if config.output_type == "multiple_choice":
        right = [_choice(one, choices, doc) for one in (target if isinstance(target, list) else [target])]
    else:
        listed = target if isinstance(target, list) else [target]
        right = [choices[one] if choices and isinstance(one, int) else str(one) for one in listed]
    if not right:
        raise InvalidInput(f"`doc_to_target` must give an answer, got none at {doc.place}.")
    name = doc.values.get("id")
    return Row(
        input=text,
        expected=right[0],
        id=name if isinstance(name, str) and name else None,
        group=None,
        slices={c: str(doc.values[c]) for c in config.slices if doc.values.get(c) is not None},
        weight=1.0,
        place=doc.place,
        split=split,
        choices=choices if config.output_type == "multiple_choice" else (),
        references=tuple(right[1:]),
    )


def _field(template: str, doc: Doc, key: str) -> Any:
    return doc.values[template] if template in doc.values else rendered(template, doc, key)


def _choices(config: LmEvalTask, doc: Doc) -> tuple[str, ...]:
    given = config.doc_to_choice
    if given is None:
        return ()
    if isinstance(given, dict):
        return tuple(given.values())
    found = given if isinstance(given, list) else _field(given, doc, "doc_to_choice")
    if isinstance(found, str):
        found = _literal(found)
    if (
        not isinstance(found, list | tuple)
        or len(found) < 2
        or not all(isinstance(c, str) and c for c in found)
    ):
        raise InvalidInput(
            f"`doc_to_choice` must give a list of two texts or more, got {str(found)[:80]!r} "
            f"at {doc.place}."
        )
    return tuple(found)


def _target(config: LmEvalTask, doc: Doc) -> Any:
    """As lm-eval reads it: digits are a position among choices, brackets a list."""
    if isinstance(config.doc_to_target, int):
        return config.doc_to_target
    if config.doc_to_target in doc.values:
        return doc.values[config.doc_to_target]
    text = rendered(config.doc_to_target, doc, "doc_to_target")
    if text.isdigit() and config.doc_to_choice is not None:
        return int(text)
    if len(text) >= 2 and text[0] == "[" and text[-1] == "]":
        found = _literal(text)
        return text if found is None else found
    return text


def _choice(target: Any, choices: tuple[str, ...], doc: Doc) -> str:
    if isinstance(target, int) and not isinstance(target, bool) and 0 <= target < len(choices):
        return choices[target]
    if isinstance(target, str) and target in choices:
        return target
    raise InvalidInput(
        f"`doc_to_target` must be a position or the text of one of the {len(choices)} choices, got "
        f"{target!r} at {doc.place}."
    )


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None
