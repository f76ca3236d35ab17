"""What every text classifier shares: tokenize, sort by length, pad, run, decode, restore the order."""

import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jettison.backends.words import FramedIds
from jettison.candidate import Candidate
from jettison.errors import BrokenArtifact
from jettison.model import Decoder, Output

# tokenizers spawns its own threads otherwise, which `threads` could not rein in.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

MOST_TOKENS = 16_384
"""Tokens of a batch with its padding: what a layer gives of so many fits in tens of MB."""


class TextClassifier(ABC):
    """A model whose answers are logits over the candidate's labels."""

    def __init__(self, candidate: Candidate) -> None:
        self.candidate = candidate
        self.labels = candidate.labels
        self._decoder = Decoder(candidate.labels, candidate.out_of_scope, candidate.calibration)

    def predict(self, inputs: Sequence[str]) -> list[Output]:
        """One output per input, in the inputs' order."""
        return self._decoder.outputs(self.logits(inputs)) if len(inputs) else []

    @abstractmethod
    def logits(self, inputs: Sequence[str]) -> np.ndarray:
        """Raw scores of the labels, shape (n_inputs, n_labels), float32, in the inputs' order."""

    def close(self) -> None:
        """Nothing to give back, unless a backend says otherwise."""


class TokenClassifier(TextClassifier):
    """A text classifier that reads token ids: a transformer in some runtime.

    Settings it reads from the candidate: `max_tokens` (inputs are truncated to it,
    on the side that `truncation_side` says, `right` unless it is `left`), `batch_size`, `pad_to_multiple`.
    """

    def __init__(self, candidate: Candidate) -> None:
        super().__init__(candidate)
        self._max_tokens = int(candidate.settings.get("max_tokens", 512))
        tokenizer = load_tokenizer(candidate.path / "tokenizer.json")
        self._ids = FramedIds(tokenizer, self._max_tokens, side=truncation_side(candidate.settings))
        self._batch_size = int(candidate.settings.get("batch_size", 32))
        self._pad_to = int(candidate.settings.get("pad_to_multiple", 1))
        self._pad_id = int(candidate.settings.get("pad_id", 0))

    def logits(self, inputs: Sequence[str]) -> np.ndarray:
        """Length-sorted batches with dynamic padding, put back in the inputs' order."""
        if len(inputs) == 1:
            alone = np.array([self._ids(inputs[0]) or [self._pad_id]], np.int64)
            return self._run(alone, np.ones(alone.shape, np.int64))
        encoded = self._ids.of_many(inputs)
        found = np.empty((len(encoded), len(self.labels)), np.float32)
        for rows in length_sorted_batches([len(ids) for ids in encoded], self._batch_size):
            batch = [encoded[row] for row in rows]
            ids = self._padded(batch)
            # An input without a single token is given one, as it is when it comes alone.
            mask = np.arange(ids.shape[1])[None, :] < np.array([max(1, len(b)) for b in batch])[:, None]
            found[rows] = self._run(ids, mask.astype(np.int64))
        return found

    @abstractmethod
    def _run(self, ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """Logits, shape (n, n_labels), of token ids and mask, both shape (n, n_tokens), int64."""

    def _padded(self, batch: list[list[int]]) -> np.ndarray:
        width = max(1, max(len(ids) for ids in batch))
        if len(batch) > 1:
            width = -(-width // self._pad_to) * self._pad_to
        ids = np.full((len(batch), width), self._pad_id, np.int64)
        for row, tokens in enumerate(batch):
            ids[row, : len(tokens)] = tokens
        return ids


def truncation_side(settings: Mapping[str, Any]) -> str:
    """The side on which a candidate's long texts are cut, by its settings: `right` or `left`."""
    return "left" if settings.get("truncation_side") == "left" else "right"


def length_sorted_batches(
    lengths: Sequence[int], batch_size: int, most_tokens: int = MOST_TOKENS
) -> Iterator[np.ndarray]:
    """Row indices of batches of like length, longest last, so that little is padded.

    Args:
        lengths: Tokens of each row.
        batch_size: Rows of a batch, at most.
        most_tokens: Tokens of a batch with its padding, at most, where it has more than one row.
    """
    order = np.argsort(np.asarray(lengths), kind="stable")
    start = 0
    for end in range(1, len(order) + 1):
        if (
            end == len(order)
            or end - start == batch_size
            or (end - start + 1) * lengths[order[end]] > most_tokens
        ):
            yield order[start:end]
            start = end


def load_tokenizer(path: Path) -> Any:
    """Open a `tokenizer.json`.

    Raises:
        BrokenArtifact: It is missing or does not parse.
    """
    from tokenizers import Tokenizer

    if not path.is_file():
        raise BrokenArtifact(
            f"{path} must be there: jettison tokenizes by `tokenizers` alone. "
            "Save the fast tokenizer with the model (`save_pretrained`)."
        )
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises bare Exception
        raise BrokenArtifact(f"{path} must be a tokenizers file: {error}.") from error
