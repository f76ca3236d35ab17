"""Writes small tasks to disk for the tests of reading them."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

Row = dict[str, Any]


def rows(
    n_per_label: int = 6, *, labels: Sequence[str] = ("buy", "sell"), split: str = "train"
) -> list[Row]:
    """Rows with texts that all differ, also between splits."""
    return [
        {"text": f"{split} says {label} number {i} of {hash_word(split, label, i)}", "label": label}
        for label in labels
        for i in range(n_per_label)
    ]


def hash_word(*parts: object) -> str:
    """A word that no other parts give, so that no two texts are near duplicates."""
    return hashlib.blake2b(repr(parts).encode(), digest_size=12).hexdigest()


def write_jsonl(path: Path, data: Sequence[Row]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in data))
    return path


def write_task(folder: Path, *, data: str | None = None, rest: str = "", **splits: Sequence[Row]) -> Path:
    """A `task.toml`, by default with JSONL files of train, dev and test beside it."""
    if data is None:
        for name in ("train", "dev", "test"):
            splits.setdefault(name, rows(split=name))
        for name, content in splits.items():
            write_jsonl(folder / f"{name}.jsonl", content)
        data = "".join(f'{name} = "{name}.jsonl"\n' for name in splits)
    path = folder / "task.toml"
    path.write_text(f'format = 1\nname = "orders"\n[data]\n{data}\n{rest}\n')
    return path
