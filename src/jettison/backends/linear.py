"""A linear text classifier over hashed words, word pairs and character n-grams.

The characters' share of a word depends on the word alone, so that it is added up when the
word is first seen: a text then costs one row per word and one per known pair. NumPy alone;
safe in threads.
"""

import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from jettison.backends.ngrams import MOST_WORDS, character_keys, pair_key, pair_tail, split_words, word_key
from jettison.backends.tensors import map_tensors
from jettison.backends.text import TextClassifier
from jettison.candidate import Candidate
from jettison.errors import BrokenArtifact

WEIGHTS = "model.safetensors"
_CAPACITY = 65_536
_BATCH = 256


class LinearClassifier(TextClassifier):
    """The student of `distill_linear`.

    Settings: `characters`, the shortest and longest run of characters read, [3, 5].
    `model.safetensors` holds the arrays of `NgramLogits`.
    """

    def __init__(self, candidate: Candidate) -> None:
        super().__init__(candidate)
        characters = candidate.settings.get("characters", (3, 5))
        self._ngrams = NgramLogits(candidate.path / WEIGHTS, len(self.labels), characters)

    def logits(self, inputs: Sequence[str]) -> np.ndarray:
        """Raw scores, shape (n_inputs, n_labels), float32."""
        return self._ngrams(inputs)


class NgramLogits:
    """Logits of a linear model: the sum of a text's rows over the root of its mass, plus the bias.

    Args:
        path: safetensors with `keys` (n_features,), uint32, ascending; `rows` (n_features,
            n_labels), float32, float16, or int8 with `rows_scale` (n_features,); `mass`
            (n_features,), float32; `bias` (n_labels,).
        n_labels: Of the candidate.
        characters: Shortest and longest run of characters read.

    Raises:
        BrokenArtifact: An array is missing or of another shape.
    """

    def __init__(self, path: Path, n_labels: int, characters: Sequence[int]) -> None:
        shortest, longest = (int(size) for size in characters)
        self._features = _Features(path, n_labels, shortest, longest)
        self._seen = _SeenRows(self._features)
        self._lock = threading.Lock()
        self._bias = np.array(self._features.bias)

    def __call__(self, inputs: Sequence[str]) -> np.ndarray:
        """Logits of texts, shape (n_inputs, n_labels), float32."""
        if len(inputs) == 1:
            table, slots = self._look_up(inputs[0])
            total = np.add.reduce(table.take(slots, 0), 0)
            one: np.ndarray = total[:-1] * (total[-1] or 1.0) ** -0.5 + self._bias
            return one[None, :]
        found = np.empty((len(inputs), len(self._bias)), np.float32)
        for first in range(0, len(inputs), _BATCH):
            found[first : first + _BATCH] = self._many(inputs[first : first + _BATCH])
        return found

    def _many(self, inputs: Sequence[str]) -> np.ndarray:
        looked_up = [self._look_up(text) for text in inputs]
        starts = np.cumsum([0, *(len(slots) for _, slots in looked_up[:-1])])
        # One table for all texts, unless it was started afresh between two of them.
        tables = {id(table): table for table, _ in looked_up}
        if len(tables) == 1:
            rows = looked_up[0][0].take([slot for _, slots in looked_up for slot in slots], 0)
        else:
            rows = np.concatenate([table.take(slots, 0) for table, slots in looked_up])
        total = np.add.reduceat(rows, starts, axis=0)
        mass = total[:, -1:]
        logits: np.ndarray = total[:, :-1] * np.where(mass > 0, mass, 1.0) ** -0.5 + self._bias
        return logits

    def _look_up(self, text: str) -> tuple[np.ndarray, list[int]]:
        """The table of rows and the numbers of those that add up to the text."""
        with self._lock:
            if not self._seen.has_room():
                self._seen = _SeenRows(self._features)
            return self._seen.table, self._seen.slots(text)


class _Features:
    """The trained rows as they lie on disk, found by key."""

    def __init__(self, path: Path, n_labels: int, shortest: int, longest: int) -> None:
        found = map_tensors(path, "keys", "rows", "mass", "bias")
        n = len(found["keys"])
        wanted = {"keys": (n,), "rows": (n, n_labels), "mass": (n,), "bias": (n_labels,)}
        if found["rows"].dtype == np.int8:
            wanted["rows_scale"] = (n,)
        for name, shape in wanted.items():
            got = found[name].shape if name in found else None
            if got != shape:
                raise BrokenArtifact(f"{name} in {path} must have shape {shape}, got {got}.")
        self.bias, self.n_labels = found["bias"], n_labels
        self.row_of = dict(zip(found["keys"].tolist(), range(n), strict=True))
        self._rows, self._scale, self._mass = found["rows"], found.get("rows_scale"), found["mass"]
        self._shortest, self._longest = shortest, longest

    def sum_into(self, target: np.ndarray, rows: list[int]) -> None:
        """Write the sum of trained rows and, last, of their masses; target's shape is (n_labels + 1,)."""
        picked = self._rows.take(rows, 0).astype(np.float32, copy=False)
        if self._scale is None:
            np.add.reduce(picked, 0, out=target[:-1])
        else:
            np.dot(self._scale.take(rows), picked, target[:-1])
        target[-1] = np.add.reduce(self._mass.take(rows))

    def word_rows(self, word: str, key: int) -> list[int]:
        """Trained rows of a word and of its characters."""
        keys = (key, *character_keys(word, self._shortest, self._longest))
        return [self.row_of[key] for key in keys if key in self.row_of]


class _SeenRows:
    """One row for each word and pair met so far; row 0 is zero, for what training never saw."""

    def __init__(self, features: _Features) -> None:
        self._features = features
        # Reserved, and taken up only where rows are written.
        n_rows = 1 + _CAPACITY + MOST_WORDS + len(features.row_of)
        self.table = np.zeros((n_rows, features.n_labels + 1), np.float32)
        self._words: dict[str, tuple[int, int, bytes]] = {}
        self._pairs: dict[int, int] = {}
        self._n_used = 1

    def has_room(self) -> bool:
        """Whether the words of one more text fit, however new they are."""
        return len(self._words) < _CAPACITY

    def slots(self, text: str) -> list[int]:
        """Rows of `table` that add up to the text, at least one."""
        words, pairs, row_of = self._words, self._pairs, self._features.row_of
        found, before = [0], -1
        for word in split_words(text):
            slot, key, tail = words.get(word) or self._learn(word)
            found.append(slot)
            if before >= 0:
                pair = pair_key(before, tail)
                known = pairs.get(pair)
                if known is not None:
                    found.append(known)
                elif pair in row_of:
                    found.append(self._learn_pair(pair))
            before = key
        return found

    def _learn(self, word: str) -> tuple[int, int, bytes]:
        key = word_key(word)
        rows = self._features.word_rows(word, key)
        entry = self._words[word] = (self._place(rows) if rows else 0, key, pair_tail(word))
        return entry

    def _learn_pair(self, pair: int) -> int:
        slot = self._pairs[pair] = self._place([self._features.row_of[pair]])
        return slot

    def _place(self, rows: list[int]) -> int:
        slot = self._n_used
        self._features.sum_into(self.table[slot], rows)
        self._n_used += 1
        return slot


def open_linear(candidate: Candidate) -> LinearClassifier:
    """Open a linear candidate."""
    return LinearClassifier(candidate)
