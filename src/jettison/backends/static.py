"""A text classifier without a transformer: token vectors, a convolution folded into tables, two layers.

A convolution over token vectors is a sum of one product per token and offset. Those products
depend on nothing but the token, so each token's are computed once, when it is first seen, and
a text costs a few additions and two small matrix products. NumPy alone; safe in threads.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from jettison.backends.blas import limit_blas_threads
from jettison.backends.linear import NgramLogits
from jettison.backends.tensors import map_tensors
from jettison.backends.text import TextClassifier, load_tokenizer
from jettison.backends.words import WordIds
from jettison.candidate import Candidate
from jettison.errors import BrokenArtifact

WEIGHTS = "model.safetensors"
NGRAMS = "ngrams.safetensors"
EPSILON = 1e-5
"""Added to the variance of the pooled features, as torch's LayerNorm does."""
_MOST_SHORT = 64
"""Tokens of a text that counts as short."""
_MOST_TEXTS = 1024
"""Whose pooled features are held at once."""
_MOST_TOKENS = 1024
"""Of the texts pooled together: their rows should stay in the cache."""


class StaticClassifier(TextClassifier):
    """The student of `distill_static`.

    Settings: `max_tokens` (inputs are truncated to it), `threads` (of NumPy, for the whole
    process).

    Arrays of `model.safetensors`: `tokens` (n_tokens, d), float32, float16, or int8 with
    `tokens_scale` (n_tokens,); `conv` (width, d, channels) and `conv_bias` (channels,); `first`
    (2 d + 2 channels, hidden + n_skip) and `first_bias`; `second` (hidden, n_labels) and
    `second_bias`. The first `hidden` columns go through the perceptron; `n_skip`, 0 or n_labels,
    are logits already.

    Where there is `ngrams.safetensors`, the logits of that linear model (see `NgramLogits`, setting
    `characters`) are added: what words say by themselves beside what they say in their order.
    """

    def __init__(self, candidate: Candidate) -> None:
        super().__init__(candidate)
        self._max_tokens = int(candidate.settings.get("max_tokens", 128))
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
        # Copies: products read them through and through, and the file may lie on a slow disk.
        names = ("conv_bias", "first", "first_bias", "second", "second_bias")
        self._conv_bias, self._first, self._first_bias, self._second, self._second_bias = (
            np.array(weights[name]) for name in names
        )
        # One text's product reads each column as a whole: laid out so, it takes 0.8 of the time.
        self._first, self._second = (np.asfortranarray(w) for w in (self._first, self._second))
        self._width, self._d, self._channels = weights["conv"].shape
        self._zeros = np.zeros((_MOST_SHORT + self._width, self._channels), np.float32)
        path = candidate.path / NGRAMS
        characters = candidate.settings.get("characters", (3, 5))
        self._ngrams = NgramLogits(path, len(self.labels), characters) if path.exists() else None

    def logits(self, inputs: Sequence[str]) -> np.ndarray:
        """Raw scores, shape (n_inputs, n_labels), float32."""
        found = self._static_logits(inputs)
        if self._ngrams is not None and len(inputs):
            found += self._ngrams(inputs)
        return found

    def _static_logits(self, inputs: Sequence[str]) -> np.ndarray:
        texts = [self._words(text, self._max_tokens) or [self._folded.blank] for text in inputs]
        if len(texts) == 1:
            return self._head_of_one(self._pool_one(texts[0]))[None]
        found = np.empty((len(texts), len(self.labels)), np.float32)
        for first in range(0, len(texts), _MOST_TEXTS):
            part = texts[first : first + _MOST_TEXTS]
            pooled = np.empty((len(part), len(self._first)), np.float32)
            for rows in _of_equal_length([len(ids) for ids in part]):
                pooled[rows] = self._pool([part[row] for row in rows])
            found[first : first + _MOST_TEXTS] = self._head(pooled)
        return found

    def _pool(self, texts: list[list[int]]) -> np.ndarray:
        """Sums and maxima of the token vectors and windows of texts of equal length, at least one token.

        Shape (n_texts, 2 d + 2 channels): sums of vectors, of windows, maxima of both.
        """
        n, d, channels, width = len(texts[0]), self._d, self._channels, self._width
        rows = self._folded.table.take(texts, 0)
        vectors = rows[:, :, :d]
        windows = np.empty((len(texts), n + width - 1, channels), np.float32)
        windows[:] = self._conv_bias
        for offset in range(width):
            start = d + offset * channels
            windows[:, offset : offset + n] += rows[:, :, start : start + channels]
        np.maximum(windows, 0.0, out=windows)
        pooled = np.empty((len(texts), 2 * (d + channels)), np.float32)
        sums, maxima = pooled[:, : d + channels], pooled[:, d + channels :]
        np.add.reduce(vectors, 1, out=sums[:, :d])
        np.add.reduce(windows, 1, out=sums[:, d:])
        sums *= n**-0.5
        np.maximum.reduce(vectors, 1, out=maxima[:, :d])
        np.maximum.reduce(windows, 1, out=maxima[:, d:])
        return pooled

    def _pool_one(self, ids: list[int]) -> np.ndarray:
        """The same of one text, shape (2 d + 2 channels,), without the axis that costs it time."""
        n, d, channels = len(ids), self._d, self._channels
        rows = self._folded.table.take(ids, 0)
        vectors = rows[:, :d]
        windows = np.empty((n + self._width - 1, channels), np.float32)
        windows[:] = self._conv_bias
        for offset in range(self._width):
            start = d + offset * channels
            part = windows[offset : offset + n]
            np.add(part, rows[:, start : start + channels], part)
        # Against an array of zeros it is three times as fast as against the number.
        np.maximum(windows, self._zeros[: len(windows)] if n < _MOST_SHORT else 0.0, out=windows)
        pooled = np.empty(2 * (d + channels), np.float32)
        np.add.reduce(vectors, 0, out=pooled[:d])
        np.add.reduce(windows, 0, out=pooled[d : d + channels])
        pooled[: d + channels] *= n**-0.5
        np.maximum.reduce(vectors, 0, out=pooled[d + channels : d + channels + d])
        np.maximum.reduce(windows, 0, out=pooled[d + channels + d :])
        return pooled

    def _head_of_one(self, pooled: np.ndarray) -> np.ndarray:
        """The same of one text, shape (n_labels,)."""
        hidden = len(self._second)
        layer = pooled.dot(self._first)
        layer *= _over_deviation_of_one(pooled)
        layer += self._first_bias
        inner = layer[:hidden]
        np.maximum(inner, 0.0, out=inner)
        logits: np.ndarray = inner.dot(self._second)
        logits += self._second_bias
        if len(layer) > hidden:
            logits += layer[hidden:]
        return logits

    def _head(self, pooled: np.ndarray) -> np.ndarray:
        """Logits, shape (n_texts, n_labels): layer norm, perceptron, and the linear layer beside it."""
        hidden = len(self._second)
        # The columns of `first` have mean zero, so that the features' mean needs no subtraction.
        layer = pooled @ self._first
        layer *= _over_deviation(pooled)
        layer += self._first_bias
        inner = layer[:, :hidden]
        np.maximum(inner, 0.0, out=inner)
        logits: np.ndarray = inner @ self._second
        logits += self._second_bias
        if layer.shape[1] > hidden:
            logits += layer[:, hidden:]
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
        d = vectors.shape[1]
        for row, vector in zip(new, vectors, strict=True):
            self.table[row, :d] = vector
            np.dot(vector, self._conv, self.table[row, d:])
        for token in new:
            ready[token] = 1


def open_static(candidate: Candidate) -> StaticClassifier:
    """Open a static candidate."""
    return StaticClassifier(candidate)


def _over_deviation(rows: np.ndarray) -> np.ndarray:
    """One over the standard deviation of each row, shape (n, 1)."""
    n = rows.shape[1]
    means = np.add.reduce(rows, 1) / n
    variances = np.einsum("ij,ij->i", rows, rows) / n - means * means
    found: np.ndarray = ((variances + EPSILON) ** -0.5)[:, None]
    return found


def _over_deviation_of_one(row: np.ndarray) -> float:
    """The same of one row: in Python's numbers, which is faster."""
    mean = np.add.reduce(row).item() / len(row)
    return float((row.dot(row).item() / len(row) - mean * mean + EPSILON) ** -0.5)


def _of_equal_length(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Row numbers of texts of one length each, in parts of not too many tokens."""
    by_length: dict[int, list[int]] = {}
    for row, length in enumerate(lengths):
        by_length.setdefault(length, []).append(row)
    for length, rows in by_length.items():
        size = max(1, _MOST_TOKENS // length)
        for first in range(0, len(rows), size):
            yield rows[first : first + size]


def _read_weights(path: Path, n_labels: int) -> dict[str, np.ndarray]:
    """The arrays of a static student, their shapes checked against each other.

    Raises:
        BrokenArtifact: One is missing or of another shape.
    """
    names = ("tokens", "conv", "conv_bias", "first", "first_bias", "second", "second_bias")
    found = map_tensors(path, *names)
    width, d, channels = found["conv"].shape if found["conv"].ndim == 3 else (0, 0, 0)
    hidden = len(found["second"])
    skip = n_labels if found["first_bias"].shape == (hidden + n_labels,) else 0
    wanted = {
        "tokens": (len(found["tokens"]), d),
        "conv": (max(width, 1), d, channels),
        "conv_bias": (channels,),
        "first": (2 * (d + channels), hidden + skip),
        "first_bias": (hidden + skip,),
        "second": (hidden, n_labels),
        "second_bias": (n_labels,),
    }
    if found["tokens"].dtype == np.int8:
        wanted["tokens_scale"] = (len(found["tokens"]),)
    for name, shape in wanted.items():
        got = found[name].shape if name in found else None
        if got != shape:
            raise BrokenArtifact(f"{name} in {path} must have shape {shape}, got {got}.")
    return found
