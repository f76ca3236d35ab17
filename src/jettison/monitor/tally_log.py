"""Adds a traffic log up: DuckDB reads its Parquet segments out of core, the live part comes in batches."""

import math
import os
import tempfile
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from jettison.errors import BrokenArtifact
from jettison.monitor.pieces import Moment, Piece, open_moment
from jettison.monitor.tally import AMOUNTS, FLAGS, OTHER, PICO, SCORES, Cell, Tally, edges_of
from jettison.record import Record, records_table
from jettison.registry import need
from jettison.release.describe import MOST_LABELS
from jettison.stats.log_histogram import LOG_RATIO, N_BINS, SMALLEST

EXTRA = "live"
MEMORY = "1500MB"
"""What DuckDB may hold before it goes to disk."""
TRIES = 3
LOOKED_AT = 50_000
"""Records from whose outputs labels are told from texts."""
_COLUMNS = {
    "time": "DOUBLE",
    "arm": "VARCHAR",
    "role": "VARCHAR",
    "route": "VARCHAR",
    "candidate": "VARCHAR",
    "output": "VARCHAR",
    "error": "VARCHAR",
    "unanswered": "BOOLEAN",
    "escalated": "BOOLEAN",
    "guardrails": "VARCHAR",
    "input": "VARCHAR",
    "confidence": "DOUBLE",
    "in_scope": "DOUBLE",
    "cost.latency_s": "DOUBLE",
    "cost.energy_tier": "VARCHAR",
    **{f"cost.{name}": "DOUBLE" for name in AMOUNTS},
}
_VALUES = {
    "confidence": "confidence",
    "in_scope": "in_scope",
    "tokens": '"cost.completion_tokens"::DOUBLE',
    "length": "length(input)::DOUBLE",
}


def tally_log(
    folder: Path, *, candidates: Collection[str] | None = None, labels: Collection[str] | None = None
) -> Tally:
    """Add up all records of a log, those in segments and those still in its live file, each once.

    Args:
        folder: The log's own.
        candidates: Digests of the release; None takes what is no fallback's.
        labels: Outputs that are counted one by one, others together; None looks at the log's beginning.

    Raises:
        MissingExtra: DuckDB is not installed.
        BrokenArtifact: A segment or the live file cannot be read.
    """
    duckdb = need("duckdb", EXTRA)
    for attempt in range(TRIES):
        try:
            return _tallied(duckdb, folder, candidates, labels)
        except FileNotFoundError:  # an old segment was dropped while we read: look again
            if attempt == TRIES - 1:
                raise BrokenArtifact(
                    f"{folder} must keep its segments while they are read, got some dropped {TRIES} times. "
                    "Try again, or raise log.keep_days and log.max_bytes."
                ) from None
    raise AssertionError("the last attempt returns or raises")


def _tallied(
    duckdb: Any, folder: Path, candidates: Collection[str] | None, labels: Collection[str] | None
) -> Tally:
    with tempfile.TemporaryDirectory(prefix="jettison-") as spill, open_moment(folder, "records") as moment:
        connection = duckdb.connect(
            config={
                "threads": _n_cores(),
                "memory_limit": MEMORY,
                "temp_directory": spill,
                "preserve_insertion_order": False,
                "autoinstall_known_extensions": False,
            }
        )
        try:
            # Each query opens every segment: thousands of footers are read once.
            connection.execute("SET parquet_metadata_cache = true")
            tally = Tally()
            for relation in _relations(connection, moment):
                if labels is None:
                    labels = _usual_outputs(connection, relation)
                _add(tally, connection, _described(relation, candidates), labels)
        except duckdb.Error as error:
            gone = [piece.path for piece in moment.pieces if not piece.path.exists()]
            if gone:
                raise FileNotFoundError(str(gone[0])) from error
            raise BrokenArtifact(
                f"the segments in {folder} must be readable, got: {str(error).splitlines()[0]}"
            ) from error
        finally:
            connection.close()
    return tally


def _n_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _relations(connection: Any, moment: Moment) -> Iterator[str]:
    """SQL of all segments at once, then of each batch of the live file."""
    if moment.pieces:
        yield _segments_sql(connection, moment.pieces)
    for batch in moment.live():
        try:
            records = [msgspec.json.decode(body, type=Record) for _, body in batch]
        except msgspec.DecodeError as error:
            raise BrokenArtifact(
                f"rows {batch[0][0]} to {batch[-1][0]} of {moment.folder} must be records: {error}."
            ) from error
        connection.register("live_rows", records_table(records))
        yield "SELECT * FROM live_rows"
        connection.unregister("live_rows")


def _segments_sql(connection: Any, pieces: tuple[Piece, ...]) -> str:
    whole = [piece for piece in pieces if piece.is_whole]
    parts = [_cut_sql(connection, piece) for piece in pieces if not piece.is_whole]
    if whole:
        names = ", ".join(_quoted(str(piece.path)) for piece in whole)
        source = f"read_parquet([{names}], union_by_name = true)"
        parts.append(f"SELECT {_columns_sql(connection, source)} FROM {source}")
    return " UNION ALL BY NAME ".join(parts)


def _cut_sql(connection: Any, piece: Piece) -> str:
    source = f"read_parquet({_quoted(str(piece.path))})"
    limits = [f"seq > {piece.after}"] if piece.after is not None else []
    limits += [f"seq < {piece.before}"] if piece.before is not None else []
    return f"SELECT {_columns_sql(connection, source)} FROM {source} WHERE {' AND '.join(limits)}"


def _columns_sql(connection: Any, source: str) -> str:
    """The columns that are added up; those that an older log has not are NULL."""
    there = {row[0] for row in connection.execute(f"DESCRIBE SELECT * FROM {source}").fetchall()}
    return ", ".join(
        f'"{name}"' if name in there else f'NULL::{kind} AS "{name}"' for name, kind in _COLUMNS.items()
    )


def _usual_outputs(connection: Any, relation: str) -> list[str]:
    """Outputs at the log's beginning; none where they are texts rather than labels."""
    found = connection.execute(
        f"SELECT DISTINCT output FROM (SELECT output FROM ({relation}) LIMIT {LOOKED_AT}) "
        f"WHERE output IS NOT NULL AND NOT starts_with(output, 'sha256:') LIMIT {MOST_LABELS + 1}"
    ).fetchall()
    return [row[0] for row in found] if len(found) <= MOST_LABELS else []


def _described(relation: str, candidates: Collection[str] | None) -> str:
    is_lean = "NOT suffix(coalesce(route, ''), 'fallback')"
    if candidates is not None:
        is_lean = f"coalesce(candidate IN ({_listed(candidates)}), false)"
    scores = ", ".join(f"{sql} AS score_{name}" for name, sql in _VALUES.items())
    return (
        "SELECT TRY_CAST(floor(time / 86400) AS INTEGER) AS day, coalesce(arm, '') AS arm, "
        f"coalesce(role, 'answer') AS role, {is_lean} AS is_lean, error IS NULL AS is_answered, "
        "coalesce(unanswered, false) AS unanswered, coalesce(escalated, false) AS escalated, "
        "coalesce(guardrails, '{}') NOT IN ('{}', '') AS guarded, "
        '"cost.latency_s" AS latency_s, output, '
        f'"cost.energy_tier" AS tier, {scores}, '
        + ", ".join(f'"cost.{name}" AS {name}' for name in AMOUNTS)
        + f" FROM ({relation})"
    )


_CELL = "day, arm, role, is_lean"


def _add(tally: Tally, connection: Any, described: str, labels: Collection[str]) -> None:
    _add_amounts(tally, connection, described)
    _add_latencies(tally, connection, described)
    if labels:
        _add_labels(tally, connection, described, labels)


def _add_amounts(tally: Tally, connection: Any, described: str) -> None:
    asked = [
        "count(*)",
        "count_if(NOT is_answered)",
        *(f"count_if({name})" for name in FLAGS[1:]),
        *(f"count({name})" for name in AMOUNTS),
        *(f"sum(CAST(round({name} * {PICO}) AS HUGEINT))" for name in AMOUNTS),
        "list(DISTINCT tier)",
        *(
            f"histogram(score_{name}, {list(edges_of(name))}::DOUBLE[]) FILTER (WHERE is_answered)"
            for name in SCORES
        ),
    ]
    rows = connection.execute(f"SELECT {_CELL}, {', '.join(asked)} FROM ({described}) GROUP BY ALL")
    for row in rows.fetchall():
        values = iter(row)
        cell = Cell(*(next(values) for _ in range(4)))
        counts = tally.at(cell)
        counts.n += next(values)
        for name in FLAGS:
            counts.flags[name] += next(values)
        for name in AMOUNTS:
            counts.n_known[name] += next(values)
        for name in AMOUNTS:
            counts.pico[name] += int(next(values) or 0)
        counts.tiers |= {tier for tier in next(values) if tier is not None}
        for name in SCORES:
            found = _by_bin(name, next(values) or {})
            if found.any():
                counts.scores[name] = counts.scores.get(name, 0) + found


def _add_latencies(tally: Tally, connection: Any, described: str) -> None:
    place = f"floor(ln(latency_s / {SMALLEST!r}) / {LOG_RATIO!r}) + 1"
    asked = (
        f"SELECT {_CELL}, CASE WHEN latency_s <= 0 THEN 0 "
        f"ELSE greatest(0, least({N_BINS + 1}, {place}))::INTEGER END AS bin, count(*) AS n "
        f"FROM ({described}) WHERE is_answered AND latency_s IS NOT NULL GROUP BY ALL"
    )
    for *cell, place, n in connection.execute(asked).fetchall():
        tally.at(Cell(*cell)).latency.counts[place] += n


def _add_labels(tally: Tally, connection: Any, described: str, labels: Collection[str]) -> None:
    counted = (
        f"SELECT {_CELL}, output, count(*) AS n FROM ({described}) "
        "WHERE is_answered AND output IS NOT NULL GROUP BY ALL"
    )
    label = f"CASE WHEN output IN ({_listed(labels)}) THEN output ELSE '{OTHER}' END"
    rows = connection.execute(f"SELECT {_CELL}, {label} AS label, sum(n) FROM ({counted}) GROUP BY ALL")
    for *cell, label, n in rows.fetchall():
        tally.at(Cell(*cell)).labels[label] += int(n)


def _by_bin(name: str, found: dict[float, int]) -> np.ndarray:
    """A histogram of DuckDB as counts by bin; a bin holds what is at most its edge, the last the rest."""
    edges = (*edges_of(name), math.inf)
    return np.array([found.get(edge, 0) for edge in edges], np.int64)


def _listed(texts: Collection[str]) -> str:
    return ", ".join(map(_quoted, texts)) or "NULL"


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
