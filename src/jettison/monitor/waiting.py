"""Requests that wait for a label: 32 bytes each, found by the hash of their id."""

from concurrent.futures import ThreadPoolExecutor
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
        rows, is_there = np.zeros(len(asked), ROW), np.zeros(len(asked), bool)
        if len(asked):
            sought = _Sought(asked)
            with ThreadPoolExecutor(2) as looking:
                # Oldest first, so that of two rows of a request the newer one is written last.
                for place, hit in looking.map(sought.among, map(self.rows, self.chunks)):
                    rows[place], is_there[place] = hit, True
        return Found(rows=rows[back], is_there=is_there[back])

    def forget(self, before: float) -> None:
        """Drop full chunks in which everything is older; NaN, of a record without a time, never is."""
        for number in list(self.chunks):
            if (number + 1) * CHUNK > self.n or not (self.chunks[number]["time"] < before).all():
                return
            del self.chunks[number]


class _Sought:
    """Hashes that are looked for, with a table of bits that leaves few rows to be searched for.

    Args:
        asked: Different hashes, ascending.
    """

    def __init__(self, asked: np.ndarray) -> None:
        self._asked = asked
        bits = min(MOST_BITS, max(12, int(np.ceil(np.log2(16 * len(asked))))))
        self._shift = np.uint64(64 - bits)
        self._may_be = np.zeros(1 << bits, bool)
        self._may_be[(asked >> self._shift).astype(np.int64)] = True

    def among(self, chunk: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Places in `asked` of the rows that are looked for, and those rows, both in the chunk's order."""
        places, hits = [], []
        for start in range(0, len(chunk), _SCANNED):
            part = chunk[start : start + _SCANNED]
            ids = np.ascontiguousarray(part["request"])
            near = np.flatnonzero(self._may_be[(ids >> self._shift).astype(np.int64)])
            place = np.minimum(np.searchsorted(self._asked, ids[near]), len(self._asked) - 1)
            is_hit = self._asked[place] == ids[near]
            places.append(place[is_hit])
            hits.append(part[near[is_hit]])
        return np.concatenate(places), np.concatenate(hits)
