"""Keeps what an observer remembers: a small head for the state, rows in files that only grow."""

from pathlib import Path
from typing import Any

import numpy as np

from jettison.monitor.kept_rows import KeptRows, broken_rows, drop_others
from jettison.monitor.observed import Observer
from jettison.monitor.waiting import CHUNK, ROW

WAITING = "waiting"
_HASH = np.dtype("<u8")
HASHES = 1 << 20
"""Of a file."""


def save_rows(observer: Observer, folder: Path, token: str, saved: dict[str, int]) -> dict[str, Any]:
    """Write the rows that are new since the last save.

    Args:
        observer: With what it took in since in `fresh`, which is emptied.
        folder: Of the experiment.
        token: Of log and plan: rows of another log never stand in a file of the same name.
        saved: Rows of each stem that are on disk; brought up to date.

    Returns:
        The head, for `restore`.
    """
    _save_hashes(observer, folder, token, saved, is_full=False)
    _save_waiting(observer, folder, token, saved, is_full=False)
    waiting = observer.waiting
    return {
        "seen": {name: saved[name] for name in observer.seen},
        "waiting": waiting.n,
        "first": min(waiting.chunks, default=waiting.n // CHUNK),
        "memory": observer.memory(),
    }


def save_full(observer: Observer, folder: Path, token: str, saved: dict[str, int]) -> None:
    """Write the files that are full by now, while another thread lets the observer take in more.

    Until a head tells of them nobody looks at them; a later `save_rows` finds them done.
    """
    _save_hashes(observer, folder, token, saved, is_full=True)
    _save_waiting(observer, folder, token, saved, is_full=True)


def _save_hashes(
    observer: Observer, folder: Path, token: str, saved: dict[str, int], *, is_full: bool
) -> None:
    for name, fresh in observer.fresh.items():
        kept = KeptRows(folder, f"{name}-{token}", _HASH, chunk=HASHES, n=saved.get(name, 0))
        n_wanted = sum(map(len, list(fresh)))
        if is_full:
            n_wanted = max(0, (kept.n + n_wanted) // kept.chunk * kept.chunk - kept.n)
        taken: list[np.ndarray] = []
        while sum(map(len, taken)) < n_wanted:
            taken.append(fresh.pop(0))  # others append meanwhile
        if taken:
            rows = np.concatenate(taken)
            try:
                kept.append(rows[:n_wanted])
                rows = rows[n_wanted:]
            finally:
                if len(rows):
                    fresh.insert(0, rows)
        saved[name] = kept.n


def _save_waiting(
    observer: Observer, folder: Path, token: str, saved: dict[str, int], *, is_full: bool
) -> None:
    waiting = observer.waiting
    kept = KeptRows(folder, f"{WAITING}-{token}", ROW, chunk=CHUNK, n=saved.get(WAITING, 0))
    for number in list(waiting.chunks):
        if is_full and (number + 1) * CHUNK > waiting.n:
            break
        rows = waiting.rows(number)
        start = max(0, kept.n - number * CHUNK)
        if start < len(rows):
            kept.n = max(kept.n, number * CHUNK)  # chunks forgotten before they were saved
            kept.append(rows[start:])
    saved[WAITING] = kept.n


def clean(folder: Path, token: str, head: dict[str, Any]) -> None:
    """Delete the files that a head just written does not need."""
    stems = [f"{name}-{token}" for name in (*head["seen"], WAITING)]
    drop_others(folder, stems, {f"{WAITING}-{token}": head["first"]})


def restore(observer: Observer, folder: Path, token: str, head: dict[str, Any]) -> None:
    """Let a new observer go on where a head was written. Hashes seen are read when they are first needed.

    Raises:
        BrokenArtifact: A file is missing or too short.
    """
    for name in observer.seen:
        kept = KeptRows(folder, f"{name}-{token}", _HASH, chunk=HASHES, n=head["seen"][name])
        last = -(-kept.n // kept.chunk) - 1
        if last >= 0 and not kept.path(last).exists():
            raise broken_rows(kept.path(last), kept.n - last * kept.chunk, "no file")
        observer.unread[name] = kept.read
    observer.remember(head["memory"])
    waiting, n = observer.waiting, int(head["waiting"])
    kept = KeptRows(folder, f"{WAITING}-{token}", ROW, chunk=CHUNK, n=n)
    waiting.n = n
    for number in range(head["first"], -(-n // CHUNK)):
        waiting.chunks[number] = _chunk(kept, number)


def _chunk(kept: KeptRows, number: int) -> np.ndarray:
    if (number + 1) * CHUNK <= kept.n:
        try:
            # Full: never written again, so it is looked into where it lies.
            return np.memmap(kept.path(number), ROW, mode="r", shape=(CHUNK,))
        except (OSError, ValueError) as error:
            raise broken_rows(kept.path(number), CHUNK, str(error)) from error
    found = np.empty(CHUNK, ROW)
    rows = kept.read_chunk(number)
    found[: len(rows)] = rows
    return found
