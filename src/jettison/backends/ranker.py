"""Ranks by an embedder: the choices of a query, or a corpus whose vectors are kept with the candidate."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from jettison.backends.embedder import Embedder, open_embedder
from jettison.backends.tensors import map_tensors
from jettison.candidate import Candidate
from jettison.errors import BrokenArtifact
from jettison.files import read_json, write_json
from jettison.model import Output, mapped_confidence, softmax
from jettison.task import Input, Question

IDS, VECTORS = "corpus.json", "corpus.safetensors"
TEMPERATURE = 0.05
"""Of cosines, before their softmax: the customary one in training. Calibration does the rest."""
MOST_KEPT = 100_000
"""Choices whose vectors are remembered."""


class Index(msgspec.Struct, frozen=True, kw_only=True):
    """A corpus as a candidate has it."""

    ids: tuple[str, ...]
    vectors: np.ndarray
    """Of length 1, shape (n_passages, width), float32."""


def open_ranker(candidate: Candidate) -> "EmbeddingRanker":
    """Open an embedder as a model of tasks that rank.

    Raises:
        InvalidInput: The folder holds no embedder.
        BrokenArtifact: Its files do not fit.
        MissingExtra: torch or onnxruntime is not installed.
    """
    return EmbeddingRanker(candidate)


class EmbeddingRanker:
    """Orders what is nearest to the query in an embedding, by cosine.

    Settings: `kind` (of the task: `rank`, `choose` or `embed`), `query_prefix` and `passage_prefix` (put
    before texts, as some embedders are trained), `depth` (passages that an answer to `embed` names, 100),
    and those of `jettison.backends.embedder.open_embedder`.

    A choice is embedded when it is first seen, and remembered; the corpus of `embed` was embedded when the
    candidate was made. So a request costs its query.
    """

    def __init__(self, candidate: Candidate) -> None:
        settings = candidate.settings
        self.labels = candidate.labels
        self._settings = settings
        self._kind = str(settings.get("kind", "rank"))
        self._before = {role: str(settings.get(f"{role}_prefix", "")) for role in ("query", "passage")}
        self._depth = int(settings.get("depth", 100))
        self._embedder: Any = open_embedder(candidate.path, settings)
        self._index = read_index(candidate.path) if self._kind == "embed" else None
        self._seen: dict[str, np.ndarray] = {}

    def predict(self, inputs: Sequence[Input]) -> list[Output]:
        """One output per input, in the inputs' order."""
        if not inputs:
            return []
        texts = [asked.text if isinstance(asked, Question) else asked for asked in inputs]
        queries = self._embedder.embed([f"{self._before['query']}{text}" for text in texts])
        if self._index is not None:
            return [self._found(row @ self._index.vectors.T, self._index.ids) for row in queries]
        self._remember(inputs)
        return [self._ordered(asked, row) for asked, row in zip(inputs, queries, strict=True)]

    @property
    def embedder(self) -> Embedder:
        """What turns texts into vectors; it puts no prefix before them."""
        found: Embedder = self._embedder
        return found

    def close(self) -> None:
        """Drop the weights and what was remembered."""
        self._embedder = None
        self._seen.clear()

    def _remember(self, inputs: Sequence[Input]) -> None:
        asked = [choice for one in inputs if isinstance(one, Question) for choice in one.choices]
        new = [choice for choice in dict.fromkeys(asked) if choice not in self._seen]
        if not new:
            return
        if len(self._seen) + len(new) > MOST_KEPT:
            self._seen.clear()
            new = list(dict.fromkeys(asked))
        vectors = self._embedder.embed([f"{self._before['passage']}{text}" for text in new])
        self._seen.update(zip(new, vectors, strict=True))

    def _ordered(self, asked: Input, query: np.ndarray) -> Output:
        if not isinstance(asked, Question) or not asked.choices:
            return Output(label="", confidence=0.0, error="the query has no choices to rank")
        cosines = np.stack([self._seen[choice] for choice in asked.choices]) @ query
        order = np.argsort(-cosines, kind="stable").tolist()
        label = asked.choices[order[0]] if self._kind == "choose" else json.dumps(order)
        return Output(label=label, confidence=self._sureness(cosines), logits=cosines.astype(np.float32))

    def _found(self, cosines: np.ndarray, ids: Sequence[str]) -> Output:
        order = np.argsort(-cosines, kind="stable")[: self._depth].tolist()
        label = json.dumps([ids[i] for i in order], ensure_ascii=False)
        return Output(label=label, confidence=self._sureness(cosines))

    def _sureness(self, cosines: np.ndarray) -> float:
        """Share of the nearest among all, as calibrated on dev."""
        share = float(softmax(cosines[None, :], TEMPERATURE).max())
        return mapped_confidence(share, self._settings)


def write_index(folder: Path, ids: Sequence[str], vectors: np.ndarray) -> None:
    """Keep a corpus beside an embedder: ids, and vectors of shape (n_passages, width)."""
    from safetensors.numpy import save_file

    write_json(folder / IDS, list(ids))
    save_file({"vectors": np.ascontiguousarray(vectors, np.float32)}, folder / VECTORS)


def read_index(folder: Path) -> Index:
    """The corpus beside an embedder.

    Raises:
        BrokenArtifact: It is missing, or ids and vectors do not fit.
    """
    if not (folder / IDS).is_file() or not (folder / VECTORS).is_file():
        raise BrokenArtifact(f"{folder} must hold {IDS} and {VECTORS} for a task of kind 'embed'.")
    ids = tuple(read_json(folder / IDS, list[str]))
    vectors = map_tensors(folder / VECTORS, "vectors")["vectors"]
    if vectors.ndim != 2 or len(vectors) != len(ids):
        raise BrokenArtifact(
            f"{folder / VECTORS} must hold one vector for each of {len(ids)} passages, got {vectors.shape}."
        )
    return Index(ids=ids, vectors=np.asarray(vectors, np.float32))
