"""Where the rows of a traffic log lie at one moment: each in one piece, whatever is rolled meanwhile."""

import re
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jettison.errors import BrokenArtifact
from jettison.traffic import LIVE_FILE, SEGMENTS

ROWS_AT_ONCE = 20_000
"""Of the live file: bounds memory however long nothing was rolled."""
LAST_SEQ = 2**63 - 1
"""The largest that SQLite can give."""
_NAME = re.compile(r"(?P<table>\w+)-(?P<first>\d+)-(?P<last>\d+)")


@dataclass(frozen=True, kw_only=True)
class Piece:
    """A segment, or a part of one."""

    path: Path
    last: int
    """Sequence number of the file's last row."""
    after: int | None = None
    """Only rows with larger sequence numbers; None: from its first row."""
    before: int | None = None
    """Only rows with smaller ones; None: to its last row."""

    @property
    def is_whole(self) -> bool:
        """Whether every row of the file counts."""
        return self.after is None and self.before is None


class Moment:
    """One table of a log as it is when it is opened; `open_moment` makes it."""

    def __init__(
        self, folder: Path, table: str, connection: sqlite3.Connection | None, after: int, before: int
    ) -> None:
        self.folder, self.table, self._connection = folder, table, connection
        self._limits = (after, before)
        # The live file first: a row rolled since is seen there, and its segment is cut before it.
        self.first_live = self._asked("SELECT min(seq) FROM {} WHERE seq > ? AND seq < ?")
        self.pieces = pieces_of(folder, table, after=after, before=self.first_live or before)

    def live(self) -> Iterator[list[tuple[int, bytes]]]:
        """Rows of the live file, oldest first, in batches: number and JSON body."""
        if self._connection is None:
            return
        with _said(self.folder):
            rows = self._connection.execute(
                f"SELECT seq, body FROM {self.table} WHERE seq > ? AND seq < ? ORDER BY seq", self._limits
            )
            while batch := rows.fetchmany(ROWS_AT_ONCE):
                yield batch

    def _asked(self, query: str) -> int | None:
        if self._connection is None:
            return None
        with _said(self.folder):
            found = self._connection.execute(query.format(self.table), self._limits).fetchone()[0]
        return None if found is None else int(found)


@contextmanager
def open_moment(folder: Path, table: str, *, after: int = 0, before: int = LAST_SEQ) -> Iterator[Moment]:
    """The rows of one table between two sequence numbers, as they are now.

    Args:
        folder: The log's own.
        table: `records` or `feedback`.
        after: Sequence number of the last row already known.
        before: Of the first row not asked for.

    Raises:
        BrokenArtifact: The live file cannot be read.
    """
    path = folder / LIVE_FILE
    if not path.is_file():
        yield Moment(folder, table, None, after, before)
        return
    with _said(folder):
        connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=10, isolation_level=None)
    try:
        with _said(folder):
            connection.execute("BEGIN")  # every query of this connection sees one state of the file
        yield Moment(folder, table, connection, after, before)
    finally:
        connection.close()


def pieces_of(folder: Path, table: str, *, after: int = 0, before: int = LAST_SEQ) -> tuple[Piece, ...]:
    """Segments, or parts of them, that together hold each row once, oldest first."""
    found, known = [], after
    for first, last, path in sorted(_named(folder, table)):
        if last <= known or first >= before:
            continue
        found.append(
            Piece(
                path=path,
                last=last,
                after=known if first <= known else None,
                before=before if last >= before else None,
            )
        )
        known = last
    return tuple(found)


def _named(folder: Path, table: str) -> Iterator[tuple[int, int, Path]]:
    for path in (folder / SEGMENTS).glob(f"{table}-*.parquet"):
        match = _NAME.fullmatch(path.stem)
        if match is not None and match["table"] == table:
            yield int(match["first"]), int(match["last"]), path


@contextmanager
def _said(folder: Path) -> Iterator[Any]:
    try:
        yield
    except sqlite3.Error as error:
        raise BrokenArtifact(f"{folder / LIVE_FILE} must be a traffic log's live file: {error}.") from error
