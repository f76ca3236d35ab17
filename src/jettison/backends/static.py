"""A text classifier without a transformer: token vectors, a convolution folded into tables, two layers.

A convolution over token vectors is a sum of one product per token and offset. Those products
depend on nothing but the token, so each token's are computed once, when it is first seen, and
a text costs a few additions and two small matrix products. NumPy alone; safe in threads.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from jettison.backends.blas import limit_blas_threads
from jettison.backends.tensors import map_tensors
from jettison.backends.text import TextClassifier, length_sorted_batches, load_tokenizer
from jettison.backends.words import WordIds
from jettison.candidate import Candidate
from jettison.errors import BrokenArtifact

WEIGHTS = "model.safetensors"
EPSILON = 1e-5
"""Added to the variance of the pooled features, as torch's LayerNorm does."""


class StaticClassifier(TextClassifier):
    """The student of `distill_static`.

    Settings: `max_tokens` (inputs are truncated to it), `batch_size`, `threads` (of NumPy, for
    the whole process).

    Arrays of `model.safetensors`: `tokens` (n_tokens, d), float32, float16, or int8 with
    `tokens_scale` (n_tokens,); `conv` (width, d, channels) and `conv_bias` (channels,);
    `first` (2 d + 2 channels, hidden + n_labels) and `first_bias`; `second` (hidden, n_labels).
    """

    def __init__(self, candidate: Candidate) -> None:
        super().__init__(candidate)
        self._max_tokens = int(candidate.settings.get("max_tokens", 128))
        self._batch_size = int(candidate.settings.get("batch_size", 64))
        limit_blas_threads(int(candidate.settings.get("threads", 1)))
        tokenizer = load_tokenizer(candidate.path / "tokenizer.json")
        tokenizer.no_padding()
        tokenizer.no_truncation()
        weights = _read_weights(candidate.path / WEIGHTS, len(self.labels))
        if tokenizer.get_vocab_size() > len(weights["tokens"]):
            raise BrokenArtifact(
                f"{candidate.path / WEIGHTS} must hold one token vector for each of the "
                f"{tokenizer.get_vocab_size()} tokens of tokenizer.json, got {len(weights['tokens'])}."
            )
        self._folded = FoldedTokens(weights["tokens"], weights.get("tokens_scale"), weights["conv"])
        self._words = WordIds(tokenizer, on_new=self._folded.prepare)
        self._conv_bias = np.array(weights["conv_bias"])
        self._first = np.array(weights["first"])
        self._first_bias = np.array(weights["first_bias"])
        self._second = np.array(weights["second"])
        self._width, self._d, self._channels = weights["conv"].shape
        self._hidden = len(self._second)

    def logits(self, inputs: Sequence[str]) -> np.ndarray:
        """Raw scores, shape (n_inputs, n_labels); one text and many take two paths to the same row."""
        blank = self._folded.blank
        if len(inputs) == 1:
            ids = self._words(inputs[0], self._max_tokens) or [blank]
            return self._one(ids)[None, :]
        texts = [self._words(text, self._max_tokens) or [blank] for text in inputs]
        found = np.empty((len(texts), len(self.labels)), np.float32)
        for rows in length_sorted_batches([len(ids) for ids in texts], self._batch_size):
            found[rows] = self._many([texts[row] for row in rows])
        return found

    def _one(self, ids: list[int]) -> np.ndarray:
        """Logits of one text of at least one token, shape (n_labels,)."""
        n, d, channels, width = len(ids), self._d, self._channels, self._width
        rows = self._folded.table.take(ids, 0)
        vectors = rows[:, :d]
        windows = np.empty((n + width - 1, channels), np.float32)
        windows[:] = self._conv_bias
        for offset in range(width):
            start = d + offset * channels
            windows[offset : offset + n] += rows[:, start : start + channels]
        np.maximum(windows, 0.0, out=windows)

        pooled = np.empty(2 * (d + channels), np.float32)
        np.add.reduce(vectors, 0, out=pooled[:d])
        np.add.reduce(windows, 0, out=pooled[d : d + channels])
        pooled[: d + channels] *= n**-0.5
        np.maximum.reduce(vectors, 0, out=pooled[d + channels : 2 * d + channels])
        np.maximum.reduce(windows, 0, out=pooled[2 * d + channels :])

        mean = float(pooled.sum()) / len(pooled)
        variance = float(pooled.dot(pooled)) / len(pooled) - mean * mean
        layer = pooled @ self._first
        layer *= (variance + EPSILON) ** -0.5
        layer += self._first_bias
        hidden = layer[: self._hidden]
        np.maximum(hidden, 0.0, out=hidden)
        logits: np.ndarray = hidden @ self._second
        logits += layer[self._hidden :]
        return logits

    def _many(self, texts: list[list[int]]) -> np.ndarray:
        """Logits of several texts, shape (n_texts, n_labels): one row of tokens, gaps between the texts."""
        d, channels, width, blank = self._d, self._channels, self._width, self._folded.blank
        gap = [blank] * (width - 1)
        lengths = np.array([len(ids) for ids in texts])
        ends = np.cumsum(lengths + width - 1)
        starts = ends - lengths - width + 1
        rows = self._folded.table.take([token for ids in texts for token in (*ids, *gap)], 0)
        windows = np.empty((len(rows), channels), np.float32)
        windows[:] = self._conv_bias
        for offset in range(width):
            start = d + offset * channels
            windows[offset:] += rows[: len(rows) - offset, start : start + channels]
        np.maximum(windows, 0.0, out=windows)

        root = lengths[:, None].astype(np.float32) ** -0.5
        # Every second segment is a gap between texts, which a maximum must not see; the last text
        # has none behind it when the convolution is one token wide.
        bounds = np.stack([starts, starts + lengths], axis=1).ravel() if width > 1 else starts
        vectors = rows[:, :d]
        pooled = np.concatenate(
            [
                np.add.reduceat(vectors, starts, axis=0) * root,
                np.add.reduceat(windows, starts, axis=0) * root,
                np.maximum.reduceat(vectors, bounds, axis=0)[:: 2 if width > 1 else 1],
                np.maximum.reduceat(windows, starts, axis=0),
            ],
            axis=1,
        )
        mean = pooled.mean(axis=1, keepdims=True)
        variance = np.square(pooled).mean(axis=1, keepdims=True) - mean * mean
        layer = pooled @ self._first
        layer *= (variance + EPSILON) ** -0.5
        layer += self._first_bias
        hidden = np.maximum(layer[:, : self._hidden], 0.0)
        logits: np.ndarray = hidden @ self._second + layer[:, self._hidden :]
        return logits


class FoldedTokens:
    """Each token's vector beside its products with the convolution, computed when it is first seen.

    `table`, shape (n_tokens + 1, d + width * channels), float32, is reserved at once and takes up
    memory only where tokens have been prepared. The last row, `blank`, is zero: no token.
    """

    def __init__(self, tokens: np.ndarray, scale: np.ndarray | None, conv: np.ndarray) -> None:
        width, d, channels = conv.shape
        self.blank = len(tokens)
        self.table = np.zeros((len(tokens) + 1, d + width * channels), np.float32)
        self._tokens, self._scale = tokens, scale
        # (d, width * channels), so that one product gives a token's share at every offset.
        self._conv = np.ascontiguousarray(conv.transpose(1, 0, 2).reshape(d, width * channels))
        self._ready = bytearray(len(tokens))

    def prepare(self, ids: Sequence[int]) -> None:
        """Fill the rows of these tokens, if they are not filled yet."""
        ready = self._ready
        new = [token for token in dict.fromkeys(ids) if not ready[token]]
        if not new:
            return
        vectors = self._tokens[new].astype(np.float32)
        if self._scale is not None:
            vectors *= self._scale[new][:, None]
        self.table[new] = np.concatenate([vectors, vectors @ self._conv], axis=1)
        for token in new:
            ready[token] = 1


def open_static(candidate: Candidate) -> StaticClassifier:
    """Open a static candidate."""
    return StaticClassifier(candidate)


def _read_weights(path: Path, n_labels: int) -> dict[str, np.ndarray]:
    """The arrays of a static student, their shapes checked against each other.

    Raises:
        BrokenArtifact: One is missing or of another shape.
    """
    found = map_tensors(path, "tokens", "conv", "conv_bias", "first", "first_bias", "second")
    width, d, channels = found["conv"].shape if found["conv"].ndim == 3 else (0, 0, 0)
    hidden = len(found["second"])
    wanted = {
        "tokens": (len(found["tokens"]), d),
        "conv": (max(width, 1), d, channels),
        "conv_bias": (channels,),
        "first": (2 * (d + channels), hidden + n_labels),
        "first_bias": (hidden + n_labels,),
        "second": (hidden, n_labels),
    }
    if found["tokens"].dtype == np.int8:
        wanted["tokens_scale"] = (len(found["tokens"]),)
    for name, shape in wanted.items():
        got = found[name].shape if name in found else None
        if got != shape:
            raise BrokenArtifact(f"{name} in {path} must have shape {shape}, got {got}.")
    return found
