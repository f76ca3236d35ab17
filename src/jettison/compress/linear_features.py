"""Counts the features of the linear student over its texts, as sparse matrices."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
from scipy import sparse

from jettison.backends.ngrams import character_keys, pair_key, pair_tail, split_words, word_key


class Features(msgspec.Struct, frozen=True, kw_only=True):
    """Which features count, how much, and the texts in terms of them."""

    keys: np.ndarray
    """Shape (n_features,), int64."""
    idf: np.ndarray
    """Inverse document frequency among the known texts, shape (n_features,)."""
    matrix: Any
    """CSR, shape (n_texts, n_features): count times idf over the root of the text's mass."""
    characters: tuple[int, int]

    def transform(self, texts: Sequence[str]) -> Any:
        """Other texts as rows of such a matrix."""
        column = {key: index for index, key in enumerate(self.keys.tolist())}
        return _weighted(_count(_text_keys(texts, self.characters), column), self.idf)


def count_features(
    texts: Sequence[str],
    n_known: int,
    *,
    characters: tuple[int, int],
    min_count: int,
    max_features: int,
) -> Features:
    """Choose features on the known texts, the first `n_known`, and weigh all texts by them.

    A word counts from one known text on; a pair or a run of characters from `min_count`.
    """
    listed = _text_keys(texts, characters)
    document_count = Counter[int]()
    words = set[int]()
    for text, text_keys in zip(texts[:n_known], listed, strict=False):
        document_count.update(set(text_keys))
        words.update(word_key(word) for word in split_words(text))
    counted = [(count, key) for key, count in document_count.items() if count >= min_count or key in words]
    counted.sort(key=lambda pair: (-pair[0], pair[1]))
    kept = counted[:max_features]
    keys = np.array([key for _, key in kept], np.int64)
    count = np.array([count for count, _ in kept], float)
    idf = np.log((1 + n_known) / (1 + count)) + 1
    column = {key: index for index, key in enumerate(keys.tolist())}
    return Features(
        keys=keys, idf=idf, matrix=_weighted(_count(listed, column), idf), characters=characters
    )


def _text_keys(texts: Sequence[str], characters: tuple[int, int]) -> list[list[int]]:
    """Keys of all features of each text, repetitions included, as the backend reads them."""
    known: dict[str, tuple[int, bytes, list[int]]] = {}
    found = []
    for text in texts:
        keys: list[int] = []
        before = -1
        for word in split_words(text):
            if word not in known:
                key = word_key(word)
                known[word] = (key, pair_tail(word), [key, *character_keys(word, *characters)])
            key, tail, own = known[word]
            keys += own
            if before >= 0:
                keys.append(pair_key(before, tail))
            before = key
        found.append(keys)
    return found


def _count(listed: list[list[int]], column: dict[int, int]) -> Any:
    """Counts, CSR of shape (n_texts, n_features)."""
    columns = [[column[key] for key in keys if key in column] for keys in listed]
    ends = np.cumsum([0, *(len(own) for own in columns)])
    indices = np.fromiter((index for own in columns for index in own), np.int64, int(ends[-1]))
    return sparse.csr_matrix(
        (np.ones(len(indices), np.float32), indices, ends), shape=(len(listed), len(column))
    )


def _weighted(counts: Any, idf: np.ndarray) -> Any:
    """Counts times idf, each row over the root of its mass (sum of idf squared over occurrences)."""
    mass = counts @ np.square(idf)
    scale = np.where(mass > 0, mass, 1.0) ** -0.5
    weighted = sparse.diags(scale) @ counts @ sparse.diags(idf)
    found = weighted.tocsr().astype(np.float32)
    found.sum_duplicates()
    return found
