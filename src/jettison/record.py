"""A record: one call of one candidate on one example or live request. The same type offline and live."""

import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec

from jettison.errors import BrokenArtifact, InvalidInput
from jettison.files import write_atomic

MAPS = ("scores", "slices", "guardrails", "output_guardrails")
"""Fields of a record that a table holds as JSON text."""


class Cost(msgspec.Struct, frozen=True, kw_only=True):
    """What an answer took. None is "not measured", never zero."""

    latency_s: float | None = None
    """Live: from the request to the whole answer. Offline: what answering took, without a queue; where
    `n_together` answers were given at once, a share of it."""
    cpu_s: float | None = None
    """CPU-seconds of all threads, where the model runs here; a share likewise. Live: of the arm that
    answered, an equal share of the batch that its engine answered at once."""
    n_together: int | None = None
    """Among how many answers of one call `latency_s` and `cpu_s` were shared equally; None: not shared."""
    energy_j: float | None = None
    energy_tier: str | None = None
    """How the energy is known: M1-M3 measured, E1-E3 estimated."""
    peak_bytes: int | None = None
    wire_bytes: int | None = None
    """Sent and received, headers of HTTP included, where the answer came over a network."""
    price_usd: float | None = None
    """Tokens at the prices given for them."""
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    first_token_s: float | None = None
    """Seconds from the request to the first token of the answer."""


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """One model call: output, scores, cost."""

    candidate: str
    """Digest of the candidate that answered."""
    example_id: str
    split: str
    output: str | None
    """The label answered; None when the call failed."""
    expected: str | None = None
    confidence: float | None = None
    in_scope: float | None = None
    flagged: bool | None = None
    abstained: bool = False
    """The candidate withheld its answer: the output is the out-of-scope label."""
    logits: tuple[float, ...] | None = None
    logprob: float | None = None
    """Of the whole generated answer, natural log, before calibration; None where the model does not say."""
    scores: dict[str, float | None] = msgspec.field(default_factory=dict)
    """Judgement of each scorer; None where it could not tell."""
    slices: dict[str, str] = msgspec.field(default_factory=dict)
    group: str | None = None
    weight: float = 1.0
    cost: Cost = msgspec.field(default_factory=Cost)
    arm: str | None = None
    escalated: bool = False
    error: str | None = None
    unanswered: bool = False
    """With `error`: the answer was lost on the way, and counts neither as right nor as wrong."""
    time: float | None = None
    """When it was answered, seconds since the epoch."""
    role: Literal["answer", "lean", "shadow", "audit"] | None = None
    """Live: the answer that was returned, a lean answer that was escalated, or one that nobody saw."""
    route: str | None = None
    """Live: place in the route plan that answered, as `treatment/fallback`."""
    experiment: str | None = None
    propensity: float | None = None
    """Live: the known probability with which this call was drawn: of its arm, shadow or audit."""
    key: str | None = None
    """Live: salted hash of the key that arms are assigned by."""
    status: int | None = None
    """Live: HTTP status of the reply."""
    input: str | None = None
    """The text asked, where a live log or a foreign file keeps texts; else None."""
    input_sha256: str | None = None
    guardrails: dict[str, str] = msgspec.field(default_factory=dict)
    """Live: guardrails that fired, and what was done: block, redact, escalate or flag."""
    output_guardrails: dict[str, str] = msgspec.field(default_factory=dict)
    """Live: guardrails that looked at the output, and the severest that each did, perhaps `pass`."""


def write_records(path: Path, records: Iterable[Record], *, meta: dict[str, Any] | None = None) -> None:
    """Write records to one Parquet file, atomically; maps are stored as JSON text columns.

    Args:
        path: The file.
        records: In any order, which is kept.
        meta: JSON-like facts about all of them (machine, versions, settings), kept in the footer.

    Raises:
        CannotWrite: The disk is full or the folder is read-only.
    """
    import pyarrow.parquet as pq

    footer = {"jettison.format": "1", "jettison.meta": msgspec.json.encode(meta or {}).decode()}
    table = records_table(records).replace_schema_metadata(footer)
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    write_atomic(path, buffer.getvalue())


def records_table(records: Iterable[Record]) -> Any:
    """Records as an Arrow table, one column a field; maps are JSON text."""
    import pyarrow as pa

    rows = list(records)
    columns = {
        name: pa.array([_plain(getattr(row, name)) for row in rows], type=_arrow_type(pa, name))
        for name in Record.__struct_fields__
        if name != "cost"
    }
    for name in Cost.__struct_fields__:
        columns[f"cost.{name}"] = pa.array(
            [getattr(row.cost, name) for row in rows], type=_arrow_type(pa, f"cost.{name}")
        )
    return pa.table(columns)


def read_records(path: Path) -> list[Record]:
    """Read what `write_records` wrote.

    Raises:
        InvalidInput: There is no such file.
        BrokenArtifact: It is not a Parquet file of records.
    """
    table = _read_table(path)
    missing = sorted({"candidate", "example_id", "output"} - set(table.column_names))
    if missing:
        raise BrokenArtifact(f"{path} must have the columns of a record, got none named {missing[0]!r}.")
    records = []
    for row in table.to_pylist():
        cost = {name: row.pop(f"cost.{name}", None) for name in Cost.__struct_fields__}
        for name in MAPS:
            row[name] = msgspec.json.decode(row[name]) if row.get(name) else {}
        records.append(msgspec.convert({**row, "cost": cost}, Record))
    return records


def read_records_meta(path: Path) -> dict[str, Any]:
    """The facts about all records that `write_records` put in the footer."""
    metadata = _read_table(path).schema.metadata or {}
    found: dict[str, Any] = msgspec.json.decode(metadata.get(b"jettison.meta", b"{}"))
    return found


def mean_score(records: Sequence[Record], scorer: str) -> float | None:
    """Weighted mean of one scorer over the records it could judge; None when there are none."""
    judged = [(r.scores[scorer], r.weight) for r in records if r.scores.get(scorer) is not None]
    total = sum(weight for _, weight in judged)
    return sum(score * weight for score, weight in judged if score is not None) / total if total else None


def _read_table(path: Path) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not path.is_file():
        raise InvalidInput(f"{path} must be a file of records, got nothing there.")
    try:
        return pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise BrokenArtifact(f"{path} must be a Parquet file of records: {error}.") from error


def _plain(value: Any) -> Any:
    return msgspec.json.encode(value).decode() if isinstance(value, dict) else value


def _arrow_type(pa: Any, name: str) -> Any:
    if name in (
        "cost.peak_bytes",
        "cost.wire_bytes",
        "cost.prompt_tokens",
        "cost.completion_tokens",
        "cost.n_together",
    ):
        return pa.int64()
    if name == "status":
        return pa.int32()
    if name in ("flagged", "escalated", "unanswered", "abstained"):
        return pa.bool_()
    if name == "logits":
        return pa.list_(pa.float32())
    if name in ("confidence", "in_scope", "logprob", "weight", "time", "propensity") or (
        name.startswith("cost.") and name != "cost.energy_tier"
    ):
        return pa.float64()
    return pa.string()
