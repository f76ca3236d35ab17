"""Texts in, vectors out: a table of token vectors, or an encoder whose token states are pooled."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from jettison.backends.onnx import MODEL, open_session, read_inputs
from jettison.backends.tensors import map_tensors
from jettison.backends.text import length_sorted_batches, load_tokenizer, truncation_side
from jettison.backends.words import without_surrogates
from jettison.candidate import MANIFEST, Candidate
from jettison.errors import BrokenArtifact, InvalidInput

WEIGHTS = "model.safetensors"
TABLES = ("embeddings", "tokens", "embedding.weight")
"""Arrays that are a table of token vectors by themselves: of model2vec, and of our static students."""
_BATCH = 32


class Embedder(Protocol):
    """Gives each text a vector; texts alike in meaning get vectors of a like direction."""

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """Vectors of length 1 (0 for a text without a token), shape (n_texts, width), float32."""


def open_embedder(folder: Path, settings: Mapping[str, Any] | None = None) -> Embedder:
    """Open a folder as an embedder: a static table or student, an ONNX graph, or an encoder (torch).

    Args:
        folder: Holds `tokenizer.json` with `model.onnx` or `model.safetensors`.
        settings: `pooling` (`mean`), `max_tokens` (512), `pad_id` (0) and `threads` (1) of an encoder;
            None takes those of `candidate.json`, where there is one.

    Raises:
        InvalidInput: There is no `tokenizer.json` with weights.
        BrokenArtifact: The files do not fit.
        MissingExtra: An encoder needs the extra `torch`, a graph the extra `onnx`.
    """
    check_embedder(folder)
    if settings is None:
        settings = Candidate.at(folder).settings if (folder / MANIFEST).is_file() else {}
    if (folder / MODEL).is_file():
        return OnnxEmbedder(folder, settings)
    tensors = map_tensors(folder / WEIGHTS)
    if (name := table_name(tensors)) is not None:
        return StaticEmbedder(folder, tensors[name], tensors.get(f"{name}_scale"))
    return EncoderEmbedder(folder, settings)


def check_embedder(folder: Path, *, what: str = "an embedder") -> None:
    """Refuse a folder that lacks an embedder's files, without opening them.

    Args:
        folder: Where they should be.
        what: Who names it, for the message.

    Raises:
        InvalidInput: There is no `tokenizer.json` with weights.
    """
    has_weights = (folder / MODEL).is_file() or (folder / WEIGHTS).is_file()
    if not has_weights or not (folder / "tokenizer.json").is_file():
        raise InvalidInput(
            f"{what} must be a folder with tokenizer.json and model.safetensors or model.onnx, "
            f"got {folder}."
        )


def table_name(tensors: Mapping[str, Any]) -> str | None:
    """The tensor that is a table of token vectors by itself; None where there is none."""
    return next((name for name in TABLES if name in tensors), None)


class StaticEmbedder:
    """The mean of the token vectors, less the mean of the table, which all texts share."""

    def __init__(self, folder: Path, table: np.ndarray, scale: np.ndarray | None) -> None:
        self._tokenizer = load_tokenizer(folder / "tokenizer.json")
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        if table.ndim != 2 or self._tokenizer.get_vocab_size() > len(table):
            raise BrokenArtifact(
                f"{folder / WEIGHTS} must hold one vector for each of the "
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


class _TokenEmbedder:
    """What embedders that read token ids share: batches of like length, padded, put back in order."""

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        self._tokenizer = load_tokenizer(folder / "tokenizer.json")
        self._tokenizer.enable_truncation(
            max_length=int(settings.get("max_tokens", 512)), direction=truncation_side(settings)
        )
        self._tokenizer.no_padding()
        self._pad_id = int(settings.get("pad_id", 0))

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """Shape (n_texts, width)."""
        if not texts:
            return np.zeros((0, 0), np.float32)
        whole = [without_surrogates(text) for text in texts]
        rows = [one.ids for one in self._tokenizer.encode_batch(whole)]
        parts, places = [], []
        for batch in length_sorted_batches([len(row) for row in rows], _BATCH):
            width = max(1, *(len(rows[i]) for i in batch), 1)
            ids = np.full((len(batch), width), self._pad_id, np.int64)
            mask = np.zeros((len(batch), width), np.int64)
            mask[:, 0] = 1
            for place, i in enumerate(batch):
                ids[place, : len(rows[i])] = rows[i]
                mask[place, : len(rows[i])] = 1
            parts.append(self._vectors(ids, mask))
            places.append(batch)
        found = np.concatenate(parts)
        return unit_rows(found[np.argsort(np.concatenate(places), kind="stable")])

    def _vectors(self, ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """Vectors, shape (n, width), of ids and mask, both shape (n, n_tokens), int64."""
        raise NotImplementedError


class EncoderEmbedder(_TokenEmbedder):
    """An encoder in torch: the mean of its last token states, or the first of them (`pooling` `cls`)."""

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        from jettison.backends.hf import load_pretrained

        super().__init__(folder, settings)
        self._pooling = str(settings.get("pooling", "mean"))
        self._threads = settings.get("threads")
        self._model = load_pretrained(folder, "AutoModel").eval()

    def _vectors(self, ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        import torch

        if self._threads is not None and torch.get_num_threads() != int(self._threads):
            torch.set_num_threads(int(self._threads))
        given = {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(mask)}
        with torch.inference_mode():
            states = self._model(**given).last_hidden_state.float()
        if self._pooling == "cls":
            return np.asarray(states[:, 0].numpy())
        weights = given["attention_mask"][:, :, None].float()
        return np.asarray(((states * weights).sum(1) / weights.sum(1).clamp(min=1)).numpy())


class OnnxEmbedder(_TokenEmbedder):
    """A graph from token ids to one vector a text, in ONNX Runtime."""

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        super().__init__(folder, settings)
        path = folder / MODEL
        self._session: Any = open_session(path, threads=int(settings.get("threads", 1)))
        self._types = read_inputs(self._session, path)
        output = self._session.get_outputs()[0]
        if len(output.shape) != 2:
            raise BrokenArtifact(
                f"{path} must give one vector a text, shape (n, width), got {output.shape}. Export the "
                "encoder with its pooling, as step `quantize_embedder` does."
            )
        self._output = [output.name]

    def _vectors(self, ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        given = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        feed: dict[str, Any] = {
            name: given[name].astype(kind, copy=False) for name, kind in self._types.items()
        }
        return np.asarray(self._session.run(self._output, feed)[0], np.float32)


def unit_rows(rows: np.ndarray) -> np.ndarray:
    """Rows scaled to length 1; a row of zeros stays."""
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.where(lengths > 0, lengths, 1), np.float32)
