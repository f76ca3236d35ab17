"""64-bit hashes of texts, a column at a time, and a set of them that grows without Python objects.

What was seen is remembered by its hash: eight bytes and a place in a table each, where a set of
integers takes about ninety. Two of fifty million texts share a hash with probability 7e-5.
"""

import hashlib
from typing import Any

import numpy as np

_M = np.uint64(0xC6A4A7935BD1E995)
_R = np.uint64(47)
LONGEST = 128
"""Bytes of a text hashed with others of its length; longer ones go through BLAKE2 one by one."""
FULL = 0.6
_FEWEST_SLOTS = 1024


def hash_texts(texts: Any) -> np.ndarray:
    """Hash each text of an Arrow string array, shape (n,), uint64, never 0; 0 where it is null.

    The hash of a text hangs on nothing but the text, in every process and version.

    Source:
        MurmurHash64A (Appleby 2008), seed 0, on UTF-8 padded with zeros to eight bytes.
    """
    n = len(texts)
    _, offsets, data = texts.buffers()
    bounds = np.frombuffer(offsets, np.int32, n + 1, texts.offset * 4).astype(np.int64)
    raw = np.frombuffer(data, np.uint8) if data is not None else np.zeros(0, np.uint8)
    lengths = bounds[1:] - bounds[:-1]
    found = np.empty(n, np.uint64)
    for length in np.unique(lengths):
        same = np.flatnonzero(lengths == length)
        starts = bounds[:-1][same]
        if length > LONGEST:
            found[same] = [_blake2(raw[start : start + length].tobytes()) for start in starts]
        elif len(same) == n:
            found = _murmur(raw[bounds[0] : bounds[-1]].reshape(n, length))
        else:
            found[same] = _murmur(raw[starts[:, None] + np.arange(length)])
    found[found == 0] = 1
    if texts.null_count:
        found[texts.is_null().to_numpy(zero_copy_only=False)] = 0
    return found


def _murmur(rows: np.ndarray) -> np.ndarray:
    """Of rows of bytes, all of one length, shape (n, length)."""
    n, length = rows.shape
    whole, rest = divmod(length, 8)
    padded = np.zeros((n, max(8, 8 * (whole + (rest > 0)))), np.uint8)
    padded[:, :length] = rows
    words = padded.view("<u8")
    found = np.full(n, length * int(_M) % 2**64, np.uint64)
    for place in range(whole):
        word = words[:, place] * _M
        word = (word ^ (word >> _R)) * _M
        found = (found ^ word) * _M
    if rest:
        found = (found ^ words[:, whole]) * _M
    found = (found ^ (found >> _R)) * _M
    return np.asarray(found ^ (found >> _R))


def _blake2(raw: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(raw, digest_size=8).digest(), "little")


def mixed(hashes: np.ndarray) -> np.ndarray:
    """Other hashes of the same texts, so that a text of one kind never meets the same of another."""
    found = (hashes ^ np.uint64(0x9E3779B97F4A7C15)) * _M
    found = (found ^ (found >> _R)) * _M
    return np.where(found == 0, np.uint64(1), found)


class HashSet:
    """Hashes seen so far, in a table with open addressing: 9 to 27 bytes each."""

    def __init__(self) -> None:
        self.n = 0
        self._table = np.zeros(_FEWEST_SLOTS, np.uint64)

    def reserve(self, n: int) -> None:
        """Make room for so many at once, where nothing is known yet; pages never touched cost nothing."""
        slots = len(self._table)
        while n > FULL * slots:
            slots *= 2
        if not self.n and slots > len(self._table):
            self._table = np.zeros(slots, np.uint64)

    def add(self, hashes: np.ndarray) -> np.ndarray:
        """Take hashes in, shape (n,), none of them 0; which of them are new, the first of equal ones."""
        distinct, first = np.unique(hashes, return_index=True)
        slots = len(self._table)
        while self.n + len(distinct) > FULL * slots:
            slots *= 2
        if slots > len(self._table):
            self._grow(slots)
        is_first = np.zeros(len(hashes), bool)
        is_new = self._put(distinct)
        is_first[first[is_new]] = True
        self.n += int(is_new.sum())
        return is_first

    def _put(self, distinct: np.ndarray) -> np.ndarray:
        """Which of different hashes were not there."""
        table = self._table
        is_new = np.zeros(len(distinct), bool)
        todo, wanted = np.arange(len(distinct)), distinct
        # The high bits, so that sorted hashes go through the table from one end to the other.
        slots = (distinct >> np.uint64(65 - len(table).bit_length())).astype(np.int64)
        while len(todo):
            there = table[slots]
            is_free = there == 0
            table[slots[is_free]] = wanted[is_free]
            has_won = is_free & (table[slots] == wanted)  # of those that want one slot, one gets it
            is_new[todo[has_won]] = True
            rest = ~(has_won | (there == wanted))
            todo, wanted, slots = todo[rest], wanted[rest], (slots[rest] + 1) & (len(table) - 1)
        return is_new

    def _grow(self, slots: int) -> None:
        old, self._table = self._table, np.zeros(slots, np.uint64)
        for start in range(0, len(old), 1 << 20):
            part = old[start : start + (1 << 20)]
            self._put(part[part != 0])
