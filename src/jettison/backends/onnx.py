"""The ONNX Runtime backend: `model.onnx` on the CPU."""

import contextlib
from pathlib import Path
from typing import Any

import numpy as np

from jettison.backends.text import TokenClassifier
from jettison.candidate import Candidate
from jettison.errors import BrokenArtifact, InvalidInput
from jettison.registry import need

MODEL = "model.onnx"
KNOWN_INPUTS = ("input_ids", "attention_mask", "token_type_ids")
_INTEGERS = {"tensor(int64)": np.int64, "tensor(int32)": np.int32}


def open_onnx(candidate: Candidate) -> "OnnxClassifier":
    """Open `model.onnx` in ONNX Runtime.

    Raises:
        MissingExtra: onnxruntime is not installed.
        BrokenArtifact: The file does not load, or is no text classifier over the labels.
        InvalidInput: A setting is none that ONNX Runtime can honor.
    """
    return OnnxClassifier(candidate)


class OnnxClassifier(TokenClassifier):
    """A transformer in ONNX Runtime.

    Settings: `threads` (1), `spin` (False: idle threads sleep, for spinning ones take the
    core from whoever shares it), `precision` (`float32` is all there is on a CPU; int8 is
    in the file), and those of `TokenClassifier`.
    """

    def __init__(self, candidate: Candidate) -> None:
        super().__init__(candidate)
        precision = candidate.settings.get("precision", "float32")
        if precision != "float32":
            raise InvalidInput(
                f"precision of backend 'onnx' must be 'float32', got {precision!r}. "
                "Quantize the file for int8, or use backend 'openvino' for bfloat16."
            )
        path = candidate.path / MODEL
        session = open_session(
            path, threads=read_threads(candidate), spin=bool(candidate.settings.get("spin", False))
        )
        self._session: Any = session
        self._path = path
        self._types = read_inputs(session, path)
        self._outputs = [_logits_name(session, len(candidate.labels), path)]

    def _run(self, ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        feed = {}
        for name, kind in self._types.items():
            if name == "input_ids":
                feed[name] = ids if kind is np.int64 else ids.astype(kind)
            elif name == "attention_mask":
                feed[name] = mask if kind is np.int64 else mask.astype(kind)
            else:
                feed[name] = np.zeros(ids.shape, kind)
        logits = np.asarray(self._session.run(self._outputs, feed)[0], np.float32)
        if logits.shape != (len(ids), len(self.labels)):
            raise BrokenArtifact(
                f"{self._path} must give one logit per label, shape {(len(ids), len(self.labels))}, "
                f"got {logits.shape}. Export the classifier with its head."
            )
        return logits

    def close(self) -> None:
        """Drop the session."""
        self._session = None


def open_session(path: Path, *, threads: int = 1, spin: bool = False) -> Any:
    """An `onnxruntime.InferenceSession` on the CPU, with no more threads than asked for.

    Raises:
        MissingExtra: onnxruntime is not installed.
        BrokenArtifact: The file, or external data it points to, is missing or corrupt.
    """
    ort = need("onnxruntime", "onnx")
    if not path.is_file():
        raise BrokenArtifact(f"{path} must be there, got nothing. Export the model again.")
    with contextlib.suppress(AttributeError):  # builds for Windows report usage unless told not to
        ort.disable_telemetry_events()
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "1" if spin else "0")
    try:
        return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors share no public base
        first = " ".join(str(error).split())[:300]
        raise BrokenArtifact(f"{path} must be an ONNX model that loads, got: {first}") from error


def read_threads(candidate: Candidate) -> int:
    """The setting `threads`, 1 unless it says otherwise.

    Raises:
        InvalidInput: It is not a whole number of at least 1.
    """
    threads = candidate.settings.get("threads", 1)
    if not isinstance(threads, int) or isinstance(threads, bool) or threads < 1:
        raise InvalidInput(f"threads must be a whole number of at least 1, got {threads!r}.")
    return threads


def read_inputs(session: Any, path: Path) -> dict[str, type]:
    """Name of each input of an encoder's graph → the integer type it takes.

    Raises:
        BrokenArtifact: An input is none that an encoder has.
    """
    found = {given.name: given.type for given in session.get_inputs()}
    strange = [name for name in found if name not in KNOWN_INPUTS]
    if strange or "input_ids" not in found:
        raise BrokenArtifact(
            f"{path} must have inputs among {list(KNOWN_INPUTS)}, with input_ids, got {list(found)}."
        )
    for name, kind in found.items():
        if kind not in _INTEGERS:
            raise BrokenArtifact(f"{path} must take {name} as {list(_INTEGERS)}, got {kind}.")
    return {name: _INTEGERS[kind] for name, kind in found.items()}


def _logits_name(session: Any, n_labels: int, path: Path) -> str:
    """The first float output of shape (n, n_labels)."""
    shapes = {}
    for output in session.get_outputs():
        shapes[output.name] = (output.type, output.shape)
        if output.type == "tensor(float)" and len(output.shape) == 2:
            width = output.shape[1]
            if not isinstance(width, int) or width == n_labels:
                return str(output.name)
    raise BrokenArtifact(
        f"{path} must have a float output of shape (n, {n_labels}), one logit per label, got {shapes}."
    )
