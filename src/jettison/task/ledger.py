"""Counts how many decisions have read a test split: each one spends some of its worth."""

import hashlib
import os
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import BinaryIO

import msgspec

from jettison.files import said_when_unwritable

SKETCH = 256
"""Texts by which two test splits are compared: what they have in common is then known to 3 points."""
MOST_SHARED = 0.1
"""A split more of whose examples were in another one before has been read whenever that was."""


class TestRead(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One line of the ledger."""

    __test__ = False

    test_digest: str
    purpose: str
    time: float
    n_texts: int | None = None
    sketch: tuple[str, ...] = ()
    """The smallest hashes of the split's texts, with the split's first reading alone."""


def count_test_read(path: Path, *, test_digest: str, purpose: str, texts: Iterable[str] = ()) -> int:
    """Append this reading unless its purpose is there already, and return its number, from 1.

    A purpose that comes again keeps its number: what was asked later has no part in it. Readings of another
    split count where more than a tenth of this one's texts were in it: a split that grew is not a new one.

    Args:
        path: Of the ledger.
        test_digest: Of the split.
        purpose: What it is read for.
        texts: Inputs of the split's examples; without them only readings of the very same split count.

    Raises:
        CannotWrite: The ledger cannot be written; an unwritten reading must not happen.
    """
    sketch, n_texts = _sketch(texts)
    readings = _readings(read_ledger(path), test_digest, sketch, n_texts)
    asked = (test_digest, purpose)
    if asked not in readings:
        has_sketch = any(line.test_digest == test_digest and line.sketch for line in read_ledger(path))
        line = TestRead(
            test_digest=test_digest,
            purpose=purpose,
            time=time.time(),
            n_texts=None if has_sketch else n_texts,
            sketch=() if has_sketch else sketch,
        )
        readings.append(asked)
        with said_when_unwritable(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("a+b") as file:
                # After a line torn by a crash, so that it does not swallow this one.
                start = b"\n" if _ends_torn(file) else b""
                file.write(start + msgspec.json.encode(line) + b"\n")
                file.flush()
                os.fsync(file.fileno())
    return readings.index(asked) + 1


def n_test_reads(path: Path, *, test_digest: str, texts: Iterable[str] = ()) -> int:
    """Decisions that have read a test split so far, or one that it grew out of."""
    return len(_readings(read_ledger(path), test_digest, *_sketch(texts)))


def carry_readings(old: Path, *, of: str, new: Path, test_digest: str) -> None:
    """Count what a ledger has of one split for another that was made of it, in that one's own ledger.

    Args:
        old: The ledger that has the readings.
        of: Digest of the split that was read.
        new: The ledger that gets them.
        test_digest: Of the split that was made of it.
    """
    lines = read_ledger(old)
    first = next((line for line in lines if line.test_digest == of and line.sketch), None)
    known = () if first is None else first.sketch
    for _, purpose in _readings(lines, of, known, first.n_texts if first else None):
        count_test_read(new, test_digest=test_digest, purpose=purpose)


def _readings(
    lines: Sequence[TestRead], test_digest: str, sketch: tuple[str, ...], n_texts: int | None
) -> list[tuple[str, str]]:
    """Split and purpose of each reading that counts for a split, each once, in their order."""
    alike = {test_digest}
    for line in lines:
        if line.sketch and sketch and _share_in(line, sketch, n_texts or 0) > MOST_SHARED:
            alike.add(line.test_digest)
    return list(
        dict.fromkeys((line.test_digest, line.purpose) for line in lines if line.test_digest in alike)
    )


def _sketch(texts: Iterable[str]) -> tuple[tuple[str, ...], int | None]:
    """The smallest hashes of different texts, and how many different ones there are.

    Source:
        Bottom-k sketches: Cohen & Kaplan 2007, "Summarizing data using bottom-k sketches", PODC.
    """
    hashes = sorted(
        {hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=8).hexdigest() for text in texts}
    )
    return tuple(hashes[:SKETCH]), len(hashes) or None


def _share_in(line: TestRead, sketch: tuple[str, ...], n_texts: int) -> float:
    """Share of a split's texts that were in the split of a line, estimated."""
    both = sorted({*line.sketch, *sketch})[:SKETCH]
    jaccard = sum(one in line.sketch and one in sketch for one in both) / len(both)
    n_either = ((line.n_texts or 0) + n_texts) / (1 + jaccard)
    return jaccard * n_either / max(n_texts, 1)


def read_ledger(path: Path) -> tuple[TestRead, ...]:
    """All readings on file; a line torn by a crash is passed over."""
    if not path.exists():
        return ()
    lines = []
    for line in path.read_bytes().splitlines():
        try:
            lines.append(msgspec.json.decode(line, type=TestRead))
        except msgspec.DecodeError:
            continue
    return tuple(lines)


def _ends_torn(file: BinaryIO) -> bool:
    if file.seek(0, os.SEEK_END) == 0:
        return False
    file.seek(-1, os.SEEK_END)
    return file.read(1) != b"\n"
