"""A traffic log of any size, made column by column: what `live_scale.py` reads.

A month of a randomised experiment: control is the incumbent, treatment a cascade whose lean answer is kept
or escalated. Half the requests have a sticky key, so that one key has several answers; two of a hundred get
a label later; three of a thousand fail. Columns, types and names of the segments are the log's own.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from jettison.record import records_table
from jettison.traffic import SEGMENTS

DAYS, START_S = 30, 1_790_000_000.0 // 86400 * 86400
LABELS = [f"intent_{k:03d}" for k in range(150)]
LANGUAGES = ["de", "en", "es", "fr"]
BLOCK = 500_000
HEX = np.array([f"{k:02x}" for k in range(256)], dtype="S2").view(np.uint16)


class Made(NamedTuple):
    """What was written."""

    n_records: int
    n_feedback: int
    n_bytes: int
    n_files: int


def make_log(folder: Path, n: int, *, segment_rows: int = 10_000, seed: int = 0) -> Made:
    """Write a log of `n` records in segments as large as the gateway's roll writes them."""
    (folder / SEGMENTS).mkdir(parents=True)
    rng = np.random.default_rng(seed)
    schema = records_table([]).schema
    done, said = 0, 0
    while done < n:
        block = _block(rng, schema, done, min(BLOCK, n - done), n)
        _write(folder, "records", block.table, done, segment_rows)
        # A roll comes every 50,000 records, and takes along the feedback that came meanwhile.
        _write(folder, "feedback", block.feedback, said, max(1, segment_rows // 10))
        done, said = done + block.table.num_rows, said + block.feedback.num_rows
    files = list((folder / SEGMENTS).glob("*.parquet"))
    return Made(done, said, sum(path.stat().st_size for path in files), len(files))


class _Block(NamedTuple):
    table: pa.Table
    feedback: pa.Table


def _write(folder: Path, name: str, table: pa.Table, before: int, segment_rows: int) -> None:
    table = table.append_column("seq", pa.array(np.arange(before + 1, before + table.num_rows + 1)))
    for start in range(0, table.num_rows, segment_rows):
        part = table.slice(start, segment_rows)
        first, last = before + start + 1, before + start + part.num_rows
        path = folder / SEGMENTS / f"{name}-{first:012d}-{last:012d}.parquet"
        pq.write_table(part, path, compression="zstd")


def _block(rng: np.random.Generator, schema: pa.Schema, before: int, n: int, of: int) -> _Block:
    """`n` records: requests in a row, of which escalated and audited ones have two."""
    request = np.arange(n)  # more than will fit; cut below
    has_key = rng.random(n) < 0.5
    users = max(1, of // 5)
    user = rng.integers(0, users, n)
    is_treatment = np.where(has_key, _mixed(user) & 1 == 1, rng.random(n) < 0.5)
    escalated = is_treatment & (rng.random(n) < 0.15)
    audited = is_treatment & ~escalated & (rng.random(n) < 0.02)
    row = np.repeat(request, 1 + escalated + audited)[:n]
    is_second = np.zeros(n, bool)
    is_second[1:] = row[1:] == row[:-1]
    answered = ~(audited[row] & is_second) & ~(escalated[row] & ~is_second)
    is_lean = is_treatment[row] & ~is_second
    failed = answered & (rng.random(n) < 0.003)
    right = rng.integers(0, len(LABELS), n)
    wrong = rng.integers(0, len(LABELS), n)
    is_right = rng.random(n) < np.where(is_lean, 0.92, 0.93)
    output = np.where(is_right, right[row], wrong)
    time = START_S + DAYS * 86400 * (before + np.sort(rng.random(n)) * n) / of
    latency = np.where(is_lean, 0.004, 0.35) * np.exp(0.4 * rng.standard_normal(n))
    confidence = rng.beta(8, 1.2, n).astype(np.float32).astype(float)
    tokens = rng.integers(20, 400, n)
    ids = _hex(rng.integers(0, 256, (n, 16), dtype=np.uint8))
    keys = _hex(np.stack([_mixed(user), _mixed(user + 2**40)], 1).view(np.uint8)[:, :12])
    of_request = pa.array(row)
    both = pa.array(~failed)
    columns = {
        "candidate": _words(np.where(is_lean, 0, 1), ["lean-digest", "large-digest"]),
        "example_id": ids.take(of_request),
        "split": _words(np.zeros(n, int), ["live"]),
        "output": _nulled(_words(output, LABELS), both),
        "confidence": pa.array(confidence, mask=~is_lean),
        "in_scope": pa.array(confidence[::-1].copy(), mask=~is_lean),
        "abstained": pa.array(np.zeros(n, bool)),
        "scores": _words(np.zeros(n, int), ["{}"]),
        "slices": _words(user[row] % 4, [f'{{"language":"{name}"}}' for name in LANGUAGES]),
        "weight": pa.array(np.ones(n)),
        "cost.latency_s": pa.array(latency),
        "cost.cpu_s": pa.array(latency * 0.8, mask=~is_lean),
        "cost.energy_j": pa.array(latency * 8, mask=~is_lean),
        "cost.energy_tier": _nulled(_words(np.zeros(n, int), ["E2"]), pa.array(is_lean)),
        "cost.wire_bytes": pa.array(tokens * 9, mask=is_lean),
        "cost.prompt_tokens": pa.array(tokens, mask=is_lean),
        "cost.completion_tokens": pa.array(tokens % 9 + 1, mask=is_lean),
        "cost.price_usd": pa.array(tokens * 2.5e-6, mask=is_lean),
        "arm": _words(is_treatment[row].astype(int), ["control", "treatment"]),
        "escalated": pa.array(escalated[row] & is_second),
        "error": _nulled(_words(np.zeros(n, int), ["upstream_timeout"]), pa.array(failed)),
        "unanswered": pa.array(failed),
        "time": pa.array(time),
        "role": _words(np.where(answered, 0, np.where(is_second, 2, 1)), ["answer", "lean", "audit"]),
        "route": _words(
            np.where(is_lean, 1, np.where(is_treatment[row], 2, 0)),
            ["control", "treatment/lean", "treatment/fallback"],
        ),
        "experiment": _words(np.zeros(n, int), ["lean-7"]),
        "propensity": pa.array(np.where(audited[row] & is_second, 0.02, 0.5)),
        "key": _nulled(keys, pa.array(has_key)).take(of_request),
        "status": pa.array(np.where(failed, 504, 200).astype(np.int32)),
        "input_sha256": _hex(rng.integers(0, 256, (n, 32), dtype=np.uint8)).take(of_request),
        "guardrails": _words((rng.random(n) < 0.01).astype(int), ["{}", '{"pii":"redact"}']),
    }
    table = pa.table([columns.get(f.name, pa.nulls(n, f.type)) for f in schema], schema=schema)
    chosen = np.flatnonzero(answered & (rng.random(n) < 0.02))
    m = len(chosen)
    feedback = pa.table(
        {
            "request_id": ids.take(pa.array(row[chosen])),
            "time": pa.array(time[chosen] + rng.exponential(3600, m)),
            "score": pa.nulls(m, pa.float64()),
            "label": _words(right[row[chosen]], LABELS),
            "comment": pa.nulls(m, pa.string()),
            "source": _words(np.zeros(m, int), ["user"]),
        }
    )
    return _Block(table, feedback.sort_by("time"))


def _hex(raw: np.ndarray) -> pa.Array:
    """Rows of bytes as hexadecimal strings."""
    n, width = raw.shape
    offsets = np.arange(n + 1, dtype=np.int32) * (2 * width)
    return pa.Array.from_buffers(
        pa.string(), n, [None, pa.py_buffer(offsets), pa.py_buffer(np.ascontiguousarray(HEX[raw]))]
    )


def _words(codes: np.ndarray, words: list[str]) -> pa.Array:
    return pa.array(words).take(pa.array(codes))


def _nulled(values: pa.Array, keep: pa.Array) -> pa.Array:
    import pyarrow.compute as pc

    return pc.if_else(keep, values, pa.scalar(None, pa.string()))


def _mixed(x: np.ndarray) -> np.ndarray:
    """SplitMix64: a user's number as 64 bits that look random."""
    z = x.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
