"""Rolls the live part of a traffic log into Parquet segments, and drops those too old or too many.

`python -m jettison.serve.roll FOLDER KEEP_DAYS MAX_BYTES` reads the live file, writes segments, and prints
the last sequence number of each table as JSON. It deletes no row: the gateway's writer does, once it knows.
"""

import contextlib
import os
import sqlite3
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from jettison.files import file_atomic
from jettison.record import Record, records_table
from jettison.traffic import LIVE_FILE, SEGMENTS, Feedback

READ_AT_ONCE = 10_000
NICENESS = 10
"""A tenth of the processor where the gateway wants all of it: enough to keep up, too little to be felt."""


def roll(folder: Path) -> dict[str, int]:
    """Write what is live into segments.

    Returns:
        Last sequence number of `records` and of `feedback` that is in a segment.

    Raises:
        CannotWrite: The disk is full or the folder read-only.
    """
    db = sqlite3.connect(f"file:{folder / LIVE_FILE}?mode=ro", uri=True, timeout=10)
    try:
        return {table: _roll_table(db, folder, table) for table in ("records", "feedback")}
    finally:
        db.close()


def _roll_table(db: sqlite3.Connection, folder: Path, table: str) -> int:
    last = last_rolled(folder, table)
    while True:
        rows = db.execute(
            f"SELECT seq, body FROM {table} WHERE seq > ? ORDER BY seq LIMIT ?", (last, READ_AT_ONCE)
        ).fetchall()
        if not rows:
            return last
        first, last = rows[0][0], rows[-1][0]
        path = folder / SEGMENTS / f"{table}-{first:012d}-{last:012d}.parquet"
        _write_segment(path, table, rows)


def last_rolled(folder: Path, table: str) -> int:
    """Last sequence number of a table that is in a segment; 0 where none is."""
    names = [path.stem for path in (folder / SEGMENTS).glob(f"{table}-*.parquet")]
    return max((int(name.rsplit("-", 1)[1]) for name in names), default=0)


def _write_segment(path: Path, table: str, rows: Sequence[tuple[int, bytes]]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    kind: Any = Record if table == "records" else Feedback
    decoded = [msgspec.json.decode(body, type=kind) for _, body in rows]
    found = records_table(decoded) if table == "records" else _feedback_table(decoded)
    found = found.append_column("seq", pa.array([seq for seq, _ in rows], type=pa.int64()))
    footer = {"jettison.format": "1", "jettison.meta": "{}"}
    with file_atomic(path) as file:
        pq.write_table(found.replace_schema_metadata(footer), file, compression="zstd")


def _feedback_table(said: Sequence[Feedback]) -> Any:
    import pyarrow as pa

    kinds = {"time": pa.float64(), "score": pa.float64()}
    return pa.table(
        {
            name: pa.array([getattr(one, name) for one in said], type=kinds.get(name, pa.string()))
            for name in Feedback.__struct_fields__
        }
    )


def drop_old(folder: Path, *, keep_days: float, max_bytes: int, now: float | None = None) -> list[str]:
    """Delete segments past their age, then the oldest until the rest fits; their names."""
    moment = time.time() if now is None else now
    files = sorted((folder / SEGMENTS).glob("*.parquet"), key=lambda path: path.stat().st_mtime)
    sizes = {path: path.stat().st_size for path in files}
    total = sum(sizes.values())
    dropped = []
    # The last of each table stays: from its name the next roll knows where to go on.
    newest = {
        max((p for p in files if p.name.startswith(t)), default=None) for t in ("records", "feedback")
    }
    for path in files:
        too_old = moment - path.stat().st_mtime > keep_days * 86400
        if path in newest or not (too_old or total > max_bytes):
            continue
        path.unlink()
        total -= sizes[path]
        dropped.append(path.name)
    return dropped


def main(arguments: Sequence[str]) -> None:
    """Roll, drop, print."""
    with contextlib.suppress(OSError):
        os.nice(NICENESS)
    folder, keep_days, max_bytes = Path(arguments[0]), float(arguments[1]), int(arguments[2])
    last = roll(folder)
    drop_old(folder, keep_days=keep_days, max_bytes=max_bytes)
    sys.stdout.write(msgspec.json.encode(last).decode())


if __name__ == "__main__":
    main(sys.argv[1:])
