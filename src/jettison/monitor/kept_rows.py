"""Arrays that only grow, kept in files of fixed length: what is full is written once and never again."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jettison.errors import BrokenArtifact
from jettison.files import write_atomic
from jettison.monitor.plan import STATE_FILE

SUFFIX = ".rows"


class KeptRows:
    """Appends rows to chunk files as they are saved.

    The rows of one log and plan are the same whoever writes them, so that two writers never disagree;
    what lies past the length that the state tells is not looked at.

    Args:
        folder: Where the files are.
        stem: Start of their names.
        dtype: Of a row.
        chunk: Rows a file.
        n: Rows saved before.
    """

    def __init__(
        self, folder: Path, stem: str, dtype: "np.dtype[Any]", *, chunk: int = 1 << 20, n: int = 0
    ) -> None:
        self.folder, self.stem, self.dtype, self.chunk, self.n = folder, stem, dtype, chunk, n

    def append(self, rows: np.ndarray) -> None:
        """Write rows after those saved before.

        Raises:
            CannotWrite: The disk is full or the folder read-only.
        """
        number, used = divmod(self.n, self.chunk)
        if used and len(rows):
            rows = np.concatenate([self._read(number, used), rows])
            self.n -= used
        for start in range(0, len(rows), self.chunk):
            part = rows[start : start + self.chunk]
            write_atomic(self.path(number), np.ascontiguousarray(part, self.dtype).view(np.uint8).data)
            number, self.n = number + 1, self.n + len(part)

    def read(self) -> Iterable[np.ndarray]:
        """All rows saved, file by file.

        Raises:
            BrokenArtifact: A file is missing or too short.
        """
        for number in range(-(-self.n // self.chunk)):
            yield self._read(number, min(self.chunk, self.n - number * self.chunk))

    def read_chunk(self, number: int) -> np.ndarray:
        """Rows of one file."""
        return self._read(number, min(self.chunk, self.n - number * self.chunk))

    def path(self, number: int) -> Path:
        """The file of a chunk."""
        return self.folder / f"{self.stem}-{number:06d}{SUFFIX}"

    def _read(self, number: int, n: int) -> np.ndarray:
        path = self.path(number)
        try:
            found = np.fromfile(path, self.dtype, n)
        except OSError as error:
            raise broken_rows(path, n, str(error)) from error
        if len(found) < n:
            raise broken_rows(path, n, str(len(found)))
        return found


def broken_rows(path: Path, n: int, got: str) -> BrokenArtifact:
    """The error for a file that does not hold what the state says."""
    return BrokenArtifact(
        f"{path} must hold {n} rows, got {got}. Delete {STATE_FILE} beside it: the log holds everything."
    )


def drop_others(folder: Path, stems: Sequence[str], first: dict[str, int]) -> None:
    """Delete chunk files of no stem, and those before the first number that a stem still needs."""
    for path in folder.glob(f"*{SUFFIX}"):
        stem, _, number = path.stem.rpartition("-")
        if stem not in stems or int(number) < first.get(stem, 0):
            path.unlink(missing_ok=True)
