"""Keeps what a split's observer remembers: a small head for the state, rows in files that only grow."""

from pathlib import Path
from typing import Any

import numpy as np

from jettison.monitor.kept_rows import KeptRows, broken_rows, drop_others
from jettison.monitor.observe_split import SplitObserver
from jettison.monitor.plan import ExperimentPlan
from jettison.monitor.waiting import CHUNK, ROW

WAITING = "waiting"
_HASH = np.dtype("<u8")


def save_rows(observer: SplitObserver, folder: Path, token: str, saved: dict[str, int]) -> dict[str, Any]:
    """Write the rows that are new since the last save.

    Args:
        observer: With what it took in since in `fresh`, which is emptied.
        folder: Of the experiment.
        token: Of log and plan: rows of another log never stand in a file of the same name.
        saved: Rows of each stem that are on disk; brought up to date.

    Returns:
        The head, for `restore`.
    """
    for name, fresh in observer.fresh.items():
        kept = KeptRows(folder, f"{name}-{token}", _HASH, n=saved.get(name, 0))
        if fresh:
            kept.append(np.concatenate(fresh))
            fresh.clear()
        saved[name] = kept.n
    waiting = observer.waiting
    kept = KeptRows(folder, f"{WAITING}-{token}", ROW, chunk=CHUNK, n=saved.get(WAITING, 0))
    for number in list(waiting.chunks):
        rows = waiting.rows(number)
        start = max(0, kept.n - number * CHUNK)
        if start < len(rows):
            kept.n = max(kept.n, number * CHUNK)  # chunks forgotten before they were saved
            kept.append(rows[start:])
    saved[WAITING] = kept.n
    return {
        "seen": {name: saved[name] for name in observer.seen},
        "waiting": waiting.n,
        "first": min(waiting.chunks, default=waiting.n // CHUNK),
        "draws": observer.draws,
    }


def clean(folder: Path, token: str, head: dict[str, Any]) -> None:
    """Delete the files that a head just written does not need."""
    stems = [f"{name}-{token}" for name in (*head["seen"], WAITING)]
    drop_others(folder, stems, {f"{WAITING}-{token}": head["first"]})


def restore(plan: ExperimentPlan, folder: Path, token: str, head: dict[str, Any]) -> SplitObserver:
    """Go on where a head was written. Hashes seen are read when they are first needed.

    Raises:
        BrokenArtifact: A file is missing or too short.
    """
    observer = SplitObserver(plan)
    for name in observer.seen:
        kept = KeptRows(folder, f"{name}-{token}", _HASH, n=head["seen"][name])
        last = -(-kept.n // kept.chunk) - 1
        if last >= 0 and not kept.path(last).exists():
            raise broken_rows(kept.path(last), kept.n - last * kept.chunk, "no file")
        observer.unread[name] = kept.read
    for is_treatment, share in head["draws"]:
        observer.add_draw(bool(is_treatment), float(share))
    waiting, n = observer.waiting, int(head["waiting"])
    kept = KeptRows(folder, f"{WAITING}-{token}", ROW, chunk=CHUNK, n=n)
    waiting.n = n
    for number in range(head["first"], -(-n // CHUNK)):
        waiting.chunks[number] = _chunk(kept, number)
    return observer


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
