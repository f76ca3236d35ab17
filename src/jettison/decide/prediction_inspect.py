"""Inspect's logs as predictions: `.eval` (a ZIP, its members in Zstandard) or `.json`.

Answers are paired by sample id and epoch; both sides must have been asked the same messages. Epochs of one
sample are one group, since they are one question asked again.

Source: UKGovernmentBEIS/inspect_ai 0.3.285, log format version 2.
"""

import json
import math
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from jettison.decide.prediction_table import Predictions
from jettison.errors import BrokenArtifact, InvalidInput
from jettison.files import file_sha256, value_sha256
from jettison.record import Cost, Record

ZSTANDARD = 93
"""ZIP's number for it, which Python's own `zipfile` reads from 3.14 on."""
MOST_BYTES = 1 << 28
"""Of one member, unpacked."""
GRADES = {"C": 1.0, "P": 0.5, "I": 0.0, "N": 0.0}
"""Correct, partial, incorrect, no answer."""
KEPT = (
    "id",
    "epoch",
    "input",
    "target",
    "messages",
    "output",
    "scores",
    "metadata",
    "error",
    "working_time",
)
"""What is read of a sample; its events are most of a log and are let go."""
FAULTS = (OSError, ValueError, RecursionError, RuntimeError, zipfile.BadZipFile, zlib.error)


def is_inspect_log(path: Path) -> bool:
    """Whether a file is one of Inspect's logs, by its name and its first bytes."""
    if path.suffix == ".eval":
        return True
    if path.suffix != ".json" or not path.is_file():
        return False
    with path.open("rb") as file:
        begin = file.read(4096)
    return begin.lstrip().startswith(b"{") and b'"eval"' in begin


def read_inspect_log(path: Path, *, slice_columns: tuple[str, ...] = ()) -> Predictions:
    """Every sample of a log.

    Args:
        path: `.eval` or `.json`.
        slice_columns: Keys of the samples' metadata to report on.

    Raises:
        InvalidInput: The log has no samples, or a sample no id or score.
        BrokenArtifact: It cannot be read.
    """
    samples = [_kept(one, path) for one in (_zipped(path) if path.suffix == ".eval" else _plain(path))]
    if not samples:
        raise InvalidInput(
            f"{path} must hold samples, got none: a header alone says nothing of single answers. "
            "Run Inspect with log_samples."
        )
    digest = file_sha256(path)
    several = len({sample["epoch"] for sample in samples}) > 1
    records, prompts = [], {}
    for sample in sorted(samples, key=lambda one: (str(one["id"]), one["epoch"])):
        name = f"{sample['id']}/{sample['epoch']}" if several else str(sample["id"])
        group = str(sample["id"]) if several else None
        try:
            group = group or _group(sample)
            prompts[name] = value_sha256(_asked(sample))
            records.append(_record(sample, name, digest, slice_columns, group=group))
        except (AttributeError, TypeError, ValueError) as error:
            raise BrokenArtifact(
                f"{path} must hold samples as Inspect writes them, got {name}: {error}."
            ) from error
    if not any(record.scores for record in records):
        raise InvalidInput(f"{path} must hold scores, got none in {len(records)} samples.")
    return Predictions(records=tuple(records), prompts=prompts, retry=f"inspect eval-retry {path}")


def _kept(sample: Any, path: Path) -> dict[str, Any]:
    """What is read of a sample, with its id and the number of its epoch."""
    if not isinstance(sample, dict) or sample.get("id") is None:
        raise InvalidInput(f"a sample must have an id, got none in {path}: answers are paired by it.")
    epoch = sample.get("epoch", 1)
    if not isinstance(epoch, int):
        raise InvalidInput(f"an epoch must be a whole number, got {epoch!r} of {sample['id']} in {path}.")
    return {name: sample.get(name) for name in KEPT} | {"epoch": epoch}


def _record(
    sample: Mapping[str, Any], name: str, digest: str, slice_columns: tuple[str, ...], group: str | None
) -> Record:
    metadata = sample.get("metadata") or {}
    error = sample.get("error")
    output = sample.get("output") or {}
    usage = output.get("usage") or {}
    target = sample.get("target")
    return Record(
        candidate=digest,
        example_id=name,
        split="test",
        output=None if error else output.get("completion"),
        expected=target if isinstance(target, str) else None,
        scores={} if error else _scores(sample.get("scores") or {}),
        slices={key: str(metadata[key]) for key in slice_columns if metadata.get(key) is not None},
        group=group,
        input=_text(_asked(sample)[-1]),
        # A call that failed says nothing of the model.
        error=str(error.get("message", "failed") if isinstance(error, dict) else error) if error else None,
        unanswered=bool(error),
        cost=Cost(
            latency_s=sample.get("working_time"),
            prompt_tokens=usage.get("input_tokens"),
            completion_tokens=usage.get("output_tokens"),
        ),
    )


def _scores(given: Mapping[str, Any]) -> dict[str, float | None]:
    found: dict[str, float | None] = {}
    for scorer, score in given.items():
        value = score.get("value") if isinstance(score, dict) else score
        parts: list[tuple[str | None, Any]] = (
            list(value.items()) if isinstance(value, dict) else [(None, value)]
        )
        for part, one in parts:
            found[scorer if part is None else f"{scorer}/{part}"] = _number(one)
    return found


def _number(value: Any) -> float | None:
    if isinstance(value, str):
        return GRADES.get(value)
    try:
        number = float(value) if isinstance(value, (int, float)) else math.nan
    except OverflowError:  # a whole number of hundreds of digits
        number = math.nan
    return number if math.isfinite(number) else None


def _asked(sample: Mapping[str, Any]) -> list[Any]:
    """What the model was asked: the messages before its first answer, without their random ids."""
    messages = sample.get("messages") or []
    asked: list[Any] = []
    for message in messages:
        if message.get("role") == "assistant":
            break
        asked.append([message.get("role"), message.get("content")])
    return asked or [sample.get("input")]


def _text(asked: Any) -> str | None:
    """The last of what was asked, where it is one text."""
    said = asked[1] if isinstance(asked, list) and len(asked) == 2 else asked
    return said if isinstance(said, str) else None


def _group(sample: Mapping[str, Any]) -> str | None:
    """`group` of the metadata, as a data set may say and as our own logs do."""
    group = (sample.get("metadata") or {}).get("group")
    return None if group is None else str(group)


def _plain(path: Path) -> Iterator[dict[str, Any]]:
    try:
        content = json.loads(path.read_bytes())
    except FAULTS as error:
        raise BrokenArtifact(f"{path} must be a log of Inspect: {error}.") from error
    yield from content.get("samples") or []


def _zipped(path: Path) -> Iterator[dict[str, Any]]:
    try:
        with zipfile.ZipFile(path) as archive, path.open("rb") as file:
            for member in archive.infolist():
                if member.filename.startswith("samples/") and member.filename.endswith(".json"):
                    yield json.loads(_unpacked(archive, member, file))
    except FAULTS as error:
        raise BrokenArtifact(f"{path} must be a log of Inspect: {error}.") from error


def _unpacked(archive: zipfile.ZipFile, member: zipfile.ZipInfo, file: Any) -> bytes:
    if member.file_size > MOST_BYTES:
        raise ValueError(
            f"{member.filename} has {member.file_size:,} bytes, at most {MOST_BYTES:,} are read"
        )
    if member.compress_type != ZSTANDARD:
        return archive.read(member)
    import pyarrow as pa

    file.seek(member.header_offset)
    header = file.read(30)
    file.seek(int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little"), 1)
    packed = pa.BufferReader(file.read(member.compress_size))
    with pa.CompressedInputStream(packed, "zstd") as stream:
        content: bytes = stream.read(member.file_size + 1)
    if len(content) != member.file_size:
        raise ValueError(f"{member.filename} does not have the {member.file_size:,} bytes it says")
    return content
