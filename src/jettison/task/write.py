"""Writes a task as an ordinary folder: `task.toml` and `examples.jsonl`, which `read_task` reads back."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import tomli_w

from jettison.task.types import SPLITS, Example, Task

DATA, TASK, SCHEMA = "examples.jsonl", "task.toml", "schema.json"


def write_task(
    folder: Path,
    task: Task,
    splits: Mapping[str, Sequence[Example]],
    *,
    name: str,
    required: Sequence[str],
    labels: Sequence[str],
    out_of_scope: str | None,
) -> None:
    """Write examples as a task that is otherwise like another one.

    Args:
        folder: Exists already; see `jettison.files.folder_atomic`.
        task: Whose kind, scorers, prompt and schema are kept.
        splits: Split → its examples.
        name: Of the new task.
        required: Slices that must hold by themselves.
        labels: What may be answered, for kind `classify`.
        out_of_scope: The label that means none of the others.
    """
    lines, columns = [], set[str]()
    for split in SPLITS:
        for example in splits.get(split, ()):
            columns |= set(example.slices)
            lines.append(_row(example, split))
    columns.discard("scope")  # made anew from the labels
    (folder / DATA).write_bytes(b"".join(msgspec.json.encode(line) + b"\n" for line in lines))
    if task.development.schema is not None:
        (folder / SCHEMA).write_bytes(msgspec.json.encode(task.development.schema))
    content = _content(task, lines, sorted(columns))
    content["name"] = name
    content["slices"] = {"required": list(required)}
    if task.kind == "classify":
        content["labels"] = {
            "names": list(labels),
            **({"out_of_scope": out_of_scope} if out_of_scope else {}),
        }
    (folder / TASK).write_text(tomli_w.dumps(content), encoding="utf-8")


def _row(example: Example, split: str) -> dict[str, Any]:
    row: dict[str, Any] = {
        **{k: v for k, v in example.slices.items() if k != "scope"},
        "id": example.id,
        "text": example.input,
        "split": split,
        "source": example.source,
    }
    if example.expected is not None:
        row["label"] = example.expected
    if example.group is not None:
        row["group"] = example.group
    if example.weight != 1.0:
        row["weight"] = example.weight
    for name in ("choices", "references", "relevance", "tests"):
        if value := getattr(example, name):
            row[name] = list(value)
    return row


def _content(task: Task, lines: Sequence[dict[str, Any]], columns: Sequence[str]) -> dict[str, Any]:
    present = {name for line in lines for name in line}
    roles = {
        name: name
        for name in ("group", "weight", "choices", "references", "relevance", "tests", "source")
        if name in present and not (name == "references" and task.kind not in ("generate", "extract"))
    }
    development = task.development
    content: dict[str, Any] = {
        "format": 1,
        "name": task.name,
        "kind": task.kind,
        "scorers": list(development.scorers),
        "data": {
            "path": DATA,
            "columns": {
                "input": "text",
                "expected": "label",
                "id": "id",
                "split": "split",
                "slices": list(columns),
                **roles,
            },
        },
    }
    if development.scorer_settings:
        content["scorer"] = development.scorer_settings
    if development.schema is not None:
        content["schema"] = SCHEMA
    if development.prompt is not None:
        content["prompt"] = _prompt(development.prompt)
    return content


def _prompt(prompt: Any) -> dict[str, Any]:
    """A resolved prompt as `[prompt]`, its shots written out."""
    found = {k: v for k, v in msgspec.to_builtins(prompt).items() if v is not None}
    if shots := found.get("shots"):
        found["shots"] = [
            {k: v for k, v in {**shot, "choices": list(shot.get("choices") or ())}.items() if v}
            for shot in shots
        ]
    return found
