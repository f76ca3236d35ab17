"""Writes a causal checkpoint as GGUF: names, shapes and facts as llama.cpp wants them.

Families are those whose tensors llama.cpp takes as they are but for the order of rotary dimensions:
Llama (and what shares its class), Mistral and Qwen2. Tokenizers are byte-level BPE. What is written
is compared with the checkpoint by the step that asks for it.

Source: llama.cpp, `convert_hf_to_gguf.py` (the order of rotary dimensions, token types).
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jettison.backends.language_tokens import load_language_tokenizer
from jettison.candidate import Candidate
from jettison.errors import StepFailed
from jettison.files import read_json
from jettison.registry import need

FAMILIES = {"llama": "llama", "mistral": "llama", "qwen2": "qwen2"}
"""`model_type` of a checkpoint → architecture of llama.cpp."""
_NORMAL, _CONTROL, _USER_DEFINED, _UNUSED = 1, 3, 4, 5
_FILE_TYPES = {"float32": 0, "float16": 1}
_QWEN2 = "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}|"
_LLAMA3 = "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}|"


def gguf_architecture(candidate: Candidate) -> str:
    """The architecture of llama.cpp that a checkpoint is of.

    Raises:
        StepFailed: It is of none that is converted here.
    """
    config = _config(candidate)
    kind = str(config.get("model_type"))
    if kind not in FAMILIES:
        raise _refused(candidate, f"a family of {sorted(FAMILIES)}", f"{kind!r}")
    scaling = config.get("rope_scaling") or config.get("rope_parameters") or {}
    rope = scaling.get("rope_type", scaling.get("type", "default")) if isinstance(scaling, dict) else "?"
    if rope != "default":
        raise _refused(candidate, "plain rotary positions", f"rope_type {rope!r}")
    for name in ("attention_bias", "mlp_bias"):
        if config.get(name):
            raise _refused(candidate, f"no {name}", "true")
    if config.get("use_sliding_window") or (kind == "mistral" and config.get("sliding_window")):
        raise _refused(candidate, "attention over the whole context", "a sliding window")
    return FAMILIES[kind]


def write_gguf(
    candidate: Candidate, tensors: Mapping[str, np.ndarray], path: Path, *, precision: str
) -> dict[str, str]:
    """Write weights, facts and tokenizer.

    Args:
        candidate: The checkpoint, for `config.json` and its tokenizer.
        tensors: Name → weights in float32, as the checkpoint names them.
        path: File to write.
        precision: `float32` or `float16`; norms and biases stay float32.

    Returns:
        Name in the checkpoint → name in the file, of each tensor.

    Raises:
        StepFailed: The checkpoint is of no family, or has a tokenizer or tensor, that is converted here.
    """
    gguf = need("gguf", "gguf")
    architecture = gguf_architecture(candidate)
    config = _config(candidate)
    writer = gguf.GGUFWriter(path, architecture)
    _add_facts(writer, candidate, config, precision)
    _add_tokenizer(gguf, writer, candidate, int(config["vocab_size"]))
    enum = {"llama": gguf.MODEL_ARCH.LLAMA, "qwen2": gguf.MODEL_ARCH.QWEN2}[architecture]
    names = gguf.get_tensor_name_map(enum, int(config["num_hidden_layers"]))
    heads = int(config["num_attention_heads"])
    kv_heads = int(config.get("num_key_value_heads") or heads)
    renamed: dict[str, str] = {}
    for name, weights in tensors.items():
        if name == "lm_head.weight" and config.get("tie_word_embeddings"):
            continue
        target = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if target is None:
            raise _refused(candidate, "tensors of its family alone", name)
        array = np.ascontiguousarray(weights, np.float32)
        if architecture == "llama" and name.endswith(("q_proj.weight", "k_proj.weight")):
            array = _interleaved(array, heads if name.endswith("q_proj.weight") else kv_heads)
        if array.ndim > 1 and precision == "float16":
            if np.abs(array).max() > np.finfo(np.float16).max:
                raise _refused(candidate, "weights that float16 can hold; give precision float32", name)
            array = array.astype(np.float16)
        writer.add_tensor(target, array)
        renamed[name] = target
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return renamed


def write_importance(path: Path, importance: Mapping[str, np.ndarray]) -> None:
    """Write mean squared inputs of each weight as `llama-quantize --imatrix` reads them.

    Args:
        path: File to write.
        importance: Name in the GGUF file → mean square of each input, shape (n_inputs,).
    """
    with path.open("wb") as file:
        file.write(np.int32(len(importance)).tobytes())
        for name, values in importance.items():
            encoded = name.encode()
            file.write(np.int32(len(encoded)).tobytes() + encoded)
            # One "call": the values are means already.
            file.write(np.array([1, len(values)], np.int32).tobytes())
            file.write(np.ascontiguousarray(values, np.float32).tobytes())


def _config(candidate: Candidate) -> dict[str, Any]:
    config: dict[str, Any] = read_json(candidate.path / "config.json", dict[str, Any])
    return config


def _interleaved(weights: np.ndarray, heads: int) -> np.ndarray:
    """Rows of a query or key as llama.cpp orders them: rotary pairs side by side, not half a head apart."""
    rows, columns = weights.shape
    halves = weights.reshape(heads, 2, rows // heads // 2, columns)
    return np.ascontiguousarray(halves.swapaxes(1, 2).reshape(rows, columns))


def _add_facts(writer: Any, candidate: Candidate, config: dict[str, Any], precision: str) -> None:
    heads = int(config["num_attention_heads"])
    size = int(config.get("head_dim") or config["hidden_size"] // heads)
    rope = config.get("rope_parameters") or {}
    writer.add_name(candidate.name)
    if candidate.licence:
        writer.add_license(candidate.licence)
    writer.add_context_length(int(config["max_position_embeddings"]))
    writer.add_embedding_length(int(config["hidden_size"]))
    writer.add_block_count(int(config["num_hidden_layers"]))
    writer.add_feed_forward_length(int(config["intermediate_size"]))
    writer.add_head_count(heads)
    writer.add_head_count_kv(int(config.get("num_key_value_heads") or heads))
    writer.add_key_length(size)
    writer.add_value_length(size)
    writer.add_rope_dimension_count(size)
    writer.add_rope_freq_base(float(rope.get("rope_theta") or config.get("rope_theta") or 10000.0))
    writer.add_layer_norm_rms_eps(float(config["rms_norm_eps"]))
    writer.add_vocab_size(int(config["vocab_size"]))
    writer.add_file_type(_FILE_TYPES[precision])


def _add_tokenizer(gguf: Any, writer: Any, candidate: Candidate, n_vocabulary: int) -> None:
    tokenizer = load_language_tokenizer(candidate)
    path = candidate.path / "tokenizer.json"
    if not path.is_file():
        raise _refused(candidate, "a tokenizer.json", "none")
    content = json.loads(path.read_text())
    model = content.get("model") or {}
    if model.get("type") != "BPE" or model.get("byte_fallback"):
        raise _refused(candidate, "a byte-level BPE tokenizer", str(model.get("type")))
    tokens = [f"[PAD{i}]" for i in range(n_vocabulary)]
    kinds = [_UNUSED] * n_vocabulary
    added = {one["id"]: one for one in content.get("added_tokens") or ()}
    for token, number in model["vocab"].items():
        tokens[number], kinds[number] = token, _NORMAL
    for number, one in added.items():
        tokens[number] = one["content"]
        kinds[number] = _CONTROL if one["special"] else _USER_DEFINED
    merges = [m if isinstance(m, str) else " ".join(m) for m in model.get("merges") or ()]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(_pre_tokenizer(candidate, content))
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges(merges)
    ids = {
        writer.add_bos_token_id: tokenizer.bos_token_id,
        writer.add_eos_token_id: tokenizer.eos_token_id,
        writer.add_pad_token_id: tokenizer.pad_token_id,
        writer.add_unk_token_id: tokenizer.unk_token_id,
    }
    for add, number in ids.items():
        if number is not None:
            add(int(number))
    own = tokenizer.bos_token_id is not None and tokenizer.encode("")[:1] == [tokenizer.bos_token_id]
    writer.add_add_bos_token(bool(own if (given := candidate.settings.get("add_bos")) is None else given))
    if isinstance(template := getattr(tokenizer, "chat_template", None), str):
        writer.add_chat_template(template)


def _pre_tokenizer(candidate: Candidate, content: dict[str, Any]) -> str:
    """Name by which llama.cpp knows how a tokenizer cuts text into words; token ids are compared after."""
    pre = content.get("pre_tokenizer") or {}
    parts = pre.get("pretokenizers", [pre]) if pre.get("type") == "Sequence" else [pre]
    kinds = [part.get("type") for part in parts]
    if kinds == ["ByteLevel"]:
        return "gpt-2"
    if kinds == ["Digits", "ByteLevel"] and parts[0].get("individual_digits"):
        return "smollm"
    pattern = str(((parts[0].get("pattern") or {}) if parts else {}).get("Regex", ""))
    if kinds == ["Split", "ByteLevel"] and pattern.startswith(_QWEN2):
        return "qwen2"
    if kinds == ["Split", "ByteLevel"] and pattern.startswith(_LLAMA3):
        return "llama-bpe"
    raise _refused(candidate, "a way to cut words that llama.cpp knows", str(kinds))


def _refused(candidate: Candidate, rule: str, value: str) -> StepFailed:
    return StepFailed(
        f"{candidate.name} must have {rule} to become a GGUF file here, got {value}. "
        "Other converters know more families; their file can be the incumbent."
    )
