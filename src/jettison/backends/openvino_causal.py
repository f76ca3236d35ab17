"""Language models in OpenVINO: a graph from tokens, keys and values to more; one request at a time."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jettison.backends.language_tokens import load_language_tokenizer
from jettison.backends.one_sequence import OneSequence, log_softmax
from jettison.backends.onnx import read_threads
from jettison.backends.openvino import compile_graph
from jettison.backends.prompted import PromptedModel, open_prompted
from jettison.candidate import Candidate
from jettison.errors import BrokenArtifact
from jettison.files import read_json

MODEL = "model.xml"


def open_openvino_causal(candidate: Candidate) -> PromptedModel:
    """Open a folder of `quantize_openvino_language` behind the candidate's prompt.

    Raises:
        MissingExtra: openvino or transformers is not installed.
        BrokenArtifact: The model does not load.
    """
    return open_prompted(OpenVinoCausalEngine(candidate), candidate)


class OpenVinoCausalEngine(OneSequence):
    """A causal model in OpenVINO, in float32 where its weights are not rounded.

    Settings: `threads` (1), `max_context` (tokens; the model's own limit), `add_bos` (as the tokenizer
    does by itself). Answers are not held to a schema; labels and choices are weighed by their likelihood.
    """

    def __init__(self, candidate: Candidate) -> None:
        path = candidate.path / MODEL
        if not path.is_file():
            raise BrokenArtifact(f"{candidate.path} must hold {MODEL}, got none.")
        settings = candidate.settings
        config: dict[str, Any] = read_json(candidate.path / "config.json", dict[str, Any])
        limit = int(config.get("max_position_embeddings") or config.get("n_positions") or 2048)
        super().__init__(
            load_language_tokenizer(candidate),
            add_bos=settings.get("add_bos"),
            max_context=min(int(settings.get("max_context", limit)), limit),
            ends=_ends(candidate.path, config),
        )
        self._compiled: Any = compile_graph(path, precision="f32", threads=read_threads(candidate))
        self._empty = _no_past(self._compiled, path)
        self._past = self._empty
        self._request: Any = self._compiled.create_infer_request()

    def close(self) -> None:
        """Drop the weights and what was kept."""
        self._request = self._compiled = None
        self._past, self._held = self._empty, []

    def _extended(self, n_shared: int, ids: Sequence[int]) -> np.ndarray:
        past = [np.ascontiguousarray(one[:, :, :n_shared]) for one in self._past]
        logits, self._past = self._read(past, ids)
        return np.asarray(logits[-1], np.float64)

    def _whole(self, ids: Sequence[int]) -> np.ndarray:
        if not ids:
            return np.zeros((0, 0), np.float32)
        logits, _ = self._read(self._empty, ids)
        return np.asarray(log_softmax(logits[:-1].astype(np.float64)), np.float32)

    def _read(self, past: Sequence[np.ndarray], ids: Sequence[int]) -> tuple[np.ndarray, list[np.ndarray]]:
        """Logits after each token, shape (n_tokens, n_vocabulary), and keys and values with theirs."""
        if self._request is None:
            raise BrokenArtifact("a closed engine answers nothing.")
        feed = [np.array([list(ids)], np.int64), *past]
        found = self._request.infer(feed, share_inputs=True, share_outputs=False)
        logits, *kept = (found[i] for i in range(len(found)))
        return logits[0], kept


def _no_past(compiled: Any, path: Path) -> list[np.ndarray]:
    """Empty keys and values for each input after the first, shape (1, n_heads, 0, width)."""
    found = []
    for port in compiled.inputs[1:]:
        shape = port.partial_shape
        if shape.rank.is_dynamic or len(shape) != 4 or shape[1].is_dynamic or shape[3].is_dynamic:
            raise BrokenArtifact(
                f"{path} must read tokens, then keys and values, shape (1, n_heads, n_tokens, width), got "
                f"an input of shape {shape}. Make it by step `quantize_openvino_language`."
            )
        found.append(np.zeros((1, shape[1].get_length(), 0, shape[3].get_length()), np.float32))
    if len(found) + 1 != len(compiled.outputs):
        raise BrokenArtifact(
            f"{path} must give logits and what it read of keys and values, got other outputs."
        )
    return found


def _ends(folder: Path, config: dict[str, Any]) -> list[int]:
    """Tokens that end an answer, as the checkpoint says."""
    path = folder / "generation_config.json"
    said = read_json(path, dict[str, Any]) if path.is_file() else {}
    ends = said.get("eos_token_id", config.get("eos_token_id"))
    return [] if ends is None else ends if isinstance(ends, list) else [ends]
