"""Reads a traffic log by columns, in the order of its sequence numbers: segments first, then live rows."""

import contextlib
import queue
import threading
from collections.abc import Iterator
from typing import Any, NamedTuple, TypeVar

import msgspec

from jettison.errors import BrokenArtifact
from jettison.monitor.observed import FeedbackColumns
from jettison.monitor.pieces import Moment, Piece
from jettison.monitor.record_columns import TEXTS, RecordColumns
from jettison.record import Record
from jettison.traffic import Feedback

ROWS_AT_ONCE = 65_536
"""Of one file: bounds memory."""
ROWS_TOGETHER = 32_768
"""Rows of several small files worked on together: fewer steps, and still in the processor's caches."""
FEEDBACK_AT_ONCE = 1 << 20
"""Whatever waits is gone through for each batch of feedback."""
AHEAD = 8
"""Batches decoded before they are asked for."""
T = TypeVar("T")


class RecordBatch(NamedTuple):
    """Consecutive records."""

    last: int
    """Sequence number of the last."""
    columns: RecordColumns


class FeedbackBatch(NamedTuple):
    """Consecutive feedback."""

    last: int
    columns: FeedbackColumns


def record_batches(moment: Moment, names: tuple[str, ...]) -> Iterator[RecordBatch]:
    """Records of a moment with the columns asked for, oldest first.

    Raises:
        FileNotFoundError: A segment was dropped meanwhile.
        BrokenArtifact: A segment or row cannot be read.
    """
    yield from _ahead(_segment_records(moment, names))
    for rows in moment.live():
        yield RecordBatch(rows[-1][0], RecordColumns.of(_decoded(moment, rows, Record)))


def feedback_batches(moment: Moment) -> Iterator[FeedbackBatch]:
    """Feedback of a moment, oldest first, much at once; raises as `record_batches` does."""
    for last, table in _tables(moment, ("request_id", "time", "score", "label"), (), FEEDBACK_AT_ONCE):
        yield FeedbackBatch(last, FeedbackColumns.of(table))
    for rows in moment.live():
        said = _decoded(moment, rows, Feedback)
        yield FeedbackBatch(rows[-1][0], FeedbackColumns.of_said(said))


def _segment_records(moment: Moment, names: tuple[str, ...]) -> Iterator[RecordBatch]:
    for last, table in _tables(moment, names, TEXTS, ROWS_TOGETHER):
        columns = RecordColumns(table)
        for name in ("example_id", "key"):
            columns.hashes(name)  # in the thread that reads: a third of the work
        yield RecordBatch(last, columns)


def _tables(
    moment: Moment, names: tuple[str, ...], coded: tuple[str, ...], least: int
) -> Iterator[tuple[int, Any]]:
    """Rows of so many segments that there are `least`, and the sequence number of their last."""
    gathered, n = [], 0
    for place, piece in enumerate(moment.pieces, 1):
        for last, batch in _batches(piece, names, coded):
            gathered.append(batch)
            n += batch.num_rows
            if n >= least:
                yield last, _joined(gathered)
                gathered, n = [], 0
        if gathered and place == len(moment.pieces):
            yield last, _joined(gathered)


def _joined(batches: list[Any]) -> Any:
    """One table. Other writers give a column of nothing but nulls no type, or leave it out."""
    import pyarrow as pa

    if len(batches) == 1:
        return batches[0]
    parts = [pa.Table.from_batches([batch]) for batch in batches]
    return pa.concat_tables(parts, promote_options="permissive").combine_chunks()


def _batches(piece: Piece, names: tuple[str, ...], coded: tuple[str, ...]) -> Iterator[tuple[int, Any]]:
    """Rows of a segment that count, and the sequence number of the last."""
    import pyarrow as pa

    try:
        with _opened(piece, [name for name in coded if name in names]) as file:
            there = set(file.schema_arrow.names)
            # The name of a file tells its last number; read one by one, numbers take a tenth of the time.
            is_one = piece.is_whole and file.metadata.num_rows <= ROWS_AT_ONCE
            columns = [*(() if is_one else ("seq",)), *(name for name in names if name in there)]
            for batch in file.iter_batches(ROWS_AT_ONCE, columns=columns, use_threads=False):
                kept = batch if piece.is_whole else _cut(piece, batch)
                if kept.num_rows:
                    yield piece.last if is_one else kept.column("seq")[-1].as_py(), kept
    except FileNotFoundError:
        raise
    except (pa.ArrowException, OSError, KeyError) as error:
        raise BrokenArtifact(f"{piece.path} must be a segment of a traffic log: {error}.") from error


def _opened(piece: Piece, coded: list[str]) -> Any:
    import pyarrow.parquet as pq

    try:
        return pq.ParquetFile(piece.path, read_dictionary=coded)
    except KeyError:  # an older log has not all of them
        there = set(pq.read_schema(piece.path).names)
        return pq.ParquetFile(piece.path, read_dictionary=[name for name in coded if name in there])


def _cut(piece: Piece, batch: Any) -> Any:
    import pyarrow.compute as pc

    seq = batch.column("seq")
    keep = pc.greater(seq, -1 if piece.after is None else piece.after)
    if piece.before is not None:
        keep = pc.and_(keep, pc.less(seq, piece.before))
    return batch.filter(keep)


def _decoded(moment: Moment, rows: list[tuple[int, bytes]], kind: type[T]) -> list[T]:
    found = []
    for seq, body in rows:
        try:
            found.append(msgspec.json.decode(body, type=kind))
        except msgspec.DecodeError as error:
            raise BrokenArtifact(
                f"{moment.table} {seq} of {moment.folder} must be a {kind.__name__} as JSON: {error}."
            ) from error
    return found


class _Raised(NamedTuple):
    error: BaseException


def _ahead(batches: Iterator[RecordBatch]) -> Iterator[RecordBatch]:
    """The same, decoded by a thread of its own while the last ones are worked on."""
    first = next(batches, None)
    second = None if first is None else next(batches, None)
    if first is None:
        return
    yield first
    if second is None:
        return
    waiting: queue.Queue[RecordBatch | _Raised | None] = queue.Queue(AHEAD)
    is_over = threading.Event()

    def put(one: "RecordBatch | _Raised | None") -> None:
        while not is_over.is_set():
            with contextlib.suppress(queue.Full):
                waiting.put(one, timeout=0.1)
                return

    def read() -> None:
        try:
            for batch in batches:
                put(batch)
                if is_over.is_set():
                    return
            put(None)
        except BaseException as error:  # noqa: BLE001 - raised again by whoever reads
            put(_Raised(error))

    yield second
    thread = threading.Thread(target=read, name="log-columns", daemon=True)
    thread.start()
    try:
        while (got := waiting.get()) is not None:
            if isinstance(got, _Raised):
                raise got.error
            yield got
    finally:
        is_over.set()
        thread.join()
