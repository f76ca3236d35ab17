"""Slices that every task has without asking: short and long, rare and common, dense and sparse inputs."""

from collections import Counter
from collections.abc import Sequence

import msgspec
import numpy as np
from scipy.sparse import csr_matrix

from jettison.errors import NotEnoughData
from jettison.task import Development, Example

LENGTH, CLASS_FREQUENCY, DENSITY = "length", "class_frequency", "density"
N_FEATURES = 2**15
GRAM = 4
"""Characters a gram."""
N_NEIGHBOURS = 3
MOST_REFERENCES = 4000
"""Train examples an input is compared with; more cost time and say little more."""
LOW_DENSITY_SHARE = 0.2
"""Share of dev that is called low density."""


class Slicer:
    """Adds the slices `length`, `class_frequency` and `density`, with limits fixed on train and dev.

    `length`: short, medium or long, by the terciles of characters in train.
    `class_frequency`: rare or common; a class with less than half the train examples of
    the average class is rare, as is one that train lacks. The only slice that looks at
    the expected label; an example without one does not get it.
    `density`: low or high; low is an input further from its nearest train examples
    (cosine of hashed character 4-grams, TF-IDF) than four fifths of dev are.
    A slice that the data already brings under one of these names is kept. Where there is no train,
    unlabelled texts stand in for it, and dev for its labels.
    """

    def __init__(
        self,
        *,
        length_limits: tuple[float, float],
        rare: frozenset[str],
        known: frozenset[str],
        idf: np.ndarray,
        reference: csr_matrix,
        density_limit: float,
    ) -> None:
        self._length_limits = length_limits
        self._rare = rare
        self._known = known
        self._idf = idf
        self._reference = reference
        self._density_limit = density_limit

    @classmethod
    def fit(cls, development: Development, *, seed: int = 0) -> "Slicer":
        """Fix the limits.

        Raises:
            NotEnoughData: There are no examples at all.
        """
        dev = development.dev
        seen = development.train or development.unlabelled or dev
        if not seen:
            raise NotEnoughData("slices need examples to tell rare from common, got none.")
        lengths = np.array([len(example.input) for example in seen])
        labelled = development.train if any(e.expected is not None for e in development.train) else dev
        counts = Counter(example.expected for example in labelled if example.expected is not None)
        texts = [example.input for example in seen]
        if len(texts) > MOST_REFERENCES:
            chosen = np.random.default_rng(seed).choice(len(texts), MOST_REFERENCES, replace=False)
            texts = [texts[i] for i in sorted(chosen)]
        grams = _gram_counts(texts)
        seen_in = np.bincount(grams.indices, minlength=N_FEATURES)
        idf = np.log((1 + len(texts)) / (1 + seen_in)) + 1
        reference = _weighted(grams, idf)
        # Without dev, or without anything else, texts are measured against each other, not themselves.
        near = (
            _nearness(_weighted(_gram_counts([e.input for e in dev]), idf), reference)
            if dev and seen is not dev
            else _nearness(reference, reference, skip_best=True)
        )
        return cls(
            length_limits=(float(np.quantile(lengths, 1 / 3)), float(np.quantile(lengths, 2 / 3))),
            rare=_rare_classes(counts),
            known=frozenset(counts),
            idf=idf,
            reference=reference,
            density_limit=float(np.quantile(near, LOW_DENSITY_SHARE)),
        )

    def apply(self, examples: Sequence[Example]) -> tuple[Example, ...]:
        """The examples with their slices added, in order."""
        if not examples:
            return ()
        weighted = _weighted(_gram_counts([example.input for example in examples]), self._idf)
        low = _nearness(weighted, self._reference) < self._density_limit
        return tuple(
            msgspec.structs.replace(
                example,
                slices={
                    LENGTH: self._length(example.input),
                    **self._class_frequency(example.expected),
                    DENSITY: "low" if is_low else "high",
                    **example.slices,
                },
            )
            for example, is_low in zip(examples, low.tolist(), strict=True)
        )

    def _length(self, text: str) -> str:
        short, long = self._length_limits
        return "short" if len(text) <= short else "medium" if len(text) <= long else "long"

    def _class_frequency(self, label: str | None) -> dict[str, str]:
        if label is None:
            return {}
        common = label in self._known and label not in self._rare
        return {CLASS_FREQUENCY: "common" if common else "rare"}


def _rare_classes(counts: Counter[str]) -> frozenset[str]:
    """Classes with less than half the examples of the average class."""
    average = sum(counts.values()) / max(1, len(counts))
    return frozenset(label for label, count in counts.items() if count < average / 2)


def _gram_counts(texts: Sequence[str]) -> csr_matrix:
    """Hashed character 4-grams of each text, counted, shape (n_texts, N_FEATURES)."""
    codes = [np.frombuffer(f" {text.lower()} ".encode("utf-32-le"), np.uint32) for text in texts]
    columns, rows = [], []
    for row, text_codes in enumerate(codes):
        padded = np.pad(text_codes, (0, max(0, GRAM - len(text_codes)))).astype(np.uint64)
        n = len(padded) - GRAM + 1
        hashed = np.zeros(n, np.uint64)
        for offset in range(GRAM):
            hashed = (hashed ^ padded[offset : offset + n]) * np.uint64(0x9E3779B97F4A7C15)
        columns.append((hashed >> np.uint64(49)).astype(np.int32))
        rows.append(np.full(n, row, np.int32))
    if not columns:
        return csr_matrix((0, N_FEATURES), dtype=np.float32)
    column, row_of = np.concatenate(columns), np.concatenate(rows)
    ones = np.ones(len(column), np.float32)
    counted = csr_matrix((ones, (row_of, column)), shape=(len(texts), N_FEATURES))
    counted.sum_duplicates()
    return counted


def _weighted(grams: csr_matrix, idf: np.ndarray) -> csr_matrix:
    """Unit-length TF-IDF rows with dampened counts."""
    weighted = grams.copy()
    weighted.data = (1 + np.log(weighted.data)) * idf[weighted.indices].astype(np.float32)
    norms = np.sqrt(np.asarray(weighted.multiply(weighted).sum(axis=1)).ravel())
    weighted.data /= np.repeat(np.where(norms > 0, norms, 1), np.diff(weighted.indptr)).astype(np.float32)
    return weighted


def _nearness(rows: csr_matrix, reference: csr_matrix, *, skip_best: bool = False) -> np.ndarray:
    """Mean cosine with the nearest reference rows, shape (n_rows,)."""
    n_reference = reference.shape[0]
    wanted = min(N_NEIGHBOURS + skip_best, n_reference)
    transposed = reference.T.tocsr()
    found = np.empty(rows.shape[0])
    for start in range(0, rows.shape[0], 512):
        cosines = (rows[start : start + 512] @ transposed).toarray()
        best = np.sort(np.partition(cosines, n_reference - wanted, axis=1)[:, -wanted:], axis=1)
        kept = best[:, :-1] if skip_best and wanted > 1 else best
        found[start : start + 512] = kept.mean(axis=1)
    return found
