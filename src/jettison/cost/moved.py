"""Bytes of weights and of keys and values that one task moves: MODELLED from files and token counts.

A pass reads every weight once, tables of embeddings by the row. A text that is read takes one pass; each
token written after the first takes another, which reads the keys and values of all before it. Nothing here
is measured: what caches keep makes it less, activations and rows read twice make it more.
"""

import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from jettison.candidate import Candidate
from jettison.decision import MovedBytes
from jettison.errors import JettisonError
from jettison.files import decode_json

READERS = ("hf", "onnx", "openvino")
"""Backends that read a text in one pass."""
WRITERS = ("hf_causal", "hf_seq2seq", "onnx_genai", "llamacpp")
"""Backends that write token by token."""
PARTS = (".safetensors", ".onnx", ".data", ".bin", ".gguf")
"""Endings of files that hold weights."""
LONGEST_HEADER = 100_000_000
TABLE = MovedBytes(weight_bytes=0.0, kv_bytes=None, factor=1.0, source="rows of a table: left out")
"""Of a `static` or `linear` arm: nothing beside a model's weights."""


class Traffic(msgspec.Struct, frozen=True, kw_only=True):
    """What the answers of a run were like: means per task. None is not known."""

    prompt_tokens: float | None = None
    completion_tokens: float | None = None
    escalated_share: float | None = None
    """Of a cascade: how many of the inputs its fallback was asked, in 0-1."""
    escalated_twice_share: float | None = None
    """Of a cascade whose fallback is one: how many of the inputs that one's fallback was asked."""


def moved_bytes(candidate: Candidate, traffic: Traffic) -> MovedBytes | None:
    """Model what a task moves in a batch of one; None for what cannot be modelled so.

    That is a model that reads but rows of a table (`static`, `linear`), one that runs elsewhere, and a
    writer whose tokens nobody counted.
    """
    if candidate.backend == "cascade":
        return _of_cascade(candidate, traffic)
    if candidate.backend not in (*READERS, *WRITERS):
        return None
    found = _pass_bytes(candidate)
    if found is None:
        return None
    weights, whole = found
    factor = 3.0 if whole else 2.0
    tables = (
        "tables of embeddings counted whole" if whole else "tables of embeddings left out, save for a head"
    )
    if candidate.backend in READERS:
        return MovedBytes(
            weight_bytes=weights,
            kv_bytes=None,
            factor=factor,
            source=f"every weight read once, {tables}; caches and activations are not in it",
        )
    if traffic.prompt_tokens is None or not traffic.completion_tokens:
        return None
    n = traffic.completion_tokens
    entry = kv_bytes_per_token(candidate)
    return MovedBytes(
        weight_bytes=weights * max(1.0, n),
        kv_bytes=None if entry is None else entry * _entries(traffic.prompt_tokens, n),
        factor=factor,
        source=f"every weight read once for the prompt and each token after the first ({n:.3g} a task), "
        f"{tables}; keys and values at 16 bits; caches, activations and tries to guess ahead are not in it",
    )


def kv_bytes_per_token(candidate: Candidate) -> float | None:
    """Keys and values that one token adds, at 16 bits; None where layers and heads are not told."""
    if candidate.backend == "llamacpp":
        told = _gguf_sizes(candidate)
    else:
        told = _config_sizes(candidate.path / "config.json")
    if told is None:
        return None
    layers, heads, width = told
    return 2.0 * layers * heads * width * 2.0


def _entries(prompt: float, written: float) -> float:
    """Entries read for each token after the first, and all of them written once."""
    later = max(0.0, written - 1.0)
    return later * prompt + later * (later + 1.0) / 2.0 + prompt + later


def _of_cascade(candidate: Candidate, traffic: Traffic) -> MovedBytes | None:
    """Of two models or more: the first one always, each further one as often as it was asked."""
    asked = [1.0, traffic.escalated_share, traffic.escalated_twice_share]
    models = _models_in_order(candidate)
    if models is None or asked[1] is None:
        return None
    weights, factor, told = 0.0, 1.0, []
    for place, model in enumerate(models):
        known = [share for share in asked[: place + 1] if share is not None]
        share, most = known[-1], "" if len(known) == place + 1 else "at most "
        found = TABLE if model.backend in ("static", "linear") else moved_bytes(model, Traffic())
        if found is None or found.kv_bytes is not None:
            return None
        weights, factor = weights + share * found.weight_bytes, max(factor, found.factor)
        often = "for every input" if place == 0 else f"for {most}{100 * share:.0f} % of those measured"
        told.append(f"{model.backend} {often} ({found.source})")
    return MovedBytes(weight_bytes=weights, kv_bytes=None, factor=factor, source=", ".join(told))


def _models_in_order(cascade: Candidate) -> list[Candidate] | None:
    """The models in the order they are asked in; None where they do not lie in folders of their own."""
    found, rest = [], cascade
    while rest.backend == "cascade":
        route = rest.settings.get("route", {})
        folders = [route.get(arm, {}).get("candidate") for arm in ("lean", "fallback")]
        if None in folders:
            return None
        try:
            lean, rest = (Candidate.at(rest.path / folder) for folder in folders)
        except JettisonError:
            return None
        found.append(lean)
    return [*found, rest]


def _pass_bytes(candidate: Candidate) -> tuple[float, bool] | None:
    """Weights that a pass reads, and whether tables of embeddings are counted whole."""
    parts = [entry for entry in candidate.files if entry.path.endswith(PARTS)]
    if not parts:
        return None
    if not all(entry.path.endswith(".safetensors") for entry in parts):
        return float(sum(entry.bytes for entry in parts)), True
    read = 0
    for entry in parts:
        sizes = tensor_bytes(candidate.path / entry.path)
        if sizes is None:
            return float(sum(entry.bytes for entry in parts)), True
        # With no head of its own a writer's table is read whole, as its head.
        is_tied = candidate.backend in WRITERS and not any("lm_head" in name for name in sizes)
        read += sum(size for name, size in sizes.items() if is_tied or not _is_table(name))
    return float(read), False


def tensor_bytes(path: Path) -> dict[str, int] | None:
    """Name → bytes of each tensor of a safetensors file, from its header; None where it cannot be read."""
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > LONGEST_HEADER:
                return None
            header = decode_json(file.read(length), dict[str, dict[str, Any]])
        spans = {name: one["data_offsets"] for name, one in header.items() if name != "__metadata__"}
        return {name: int(end) - int(start) for name, (start, end) in spans.items()}
    except (OSError, struct.error, msgspec.DecodeError, KeyError, TypeError, ValueError):
        return None


def _is_table(name: str) -> bool:
    return name.endswith("weight") and any(part in name for part in ("embeddings.", "embed_tokens", "wte."))


def _gguf_sizes(candidate: Candidate) -> tuple[int, int, float] | None:
    from jettison.backends.gguf_file import read_gguf_facts

    files = [entry.path for entry in candidate.files if entry.path.endswith(".gguf")]
    if len(files) != 1:
        return None
    try:
        facts = read_gguf_facts(candidate.path / files[0])
    except (JettisonError, OSError):
        return None
    told = {key: facts.metadata.get(f"{facts.architecture}.{key}") for key in (
        "block_count", "attention.head_count", "attention.head_count_kv", "attention.key_length",
        "embedding_length",
    )}  # fmt: skip
    return _sizes(
        told["block_count"],
        told["attention.head_count"],
        told["attention.head_count_kv"],
        told["attention.key_length"],
        told["embedding_length"],
    )


def _config_sizes(path: Path) -> tuple[int, int, float] | None:
    try:
        config: Mapping[str, Any] = decode_json(path.read_bytes(), dict[str, Any])
    except (OSError, msgspec.DecodeError):
        return None
    return _sizes(
        config.get("num_hidden_layers", config.get("n_layer")),
        config.get("num_attention_heads", config.get("n_head")),
        config.get("num_key_value_heads"),
        config.get("head_dim"),
        config.get("hidden_size", config.get("n_embd")),
    )


def _sizes(
    layers: Any, heads: Any, kv_heads: Any, width: Any, hidden: Any
) -> tuple[int, int, float] | None:
    """Layers, heads of keys and values, width of a head."""
    if not isinstance(layers, int) or not isinstance(heads, int) or not heads:
        return None
    if width is None:
        width = hidden / heads if isinstance(hidden, int) else None
    if not isinstance(width, int | float):
        return None
    return layers, kv_heads if isinstance(kv_heads, int) else heads, float(width)
