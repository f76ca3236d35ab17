"""Language models in ONNX Runtime's generative runtime: int4 and int8 weights, one request at a time."""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from jettison.backends.language_tokens import load_language_tokenizer
from jettison.backends.one_sequence import OneSequence, log_softmax
from jettison.backends.prompted import PromptedModel, open_prompted
from jettison.candidate import Candidate
from jettison.errors import BrokenArtifact
from jettison.files import read_json
from jettison.registry import need

CONFIG = "genai_config.json"


def open_onnx_genai(candidate: Candidate) -> PromptedModel:
    """Open a folder of `quantize_genai` behind the candidate's prompt.

    Raises:
        MissingExtra: onnxruntime-genai or transformers is not installed.
        BrokenArtifact: The model does not load.
    """
    return open_prompted(GenaiEngine(candidate), candidate)


class GenaiEngine(OneSequence):
    """An `onnxruntime_genai.Model`.

    Settings: `threads` (1), `max_context` (tokens; the model's own limit), `add_bos` (as the
    tokenizer does by itself). Answers
    are not held to a schema; labels and choices are weighed by their likelihood.
    """

    def __init__(self, candidate: Candidate) -> None:
        self._genai = need("onnxruntime_genai", "genai")
        self._genai.disable_telemetry_events()
        settings = candidate.settings
        self._folder = candidate.path
        self._threads = int(settings.get("threads", 1))
        stored: dict[str, Any] = read_json(candidate.path / CONFIG, dict[str, Any])
        try:
            limit = int(stored["model"]["context_length"])
            ends = stored["model"]["eos_token_id"]
            self._model: Any = self._genai.Model(self._config())
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise BrokenArtifact(
                f"{candidate.path} must hold a model that onnxruntime-genai loads, got "
                f"{type(error).__name__}: {reason}"
            ) from error
        super().__init__(
            load_language_tokenizer(candidate),
            add_bos=settings.get("add_bos"),
            max_context=min(int(settings.get("max_context", limit)), limit),
            ends=ends if isinstance(ends, list) else [ends],
        )
        self._generator: Any = None
        self._session: Any = None

    def close(self) -> None:
        """Drop the weights."""
        self._generator = self._model = self._session = None
        self._held = []

    def _config(self) -> Any:
        config = self._genai.Config(str(self._folder))
        threads = {"intra_op_num_threads": self._threads, "inter_op_num_threads": 1}
        config.overlay(_session_overlay(threads))
        return config

    def _extended(self, n_shared: int, ids: Sequence[int]) -> np.ndarray:
        if self._generator is None:
            params = self._genai.GeneratorParams(self._model)
            params.set_search_options(max_length=self._max_context, do_sample=False)
            self._generator = self._genai.Generator(self._model, params)
        if n_shared < len(self._held):
            self._generator.rewind_to(n_shared)
        self._generator.append_tokens(np.array([list(ids)], np.int32))
        return np.asarray(self._generator.get_logits(), np.float64).reshape(-1)

    def _whole(self, ids: Sequence[int]) -> np.ndarray:
        # The generative runtime shows the last token's alone: the graph is run whole in plain ONNX Runtime.
        if self._session is None:
            onnxruntime = need("onnxruntime", "genai")
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = self._threads
            self._session = onnxruntime.InferenceSession(
                str(self._folder / "model.onnx"), options, providers=["CPUExecutionProvider"]
            )
        given: dict[str, Any] = {}
        for one in self._session.get_inputs():
            if one.name.startswith("past_key_values"):
                dtype = np.float16 if "float16" in one.type else np.float32
                given[one.name] = np.zeros((1, one.shape[1], 0, self._head_size()), dtype)
            elif one.name == "attention_mask":
                given[one.name] = np.ones((1, len(ids)), np.int64)
            elif one.name == "position_ids":
                given[one.name] = np.arange(len(ids), dtype=np.int64)[None, :]
            else:
                given[one.name] = np.array([list(ids)], np.int64)
        (logits,) = self._session.run(["logits"], given)
        return log_softmax(logits[0, :-1].astype(np.float64)).astype(np.float32)

    def _head_size(self) -> int:
        stored: dict[str, Any] = read_json(self._folder / CONFIG, dict[str, Any])
        return int(stored["model"]["decoder"]["head_size"])


def _session_overlay(options: dict[str, int]) -> str:
    return json.dumps({"model": {"decoder": {"session_options": options}}})
