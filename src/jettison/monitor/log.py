"""Reads the traffic log as it grows: records and feedback in the order of their sequence numbers."""

import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from jettison.errors import BrokenArtifact, InvalidInput
from jettison.monitor.pieces import open_moment
from jettison.record import MAPS, Cost, Record
from jettison.traffic import LIVE_FILE, SEGMENTS, Feedback

MOST_ROWS = 50_000
"""Rows read at once: bounds memory while a long log is caught up with."""
T = TypeVar("T", Record, Feedback)


@dataclass(frozen=True, kw_only=True)
class Place:
    """How far a reader has come: the last sequence number of each table."""

    records: int = 0
    feedback: int = 0


@dataclass(frozen=True, kw_only=True)
class News:
    """What the log holds past a place, oldest first."""

    records: tuple[Record, ...]
    feedback: tuple[Feedback, ...]
    place: Place
    is_all: bool
    """False where more records wait; feedback is held back until they are read."""


class TrafficLog:
    """A traffic log's folder, read while somebody else writes it.

    Args:
        folder: Of the log, or the gateway's state folder that holds it.

    Raises:
        InvalidInput: There is no log.
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = find_log(Path(folder))

    def read(self, after: Place | None = None, *, most: int = MOST_ROWS) -> News:
        """Everything new.

        Feedback is looked up before records: one that is seen always finds its record, and each
        kind comes in one order however often is looked. That makes a statistic a function of the log.

        Args:
            after: Where the last reading ended; None begins with the log.
            most: Records at once.

        Raises:
            BrokenArtifact: A row or segment cannot be read.
        """
        after = after or Place()
        feedback = list(self._rows("feedback", after.feedback, Feedback, None))
        records = list(self._rows("records", after.records, Record, most))
        if len(records) >= most:
            feedback = []
        return News(
            records=tuple(record for _, record in records),
            feedback=tuple(one for _, one in feedback),
            place=Place(
                records=records[-1][0] if records else after.records,
                feedback=feedback[-1][0] if feedback else after.feedback,
            ),
            is_all=len(records) < most,
        )

    def segments(self, table: str = "records") -> list[Path]:
        """Parquet segments of one table, oldest first."""
        return sorted((self.folder / SEGMENTS).glob(f"{table}-*.parquet"))

    def last(self, table: str = "records") -> int:
        """Sequence number of a table's newest row; 0 where there is none."""
        live = self._live_last(table)
        rolled = [int(path.stem.rsplit("-", 1)[1]) for path in self.segments(table)[-1:]]
        return max([live, *rolled])

    def request_id(self, seq: int) -> str | None:
        """Whose record has a sequence number; None where none has, or no longer."""
        with open_moment(self.folder, "records", after=seq - 1, before=seq + 1) as moment:
            for rows in moment.live():
                return _decoded(rows[0][1], Record, f"records {seq}").example_id
            for piece in moment.pieces:
                for found, record in _segment_rows(piece.path, seq - 1, Record):
                    if found >= seq:
                        return record.example_id if found == seq else None
        return None

    def _live_last(self, table: str) -> int:
        path = self.folder / LIVE_FILE
        if not path.is_file():
            return 0
        try:
            connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=10)
            try:
                found = connection.execute(f"SELECT max(seq) FROM {table}").fetchone()[0]
            finally:
                connection.close()
        except sqlite3.Error as error:
            raise BrokenArtifact(f"{path} must be a traffic log's live file: {error}.") from error
        return int(found or 0)

    def _rows(self, table: str, after: int, kind: type[T], most: int | None) -> Iterator[tuple[int, T]]:
        # A row that is rolled while we read is still in the live file or already in a segment: live first.
        live = self._live_rows(table, after, most)
        first_live = live[0][0] if live else None
        n = 0
        for path in self.segments(table):
            last = int(path.stem.rsplit("-", 1)[1])
            if last <= after:
                continue
            for seq, row in _segment_rows(path, after, kind):
                if first_live is not None and seq >= first_live:
                    break
                yield seq, row
                after, n = seq, n + 1
                if most is not None and n >= most:
                    return
        for seq, body in live:
            if seq > after:
                yield seq, _decoded(body, kind, f"{self.folder / LIVE_FILE}, {table} {seq}")
                n += 1
                if most is not None and n >= most:
                    return

    def _live_rows(self, table: str, after: int, most: int | None) -> list[tuple[int, bytes]]:
        path = self.folder / LIVE_FILE
        if not path.is_file():
            return []
        try:
            connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=10)
            try:
                query = f"SELECT seq, body FROM {table} WHERE seq > ? ORDER BY seq LIMIT ?"
                return connection.execute(query, (after, -1 if most is None else most)).fetchall()
            finally:
                connection.close()
        except sqlite3.Error as error:
            raise BrokenArtifact(f"{path} must be a traffic log's live file: {error}.") from error


def find_log(folder: Path) -> Path:
    """The log's own folder: the one given, or one right inside it.

    Raises:
        InvalidInput: Neither holds a log.
    """
    inner: list[Path] = sorted(folder.iterdir()) if folder.is_dir() else []
    for place in (folder, *inner):
        if (place / LIVE_FILE).is_file() or (place / SEGMENTS).is_dir():
            return place
    raise InvalidInput(
        f"{folder} must hold a traffic log ({LIVE_FILE} or {SEGMENTS}/), got none. "
        "Name the gateway's state folder."
    )


def _segment_rows(path: Path, after: int, kind: type[T]) -> Iterator[tuple[int, T]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        for batch in pq.ParquetFile(path).iter_batches(batch_size=4096):
            for row in batch.to_pylist():
                seq = int(row.pop("seq"))
                if seq > after:
                    yield seq, _from_row(row, kind)
    except (pa.ArrowException, OSError, KeyError, msgspec.ValidationError) as error:
        raise BrokenArtifact(f"{path} must be a segment of a traffic log: {error}.") from error


def _from_row(row: dict[str, Any], kind: type[T]) -> T:
    if kind is Record:
        cost = {name: row.pop(f"cost.{name}", None) for name in Cost.__struct_fields__}
        for name in MAPS:
            row[name] = msgspec.json.decode(row[name]) if row.get(name) else {}
        row = {**row, "cost": cost}
    return msgspec.convert(row, kind)


def _decoded(body: bytes, kind: type[T], where: str) -> T:
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.DecodeError as error:
        raise BrokenArtifact(f"{where} must be a {kind.__name__} as JSON: {error}.") from error
