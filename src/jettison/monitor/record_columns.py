"""Records by columns: NumPy arrays of what a reader needs, from a segment or from records in memory."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from jettison.monitor.hashed import hash_texts
from jettison.record import Record, records_table

TEXTS = (
    *("experiment", "arm", "role", "candidate", "route", "output"),
    *("error", "slices", "scores", "guardrails"),
)
"""Columns of few different texts, which are read as codes into a dictionary."""


class RecordColumns:
    """Some columns of consecutive records.

    Args:
        table: Of Arrow, with the columns of `records_table`; one that is not there is all null.
    """

    def __init__(self, table: Any) -> None:
        self._table = table
        self._names = set(table.schema.names)
        self._hashes: dict[str, np.ndarray] = {}

    @classmethod
    def of(cls, records: Sequence[Record]) -> "RecordColumns":
        """Of records in memory."""
        return cls(records_table(records))

    def __len__(self) -> int:
        return int(self._table.num_rows)

    def floats(self, name: str) -> np.ndarray:
        """Numbers, shape (n,), NaN where there is none."""
        column = self._column(name)
        if column is None:
            return np.full(len(self), np.nan)
        return np.asarray(column.to_numpy(zero_copy_only=False), float)

    def flags(self, name: str) -> np.ndarray:
        """Yes or no, shape (n,); null is no."""
        column = self._column(name)
        if column is None:
            return np.zeros(len(self), bool)
        if column.null_count:
            column = column.fill_null(False)
        return np.asarray(column.to_numpy(zero_copy_only=False), bool)

    def is_null(self, name: str) -> np.ndarray:
        """Where a column holds nothing, shape (n,)."""
        column = self._column(name)
        if column is None:
            return np.ones(len(self), bool)
        if not column.null_count:
            return np.zeros(len(self), bool)
        return np.asarray(column.is_null().to_numpy(zero_copy_only=False))

    def codes(self, name: str) -> tuple[np.ndarray, list[str]]:
        """Texts as places in a list of different ones, shape (n,); the last place stands for null."""
        column = self._column(name)
        if column is None:
            return np.zeros(len(self), np.int64), []
        if not hasattr(column, "dictionary"):
            column = column.dictionary_encode()
        words = column.dictionary.to_pylist()
        places = column.indices
        if places.null_count:
            places = places.fill_null(len(words))
        return np.asarray(places.to_numpy(zero_copy_only=False)), words

    def is_one_of(self, name: str, *texts: str | None) -> np.ndarray:
        """Where a column holds one of these texts; None stands for null."""
        places, words = self.codes(name)
        wanted = np.array([word in texts for word in words] + [None in texts])
        return np.asarray(wanted[places])

    def texts(self, name: str, places: Sequence[int]) -> list[str]:
        """Texts of some records, in the order of the places; none of them may be null."""
        column = self._column(name)
        if column is None or not len(places):
            return []
        return list(column.take(np.asarray(places, np.int64)).to_pylist())

    def hashes(self, name: str) -> np.ndarray:
        """Hashes of texts, shape (n,), uint64; 0 where there is none. Made once."""
        if name not in self._hashes:
            self._hashes[name] = self._hashed(name)
        return self._hashes[name]

    def _hashed(self, name: str) -> np.ndarray:
        column = self._column(name)
        if column is None:
            return np.zeros(len(self), np.uint64)
        if hasattr(column, "dictionary"):
            of_words = np.append(hash_texts(column.dictionary), np.uint64(0))
            places, _ = self.codes(name)
            return np.asarray(of_words[places])
        return hash_texts(column)

    def _column(self, name: str) -> Any:
        if name not in self._names:
            return None
        column = self._table.column(name)
        if hasattr(column, "combine_chunks"):
            column = column.combine_chunks()
        return column
