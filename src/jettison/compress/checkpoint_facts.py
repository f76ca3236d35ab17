"""What a checkpoint folder says of itself: head, pooling, tokenizer, limits, licence."""

import importlib.util
import re
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec

from jettison.backends.hf import POOLINGS
from jettison.backends.text import load_tokenizer
from jettison.candidate import Candidate
from jettison.compress.anatomy import FAMILIES, loses_neurons
from jettison.compress.checkpoint import LICENCE_FILES
from jettison.errors import BrokenArtifact, InvalidInput
from jettison.files import decode_json, is_disk_full
from jettison.registry import need

MAX_TOKENS = 512
"""No input is read further than this."""


FROM_PADDING = frozenset(
    {
        *("camembert", "data2vec-text", "esm", "ibert", "layoutlmv3", "lilt", "longformer", "luke"),
        *("markuplm", "mpnet", "roberta", "roberta-prelayernorm", "xlm-roberta", "xlm-roberta-xl", "xmod"),
    }
)
"""`model_type`s whose first position is the padding id + 1: fewer tokens fit than there are positions.

Source: `create_position_ids_from_input_ids` in their modules of `transformers`.
"""


def read_config(folder: Path) -> dict[str, Any]:
    """`config.json` of a checkpoint.

    Raises:
        BrokenArtifact: It is no JSON object.
    """
    return _read_object(folder / "config.json")


def _read_object(path: Path) -> dict[str, Any]:
    try:
        return decode_json(path.read_bytes(), dict[str, Any])
    except OSError as error:
        raise BrokenArtifact(f"{path} must be a readable file, got {error.strerror}.") from error
    except msgspec.DecodeError as error:
        raise BrokenArtifact(f"{path} must be a JSON object: {error}.") from error


def check_config(folder: Path, config: dict[str, Any]) -> None:
    """Refuse what transformers will stumble over, without loading it.

    Raises:
        BrokenArtifact: A setting is of another shape, or the kind of model is none that it knows.
    """
    path = folder / "config.json"
    names = config.get("architectures")
    if names is not None and not isinstance(names, list):
        raise BrokenArtifact(f"architectures of {path} must be a list of names, got {names!r}.")
    labels = config.get("id2label")
    if labels is not None and not isinstance(labels, dict):
        raise BrokenArtifact(
            f'id2label of {path} must be an object as {{"0": "a name"}}, got {str(labels)[:80]}.'
        )
    kind = config.get("model_type")
    known = _known_to_transformers()
    if isinstance(kind, str) and "auto_map" not in config and known and f'"{kind}"' not in known:
        raise BrokenArtifact(
            f"model_type of {path} must be one that transformers {version('transformers')} knows, got "
            f"{kind!r}. Upgrade transformers, or export the model to ONNX."
        )


def _known_to_transformers() -> str:
    """The source that names each kind of model; empty where it is not found, or not what it was."""
    found = importlib.util.find_spec("transformers")
    if found is None or found.origin is None:
        return ""
    folder = Path(found.origin).parent / "models" / "auto"
    files = [folder / name for name in ("auto_mappings.py", "configuration_auto.py")]
    text = "".join(file.read_text(encoding="utf-8") for file in files if file.is_file())
    return text if '("bert", "BertConfig")' in text else ""


def check_vocabulary(folder: Path, tokenizer_file: Path) -> None:
    """Refuse a tokenizer with tokens that the model has no embedding for: it fails on the first of them.

    Raises:
        BrokenArtifact: There is such a token, or the weights are no safetensors.
    """
    rows = _embedding_rows(folder)
    if not rows:
        return
    # A token added beyond the table, as padding often is, harms nobody who does not write it.
    vocabulary = load_tokenizer(tokenizer_file).get_vocab(with_added_tokens=False)
    token = max(vocabulary, key=lambda name: vocabulary[name], default="")
    if vocabulary.get(token, 0) >= max(rows.values()):
        name = max(rows, key=lambda one: rows[one])
        raise BrokenArtifact(
            f"tokens of {tokenizer_file} must be among the {rows[name]:,} that {name!r} has rows for, got "
            f"{token!r} of id {vocabulary[token]:,}. Save the tokenizer that the model was trained with, "
            "or the model after `resize_token_embeddings`."
        )


_EMBEDDINGS = ("word_embeddings", "tok_embeddings", "embed_tokens", "shared", "wte")


def _embedding_rows(folder: Path) -> dict[str, int]:
    """Table of token embeddings → its number of rows, from the headers of the weights."""
    from safetensors import SafetensorError, safe_open

    found = {}
    for path in folder.glob("*.safetensors"):
        try:
            with safe_open(path, "np") as weights:
                for name in weights.keys():  # noqa: SIM118 - no dict
                    if name.endswith(tuple(f"{table}.weight" for table in _EMBEDDINGS)):
                        found[name] = int(weights.get_slice(name).get_shape()[0])
        except (SafetensorError, OSError) as error:
            raise BrokenArtifact(f"{path} must be a safetensors file: {error}.") from error
    return found


def can_be_cut(candidate: Candidate) -> bool:
    """Whether a candidate is a checkpoint of a family whose layers and neurons steps know how to remove."""
    if candidate.backend != "hf" or not (candidate.path / "config.json").is_file():
        return False
    return str(read_config(candidate.path).get("model_type")) in FAMILIES


def parts_of_a_layer(candidate: Candidate) -> dict[str, int]:
    """`n_neurons` and `n_heads` of each layer of a checkpoint that can be cut, where known."""
    if not can_be_cut(candidate):
        return {}
    config = read_config(candidate.path)
    known = FAMILIES[str(config["model_type"])]
    keys = {"n_neurons": known.width, "n_heads": known.heads.count if known.heads else ""}
    return {name: config[key] for name, key in keys.items() if isinstance(config.get(key), int)}


def loses_parts(candidate: Candidate) -> bool:
    """Whether an export of a candidate leaves out attention heads and neurons without weights."""
    if candidate.backend != "hf" or not (candidate.path / "config.json").is_file():
        return False
    config = read_config(candidate.path)
    known = FAMILIES.get(str(config.get("model_type")))
    return known is not None and loses_neurons(known, config.get(known.activation, "gelu"))


WARNING = "warning"
"""Note of a `take_in` on what its owner should know."""


def warnings_of(config: dict[str, Any]) -> dict[str, str]:
    """As a note of the lineage: that a model made to give several labels is asked for one; mostly empty."""
    if config.get("problem_type") != "multi_label_classification":
        return {}
    return {
        WARNING: "the model says problem_type = multi_label_classification, and is asked for its likeliest "
        "label alone: other labels of an input, or none, are not seen"
    }


def has_head(folder: Path, config: dict[str, Any]) -> bool:
    """Whether the checkpoint classifies sequences, by its architecture or its weights' names."""
    architectures = config.get("architectures") or []
    if architectures:
        return any(str(name).endswith("ForSequenceClassification") for name in architectures)
    from safetensors import SafetensorError, safe_open

    for path in folder.glob("*.safetensors"):
        try:
            with safe_open(path, "np") as weights:
                if any(name.startswith(("classifier.", "score.")) for name in weights.keys()):  # noqa: SIM118 - no dict
                    return True
        except (SafetensorError, OSError) as error:
            raise BrokenArtifact(f"{path} must be a safetensors file: {error}.") from error
    return False


def pooling_settings(folder: Path) -> dict[str, Any]:
    """How an embedder pools its tokens, as sentence-transformers wrote it; the mean otherwise.

    Raises:
        BrokenArtifact: What it wrote is no JSON object.
        InvalidInput: It pools in a way that no backend here does.
    """
    path = folder / "1_Pooling" / "config.json"
    if not path.exists():
        return {"pooling": "mean", "normalize": False}
    stored = _read_object(path)
    mode = stored.get("pooling_mode") or next(
        (key for key, on in stored.items() if key.startswith("pooling_mode_") and on), "mean"
    )
    word = "mean" if "mean" in str(mode) else "cls" if "cls" in str(mode) else str(mode)
    if word not in POOLINGS:
        raise InvalidInput(f"pooling of {path} must be one of {list(POOLINGS)}, got {mode!r}.")
    return {"pooling": word, "normalize": any(folder.glob("*_Normalize"))}


VOCABULARIES = (
    "vocab.txt",
    "vocab.json",
    "spiece.model",
    "sentencepiece.bpe.model",
    "tokenizer.model",
    "spm.model",
)


def make_tokenizer(source: Path, folder: Path) -> None:
    """Write `tokenizer.json` where the checkpoint has only the slow tokenizer's files.

    Raises:
        BrokenArtifact: It has no vocabulary, or transformers makes nothing of it.
        MissingExtra: transformers is not installed.
    """
    if (folder / "tokenizer.json").exists():
        return
    # Without a vocabulary transformers makes up an empty tokenizer, and every word is unknown.
    if not any((source / name).exists() for name in VOCABULARIES):
        raise BrokenArtifact(
            f"{source} must hold tokenizer.json, got none, nor any of {list(VOCABULARIES)}. "
            "Save the fast tokenizer beside the model."
        )
    transformers = need("transformers", "torch")
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(source, local_files_only=True)
        tokenizer.backend_tokenizer.save(str(folder / "tokenizer.json"))
    except Exception as error:  # tokenizers raises bare Exception, and a library may be missing
        if is_disk_full(error):
            raise
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise BrokenArtifact(
            f"{source} must hold tokenizer.json, got none, and none could be made ({reason}). "
            "Save the fast tokenizer beside the model."
        ) from error


def max_tokens(folder: Path, config: dict[str, Any]) -> int:
    """The longest input the model was made for, at most 512.

    Raises:
        BrokenArtifact: A file that tells it is no JSON object.
    """
    found = [MAX_TOKENS]
    if (limit := position_limit(config)) is not None and limit > 0:
        found.append(limit)
    for name, key in (
        ("tokenizer_config.json", "model_max_length"),
        ("sentence_bert_config.json", "max_seq_length"),
    ):
        if (folder / name).exists():
            limit = _read_object(folder / name).get(key)
            if isinstance(limit, int) and limit > 0:
                found.append(limit)
    return min(found)


def cut_on_the_left(folder: Path) -> dict[str, str]:
    """As a setting of the candidate, that long texts lose their beginning; empty where they lose their end.

    Raises:
        BrokenArtifact: `tokenizer_config.json` is no JSON object.
    """
    path = folder / "tokenizer_config.json"
    is_left = path.exists() and _read_object(path).get("truncation_side") == "left"
    return {"truncation_side": "left"} if is_left else {}


def position_limit(config: dict[str, Any]) -> int | None:
    """Tokens that the model has positions for; None where its configuration does not say."""
    positions = config.get("max_position_embeddings")
    if not isinstance(positions, int):
        return None
    if config.get("model_type") not in FROM_PADDING:
        return positions
    pad = config.get("pad_token_id")
    return positions - (pad if isinstance(pad, int) else 1) - 1


def pad_id(folder: Path, config: dict[str, Any]) -> int:
    """Id that fills short rows: the configuration's, else the tokenizer's, else 0."""
    if isinstance(config.get("pad_token_id"), int):
        return int(config["pad_token_id"])
    tokenizer = load_tokenizer(folder / "tokenizer.json")
    for token in ("[PAD]", "<pad>"):
        if (number := tokenizer.token_to_id(token)) is not None:
            return int(number)
    return 0


def layer_count(config: dict[str, Any]) -> dict[str, int]:
    """Number of transformer layers, where the configuration says it."""
    found = config.get("num_hidden_layers", config.get("n_layers"))
    return {"n_layers": found} if isinstance(found, int) else {}


def read_licence(folder: Path) -> str | None:
    """The licence a model card states in its front matter, or that a LICENSE file plainly is."""
    card = folder / "README.md"
    if card.is_file():
        head = card.read_text(errors="replace")
        front = re.match(r"---\n(.*?)\n---", head, re.DOTALL)
        if front and (said := re.search(r"^licen[cs]e:\s*[\"']?([\w.+-]+)", front[1], re.MULTILINE)):
            return said[1]
    names = {"Apache License": "apache-2.0", "MIT License": "mit", "BSD 3-Clause": "bsd-3-clause"}
    for name in LICENCE_FILES:
        if (folder / name).is_file():
            text = (folder / name).read_text(errors="replace")[:400]
            return next((short for long, short in names.items() if long in text), None)
    return None
