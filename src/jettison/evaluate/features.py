"""Texts as numbers without a model: hashed character 4-grams, TF-IDF, and how near the nearest are."""

from collections.abc import Sequence

import numpy as np
from scipy.sparse import csr_matrix

N_FEATURES = 2**15
GRAM = 4
"""Characters a gram."""
N_NEIGHBOURS = 3
_BLOCK = 2048
"""Texts hashed at a time."""


class TextFeatures:
    """TF-IDF of hashed character 4-grams, fixed on the texts it was made of."""

    def __init__(self, texts: Sequence[str]) -> None:
        grams = gram_counts(texts)
        self.idf = np.log((1 + len(texts)) / (1 + np.bincount(grams.indices, minlength=N_FEATURES))) + 1
        self.rows = weighted(grams, self.idf)
        """Unit rows of the texts themselves, shape (n_texts, N_FEATURES)."""

    def of(self, texts: Sequence[str]) -> csr_matrix:
        """Unit rows of other texts, shape (n_texts, N_FEATURES)."""
        return weighted(gram_counts(texts), self.idf)


def gram_counts(texts: Sequence[str]) -> csr_matrix:
    """Hashed character 4-grams of each text, counted, shape (n_texts, N_FEATURES)."""
    columns, rows = [], []
    for start in range(0, len(texts), _BLOCK):
        # Together, not text by text: a window that begins in the last characters of one is left out.
        padded = [f" {text.lower()} ".ljust(GRAM, "\0") for text in texts[start : start + _BLOCK]]
        codes = np.frombuffer("".join(padded).encode("utf-32-le"), np.uint32).astype(np.uint64)
        lengths = np.array([len(text) for text in padded])
        n = len(codes) - GRAM + 1
        hashed = np.zeros(n, np.uint64)
        for offset in range(GRAM):
            hashed = (hashed ^ codes[offset : offset + n]) * np.uint64(0x9E3779B97F4A7C15)
        row = np.repeat(np.arange(len(padded), dtype=np.int32), lengths)
        left = np.repeat(np.cumsum(lengths), lengths) - np.arange(len(codes))
        whole = np.flatnonzero(left >= GRAM)
        columns.append((hashed[whole] >> np.uint64(49)).astype(np.int32))
        rows.append(row[whole] + np.int32(start))
    if not columns:
        return csr_matrix((0, N_FEATURES), dtype=np.float32)
    column, row_of = np.concatenate(columns), np.concatenate(rows)
    ones = np.ones(len(column), np.float32)
    counted = csr_matrix((ones, (row_of, column)), shape=(len(texts), N_FEATURES))
    counted.sum_duplicates()
    return counted


def weighted(grams: csr_matrix, idf: np.ndarray) -> csr_matrix:
    """Unit-length TF-IDF rows with dampened counts."""
    found = grams.copy()
    found.data = (1 + np.log(found.data)) * idf[found.indices].astype(np.float32)
    norms = np.sqrt(np.asarray(found.multiply(found).sum(axis=1)).ravel())
    found.data /= np.repeat(np.where(norms > 0, norms, 1), np.diff(found.indptr)).astype(np.float32)
    return found


def nearness(
    rows: csr_matrix | np.ndarray, reference: csr_matrix | np.ndarray, *, skip_best: bool = False
) -> np.ndarray:
    """Mean cosine with the nearest reference rows, shape (n_rows,); of unit rows, sparse or dense."""
    n_reference = reference.shape[0]
    wanted = min(N_NEIGHBOURS + skip_best, n_reference)
    transposed = reference.T if isinstance(reference, np.ndarray) else reference.T.tocsr()
    found = np.empty(rows.shape[0])
    for start in range(0, rows.shape[0], 512):
        cosines = rows[start : start + 512] @ transposed
        if not isinstance(cosines, np.ndarray):
            cosines = cosines.toarray()
        best = np.sort(np.partition(cosines, n_reference - wanted, axis=1)[:, -wanted:], axis=1)
        kept = best[:, :-1] if skip_best and wanted > 1 else best
        found[start : start + 512] = kept.mean(axis=1)
    return found
