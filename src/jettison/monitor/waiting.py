"""Requests that wait for a label: 32 bytes each, found by the hash of their id."""

from typing import NamedTuple

import numpy as np

ROW = np.dtype(
    [("request", "<u8"), ("time", "<f8"), ("unit", "<u8"), ("output", "<u4"), ("draw", "<u4")], align=False
)
"""`output` is 32 bits of its hash, 0 where there was none; `draw` a place in the observer's list."""
CHUNK = 1 << 20
"""Rows kept and forgotten together."""
_SCANNED = 1 << 17
MOST_BITS = 24


class Found(NamedTuple):
    """What was waiting."""

    rows: np.ndarray
    """Shape (n_asked,), of `ROW`."""
    is_there: np.ndarray
    """Shape (n_asked,); where not, the row holds nothing."""


class Waiting:
    """Rows in the order they came, in chunks of `CHUNK`; a full chunk does not change any more."""

    def __init__(self) -> None:
        self.chunks: dict[int, np.ndarray] = {}
        """By number, the oldest first; what was forgotten is no longer there."""
        self.n = 0
        """Rows ever added."""

    def add(self, rows: np.ndarray) -> None:
        """Append rows, shape (n,)."""
        while len(rows):
            number, used = divmod(self.n, CHUNK)
            if number not in self.chunks:
                self.chunks[number] = np.empty(CHUNK, ROW)
            part = rows[: CHUNK - used]
            self.chunks[number][used : used + len(part)] = part
            self.n += len(part)
            rows = rows[len(part) :]

    def rows(self, number: int) -> np.ndarray:
        """The filled part of a chunk."""
        return self.chunks[number][: self.n - number * CHUNK]

    def find(self, requests: np.ndarray) -> Found:
        """The newest row of each request, by hash, shape (n_asked,).

        Every row is looked at, through a table of bits that leaves few to be searched for: with few asked,
        about a millisecond for a million rows.
        """
        asked, back = np.unique(requests, return_inverse=True)
        bits = min(MOST_BITS, max(12, int(np.ceil(np.log2(16 * max(1, len(asked)))))))
        shift = np.uint64(64 - bits)
        may_be = np.zeros(1 << bits, bool)
        may_be[(asked >> shift).astype(np.int64)] = True
        rows, is_there = np.zeros(len(asked), ROW), np.zeros(len(asked), bool)
        for number in self.chunks if len(asked) else ():
            chunk = self.rows(number)
            for start in range(0, len(chunk), _SCANNED):
                part = chunk[start : start + _SCANNED]
                ids = np.ascontiguousarray(part["request"])
                near = np.flatnonzero(may_be[(ids >> shift).astype(np.int64)])
                place = np.minimum(np.searchsorted(asked, ids[near]), len(asked) - 1)
                hit = asked[place] == ids[near]
                # Oldest first, so that of two rows of a request the newer one is written last.
                rows[place[hit]] = part[near[hit]]
                is_there[place[hit]] = True
        return Found(rows=rows[back], is_there=is_there[back])

    def forget(self, before: float) -> None:
        """Drop full chunks in which everything is older; NaN, of a record without a time, never is."""
        for number in list(self.chunks):
            if (number + 1) * CHUNK > self.n or not (self.chunks[number]["time"] < before).all():
                return
            del self.chunks[number]
