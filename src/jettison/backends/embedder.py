"""Texts in, vectors out: a table of token vectors, or an encoder whose token states are averaged."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from jettison.backends.tensors import map_tensors
from jettison.backends.text import load_tokenizer, without_surrogates
from jettison.errors import BrokenArtifact, InvalidInput

TABLES = ("embeddings", "tokens", "embedding.weight")
"""Arrays that are a table of token vectors by themselves: of model2vec, and of our static students."""
_BATCH = 32


class Embedder(Protocol):
    """Gives each text a vector; texts alike in meaning get vectors of a like direction."""

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """Vectors of length 1 (0 for a text without a token), shape (n_texts, width), float32."""


def open_embedder(folder: Path) -> Embedder:
    """Open a folder as an embedder: a static table or student, or a checkpoint of an encoder (torch).

    Raises:
        InvalidInput: There is no `tokenizer.json` with a `model.safetensors`.
        BrokenArtifact: The files do not fit.
        MissingExtra: An encoder needs the extra `torch`.
    """
    weights = folder / "model.safetensors"
    if not weights.is_file() or not (folder / "tokenizer.json").is_file():
        raise InvalidInput(
            f"an embedder must be a folder with tokenizer.json and model.safetensors, got {folder}."
        )
    tensors = map_tensors(weights)
    name = next((name for name in TABLES if name in tensors), None)
    if name is not None:
        return StaticEmbedder(folder, tensors[name], tensors.get(f"{name}_scale"))
    return EncoderEmbedder(folder)


class StaticEmbedder:
    """The mean of the token vectors, less the mean of the table, which all texts share."""

    def __init__(self, folder: Path, table: np.ndarray, scale: np.ndarray | None) -> None:
        self._tokenizer = load_tokenizer(folder / "tokenizer.json")
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        if table.ndim != 2 or self._tokenizer.get_vocab_size() > len(table):
            raise BrokenArtifact(
                f"{folder / 'model.safetensors'} must hold one vector for each of the "
                f"{self._tokenizer.get_vocab_size()} tokens of tokenizer.json, got shape {table.shape}."
            )
        self._table = table.astype(np.float32)
        if scale is not None:
            self._table *= scale[:, None]
        self._table -= self._table.mean(axis=0)

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """Shape (n_texts, width)."""
        found = np.zeros((len(texts), self._table.shape[1]), np.float32)
        whole = [without_surrogates(text) for text in texts]
        encoded = self._tokenizer.encode_batch(whole, add_special_tokens=False)
        for row, encoding in enumerate(encoded):
            if encoding.ids:
                found[row] = self._table[encoding.ids].mean(axis=0)
        return unit_rows(found)


class EncoderEmbedder:
    """The mean of an encoder's last token states, of 512 tokens at most."""

    def __init__(self, folder: Path) -> None:
        from jettison.backends.hf import load_pretrained

        self._tokenizer = load_tokenizer(folder / "tokenizer.json")
        self._tokenizer.enable_truncation(max_length=512)
        self._tokenizer.enable_padding()
        self._model = load_pretrained(folder, "AutoModel").eval()

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """Shape (n_texts, width)."""
        import torch

        found = []
        for start in range(0, len(texts), _BATCH):
            part = [without_surrogates(text) for text in texts[start : start + _BATCH]]
            encoded = self._tokenizer.encode_batch(part)
            ids = torch.tensor([one.ids for one in encoded])
            mask = torch.tensor([one.attention_mask for one in encoded])
            with torch.inference_mode():
                states = self._model(input_ids=ids, attention_mask=mask).last_hidden_state.float()
            weights = mask[:, :, None].float()
            found.append(((states * weights).sum(1) / weights.sum(1).clamp(min=1)).numpy())
        return unit_rows(np.concatenate(found)) if found else np.zeros((0, 0), np.float32)


def unit_rows(rows: np.ndarray) -> np.ndarray:
    """Rows scaled to length 1; a row of zeros stays."""
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.where(lengths > 0, lengths, 1), np.float32)
