"""Counts how many decisions have read a test split: each one spends some of its worth."""

import os
import time
from pathlib import Path
from typing import BinaryIO

import msgspec

from jettison.files import said_when_unwritable


class TestRead(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the ledger."""

    __test__ = False

    test_digest: str
    purpose: str
    time: float


def count_test_read(path: Path, *, test_digest: str, purpose: str) -> int:
    """Append this reading unless its purpose is there already, and return the count.

    Raises:
        CannotWrite: The ledger cannot be written; an unwritten reading must not happen.
    """
    purposes = _purposes(path, test_digest)
    if purpose not in purposes:
        line = TestRead(test_digest=test_digest, purpose=purpose, time=time.time())
        with said_when_unwritable(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("a+b") as file:
                # After a line torn by a crash, so that it does not swallow this one.
                start = b"\n" if _ends_torn(file) else b""
                file.write(start + msgspec.json.encode(line) + b"\n")
                file.flush()
                os.fsync(file.fileno())
    return len(purposes | {purpose})


def n_test_reads(path: Path, *, test_digest: str) -> int:
    """Decisions that have read a test split so far."""
    return len(_purposes(path, test_digest))


def _purposes(path: Path, test_digest: str) -> set[str]:
    return {line.purpose for line in read_ledger(path) if line.test_digest == test_digest}


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
