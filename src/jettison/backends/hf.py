"""The torch backend: stock checkpoints of `transformers`, or an encoder with a pooled linear head."""

import contextlib
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from jettison.backends.device import cast
from jettison.backends.text import TokenClassifier
from jettison.candidate import Candidate, check_safe
from jettison.errors import BrokenArtifact, InvalidInput, JettisonError
from jettison.files import read_json
from jettison.registry import need

HEAD = "head.safetensors"
"""Weights of a linear head (`weight`, `bias`) beside an encoder that has none of its own."""
DTYPES = ("float32", "bfloat16")
POOLINGS = ("mean", "cls")


def open_hf(candidate: Candidate) -> "HfClassifier":
    """Open a checkpoint in torch, on the CPU.

    Raises:
        MissingExtra: torch or transformers is not installed.
        BrokenArtifact: The files do not load, or do not fit the candidate's labels.
    """
    return HfClassifier(candidate)


class HfClassifier(TokenClassifier):
    """A transformer in torch.

    Settings: `threads`, `dtype` (`float32` or `bfloat16`), `max_tokens`, `batch_size`,
    `pad_id`, `pooling` and `normalize` (encoders with `head.safetensors`), and
    `trust_remote_code`, which is off unless a person set it.
    """

    def __init__(self, candidate: Candidate) -> None:
        super().__init__(candidate)
        self._torch = need("torch", "torch")
        self._threads = int(candidate.settings.get("threads", 1))
        self._module = load_torch(candidate)

    def _run(self, ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        torch = self._torch
        if torch.get_num_threads() != self._threads:
            torch.set_num_threads(self._threads)
        with torch.inference_mode():
            logits = self._module(torch.from_numpy(ids), torch.from_numpy(mask))
        return np.asarray(logits.float().numpy())

    def close(self) -> None:
        """Drop the weights."""
        self._module = None


def load_torch(candidate: Candidate) -> Any:
    """Load a candidate of backend `hf` as one `nn.Module`, in eval mode.

    Returns:
        A module with `forward(input_ids, attention_mask) -> logits`, all of shape (n, ...),
        `forward_hidden`, `config` and `body` (the encoder). See `torch_modules`.

    Raises:
        MissingExtra: torch or transformers is not installed.
        BrokenArtifact: The files do not load, or do not fit the candidate's labels.
        InvalidInput: `dtype` or `pooling` is none that is known.
    """
    need("torch", "torch")
    need("transformers", "torch")
    from jettison.backends import torch_modules

    settings = candidate.settings
    dtype = str(settings.get("dtype", "float32"))
    if dtype not in DTYPES:
        raise InvalidInput(f"dtype of backend 'hf' must be one of {list(DTYPES)}, got {dtype!r}.")
    trust = bool(settings.get("trust_remote_code", False))
    if (candidate.path / HEAD).exists():
        pooling = str(settings.get("pooling", "mean"))
        if pooling not in POOLINGS:
            raise InvalidInput(f"pooling must be one of {list(POOLINGS)}, got {pooling!r}.")
        encoder = load_pretrained(candidate.path, "AutoModel", trust_remote_code=trust)
        if getattr(encoder, "pooler", None) is not None:
            encoder.pooler = None  # its output is not read
        head = _load_head(candidate, int(encoder.config.hidden_size))
        module: Any = torch_modules.PooledLogits(
            encoder, head, pooling, bool(settings.get("normalize", False))
        )
    else:
        model = load_pretrained(
            candidate.path, "AutoModelForSequenceClassification", trust_remote_code=trust
        )
        if model.config.num_labels != len(candidate.labels):
            raise BrokenArtifact(
                f"{candidate.path} must have one logit per label ({len(candidate.labels)}), "
                f"got {model.config.num_labels}."
            )
        module = torch_modules.TokenLogits(model)
    return cast(module, dtype).eval()


def load_pretrained(folder: Path, auto_class: str, *, trust_remote_code: bool = False) -> Any:
    """Load a checkpoint folder with a class of `transformers`, from safetensors alone.

    Args:
        folder: Holds `config.json` and `*.safetensors`.
        auto_class: `AutoModel` or `AutoModelForSequenceClassification`.
        trust_remote_code: Whether Python code in the folder may run.

    Raises:
        BrokenArtifact: A file is missing or corrupt, or weights of the body or head are absent.
        UnsafeArtifact: The weights are pickled.
    """
    transformers = need("transformers", "torch")
    check_safe(folder)
    try:
        with quiet_transformers(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "You passed `quantization_config`")  # see `_unpacked`
            model, loading = getattr(transformers, auto_class).from_pretrained(
                folder,
                use_safetensors=True,
                local_files_only=True,
                trust_remote_code=trust_remote_code,
                dtype="float32",
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # refused below, by name and with both shapes
                **_unpacked(folder, transformers),
            )
    except (JettisonError, MemoryError):
        raise
    # What a configuration may hold makes transformers raise nearly anything, its own Exceptions too.
    except Exception as error:
        first = " ".join(str(error).split())[:300]
        raise BrokenArtifact(
            f"{folder} must be a checkpoint that {auto_class} loads, got {type(error).__name__}: {first}"
        ) from error
    for name, stored, wanted in sorted(loading["mismatched_keys"]):
        raise BrokenArtifact(
            f"weights of {folder} must have the shapes that its config.json says, got {name!r} of "
            f"{tuple(stored)} where it says {tuple(wanted)}. Save both again with `save_pretrained`."
        )
    # transformers fills absent weights with random numbers and only logs it.
    missing = sorted(
        key for key in loading["missing_keys"] if "pooler" not in key or auto_class != "AutoModel"
    )
    if missing:
        raise BrokenArtifact(
            f"{folder} must hold every weight of its model, got none for {missing[0]!r} "
            f"({len(missing)} missing). Save the checkpoint again with `save_pretrained`."
        )
    return model.eval()


def _unpacked(folder: Path, transformers: Any) -> dict[str, Any]:
    """How a checkpoint of compressed-tensors is loaded: as plain weights, which any step can read."""
    try:
        config = read_json(folder / "config.json", dict[str, Any])
    except InvalidInput:  # told by the library that loads it
        return {}
    packed = config.get("quantization_config") or config.get("compression_config") or {}
    if not isinstance(packed, dict) or packed.get("quant_method") != "compressed-tensors":
        return {}
    need("compressed_tensors", "compressed")
    return {"quantization_config": transformers.CompressedTensorsConfig(dequantize=True)}


@contextlib.contextmanager
def quiet_transformers() -> Iterator[None]:
    """Keep progress bars and loading reports of `transformers` off the terminal."""
    from transformers.utils import logging

    verbosity = logging.get_verbosity()
    bars = logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def _load_head(candidate: Candidate, hidden_size: int) -> Any:
    torch = need("torch", "torch")
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = candidate.path / HEAD
    try:
        weights = load_file(path)
    except (SafetensorError, OSError) as error:
        raise BrokenArtifact(f"{path} must be a safetensors file: {error}.") from error
    wanted = {"weight": (len(candidate.labels), hidden_size), "bias": (len(candidate.labels),)}
    found = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    if found != wanted:
        raise BrokenArtifact(f"{path} must hold tensors of shape {wanted}, got {found}.")
    head = torch.nn.Linear(hidden_size, len(candidate.labels))
    head.load_state_dict(weights)
    return head
