"""The OpenVINO backend: `model.xml` with its weights, or `model.onnx`, on the CPU.

The inference precision is always said: left to itself OpenVINO runs float32 models in
bfloat16 on processors that can, and a table of "float32 against int8" made that way
compares something else.
"""

import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np

from jettison.backends.onnx import KNOWN_INPUTS, read_threads
from jettison.backends.text import TokenClassifier
from jettison.candidate import Candidate
from jettison.errors import BrokenArtifact, InvalidInput
from jettison.registry import need

MODELS = ("model.xml", "model.onnx")
PRECISIONS = {"float32": "f32", "bfloat16": "bf16"}
PAD_TO_MULTIPLE = 8
"""Token counts are rounded up to this many, also for a single input. OpenVINO prepares its
kernels anew for a shape it has not just seen (about 2 to 5 ms for six layers of width 384):
over inputs of 5 to 24 tokens, one at a time, int8 took 1.0 to 1.2 ms each in steps of 8 and
1.5 to 2.0 ms in steps of 1, float32 3.2 against 3.0 ms."""


def open_openvino(candidate: Candidate) -> "OpenVinoClassifier":
    """Open `model.xml`, or else `model.onnx`, in OpenVINO.

    Raises:
        MissingExtra: openvino is not installed.
        BrokenArtifact: The file does not load, or is no text classifier over the labels.
        InvalidInput: `precision` is neither float32 nor bfloat16.
    """
    return OpenVinoClassifier(candidate)


class OpenVinoClassifier(TokenClassifier):
    """A transformer in OpenVINO.

    Settings: `threads` (1), `precision` of what the file leaves in float (`float32`, or
    `bfloat16`), `pad_to_multiple` (`PAD_TO_MULTIPLE`), and those of `TokenClassifier`.
    """

    precision: str
    """What the compiled model runs in, read back from it."""

    def __init__(self, candidate: Candidate) -> None:
        super().__init__(candidate)
        precision = candidate.settings.get("precision", "float32")
        if precision not in PRECISIONS:
            raise InvalidInput(
                f"precision of backend 'openvino' must be one of {list(PRECISIONS)}, got {precision!r}."
            )
        self._bucket = int(candidate.settings.get("pad_to_multiple", PAD_TO_MULTIPLE))
        self._pad_to = 1  # every batch is rounded up in `_run`
        path = _model_path(candidate.path)
        compiled = compile_graph(path, precision=PRECISIONS[precision], threads=read_threads(candidate))
        self._inputs = _read_inputs(compiled, path)
        self._output = _logits_output(compiled, len(candidate.labels), path)
        self.precision = compiled.get_property("INFERENCE_PRECISION_HINT").to_string()
        self._compiled: Any = compiled
        self._request: Any = compiled.create_infer_request()
        self._lock = threading.Lock()

    def _run(self, ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        n, width = ids.shape
        wanted = min(-(-width // self._bucket) * self._bucket, max(self._max_tokens, width))
        if wanted != width:
            wider = np.full((n, wanted), self._pad_id, np.int64)
            wider[:, :width] = ids
            covered = np.zeros((n, wanted), np.int64)
            covered[:, :width] = mask
            ids, mask = wider, covered
        values = {"input_ids": ids, "attention_mask": mask, "token_type_ids": None}
        feed = {}
        for index, (name, kind) in enumerate(self._inputs):
            value = values[name]
            value = np.zeros(ids.shape, kind) if value is None else value
            feed[index] = value if value.dtype == kind else value.astype(kind)
        with self._lock:  # one request answers one call at a time
            found = self._request.infer(feed, share_inputs=True, share_outputs=True)
            return np.array(found[self._output], np.float32)

    def close(self) -> None:
        """Drop the compiled model."""
        self._request = self._compiled = None


def import_openvino() -> Any:
    """Import openvino so that neither it nor NNCF ever reports usage.

    Both report through the package `openvino_telemetry`, without asking, and do without
    when it cannot be imported; where it is loaded already, it is told that consent is declined.

    Raises:
        MissingExtra: openvino is not installed.
    """
    loaded = sys.modules.get("openvino_telemetry")
    if loaded is None:
        sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
    else:
        checker = need("openvino_telemetry.utils.opt_in_checker", "openvino")
        declined = checker.ConsentCheckResult.DECLINED
        checker.OptInChecker.check = lambda self, *given, **settings: declined
    return need("openvino", "openvino")


def compile_graph(path: Path, *, precision: str, threads: int) -> Any:
    """Load a graph for the CPU.

    Args:
        path: `model.xml` or `model.onnx`.
        precision: What it computes in where weights are not rounded: `f32` or `bf16`.
        threads: At most.

    Raises:
        MissingExtra: openvino is not installed.
        BrokenArtifact: The file does not load.
    """
    openvino = import_openvino()
    core = openvino.Core()
    settings = {
        "INFERENCE_PRECISION_HINT": precision,
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": "1",
        "PERFORMANCE_HINT": "LATENCY",
        # Pinned to core 0, two processes of one thread each would share it.
        "ENABLE_CPU_PINNING": False,
        "CACHE_DIR": "",
    }
    try:
        return core.compile_model(str(path), "CPU", settings)
    except RuntimeError as error:
        first = " ".join(str(error).split())[:300]
        raise BrokenArtifact(f"{path} must be a model that OpenVINO loads, got: {first}") from error


def _model_path(folder: Path) -> Path:
    for name in MODELS:
        if (folder / name).is_file():
            return folder / name
    raise BrokenArtifact(f"{folder} must hold one of {list(MODELS)}, got neither. Export the model again.")


def _read_inputs(compiled: Any, path: Path) -> list[tuple[str, Any]]:
    """Name and integer type of each input, in the graph's order."""
    found = []
    for port in compiled.inputs:
        names = sorted(port.names)
        known = [name for name in names if name in KNOWN_INPUTS]
        if not known:
            raise BrokenArtifact(f"{path} must have inputs among {list(KNOWN_INPUTS)}, got {names}.")
        found.append((known[0], port.element_type.to_dtype()))
    return found


def _logits_output(compiled: Any, n_labels: int, path: Path) -> int:
    """Index of the first float output of shape (n, n_labels)."""
    shapes = [port.partial_shape for port in compiled.outputs]
    for index, port in enumerate(compiled.outputs):
        shape = port.partial_shape
        if port.element_type.is_real() and shape.rank.is_static and len(shape) == 2:
            width = shape[1]
            if width.is_dynamic or width.get_length() == n_labels:
                return index
    raise BrokenArtifact(
        f"{path} must have a float output of shape (n, {n_labels}), one logit per label, "
        f"got {[str(shape) for shape in shapes]}."
    )
