"""Near-duplicate texts, found in time that grows with their number, not with its square.

Two texts are near duplicates when the sets of their character 4-grams, lower-cased and with
white space collapsed, have a Jaccard similarity (shared over all) of at least 0.8. Pairs are
proposed by MinHash signatures in bands (locality-sensitive hashing) and then checked exactly.

Source: Broder 1997, "On the resemblance and containment of documents"; Leskovec, Rajaraman
and Ullman, "Mining of Massive Datasets", 3.4: a pair of similarity s is proposed with
probability 1 - (1 - s^5)^20, 0.9996 at s = 0.8.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

SIMILARITY = 0.8
GRAM = 4
_BANDS, _ROWS = 20, 5
_MAX_CHARACTERS = 2000
"""A longer text is judged by its beginning."""
_NEIGHBORS = 12
"""Texts of one bucket that each is compared with: bounds the work on thousands of like texts."""
_CHUNK = 1 << 16


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two near-duplicate texts, by their positions."""

    first: int
    second: int
    similarity: float
    """Exact Jaccard similarity of their 4-gram sets."""


def near_duplicates(texts: Sequence[str], *, similarity: float = SIMILARITY) -> list[Pair]:
    """Pairs of texts at least this similar, by position.

    Args:
        texts: Already lower-cased and with white space collapsed; all different.
        similarity: Least Jaccard similarity, in (0.5, 1]; lower ones are not reliably proposed.
    """
    if len(texts) < 2:
        return []
    grams, offsets = _grams(texts)
    signatures = _signatures(grams, offsets)
    first, second = _proposed(signatures)
    # 100 hashes estimate s with a standard error of 0.04 at 0.8: four of them are let pass.
    agreement = np.concatenate(
        [
            (signatures[first[i : i + _CHUNK]] == signatures[second[i : i + _CHUNK]]).mean(axis=1)
            for i in range(0, len(first), _CHUNK)
        ]
        or [np.empty(0)]
    )
    likely = agreement >= similarity - 0.16
    ends = np.append(offsets[1:], len(grams))
    sets: dict[int, set[int]] = {}
    for row in np.union1d(first[likely], second[likely]).tolist():
        sets[row] = set(grams[offsets[row] : ends[row]].tolist())
    pairs = []
    for a, b in zip(first[likely].tolist(), second[likely].tolist(), strict=True):
        shared = len(sets[a] & sets[b])
        exact = shared / (len(sets[a]) + len(sets[b]) - shared)
        if exact >= similarity:
            pairs.append(Pair(first=a, second=b, similarity=exact))
    return pairs


def _grams(texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Hashes of all 4-grams, shape (n_grams,), uint32, and where each text's begin, shape (n_texts,)."""
    padded = [f" {text[:_MAX_CHARACTERS]} ".ljust(GRAM) for text in texts]
    codes = np.frombuffer("".join(padded).encode("utf-32-le", "surrogatepass"), np.uint32).astype(np.uint64)
    lengths = np.array([len(text) for text in padded])
    hashed = np.zeros(len(codes) - GRAM + 1, np.uint64)
    for place in range(GRAM):
        hashed = hashed * np.uint64(0x9E3779B97F4A7C15) + codes[place : place + len(hashed)]
    hashed ^= hashed >> np.uint64(29)
    hashed *= np.uint64(0xBF58476D1CE4E5B9)
    starts = np.cumsum(lengths) - lengths
    whole = np.ones(len(codes), bool)  # false where a gram would run over the end of its text
    for place in range(1, GRAM):
        whole[starts + lengths - place] = False
    counts = lengths - GRAM + 1
    return (hashed >> np.uint64(32)).astype(np.uint32)[whole[: len(hashed)]], np.cumsum(counts) - counts


def _signatures(grams: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """MinHash signatures, shape (n_texts, 100), uint32."""
    rng = np.random.default_rng(0)
    masks = rng.integers(0, 2**32, _BANDS * _ROWS, dtype=np.uint32)
    factors = rng.integers(0, 2**32, _BANDS * _ROWS, dtype=np.uint32) | np.uint32(1)
    ends = np.append(offsets[1:], len(grams))
    found = np.empty((len(offsets), len(masks)), np.uint32)
    begin = 0
    while begin < len(offsets):
        # Chunks that stay in the cache are twice as fast as one pass over all grams.
        end = max(begin + 1, int(np.searchsorted(ends, offsets[begin] + _CHUNK, side="right")))
        block = grams[offsets[begin] : ends[end - 1]]
        local = offsets[begin:end] - offsets[begin]
        for k, (mask, factor) in enumerate(zip(masks, factors, strict=True)):
            found[begin:end, k] = np.minimum.reduceat((block ^ mask) * factor, local)
        begin = end
    return found


def _proposed(signatures: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pairs (first < second) that agree in all five hashes of at least one band."""
    n_texts = len(signatures)
    rng = np.random.default_rng(1)
    codes = []
    for band in range(_BANDS):
        rows = signatures[:, band * _ROWS : (band + 1) * _ROWS].astype(np.uint64)
        keys = (rows * (rng.integers(1, 2**63, _ROWS, dtype=np.uint64) | np.uint64(1))).sum(axis=1)
        order = np.argsort(keys, kind="stable")
        ordered = keys[order]
        for lag in range(1, min(_NEIGHBORS, n_texts - 1) + 1):
            same = np.flatnonzero(ordered[lag:] == ordered[:-lag])
            if not len(same):
                break
            codes.append(order[same] * n_texts + order[same + lag])
    if not codes:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    unique = np.unique(np.concatenate(codes))
    return unique // n_texts, unique % n_texts
