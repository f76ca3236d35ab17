"""A model's tokenizer and its matrix of token vectors: what a static student starts from."""

from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from jettison.backends.text import load_tokenizer
from jettison.candidate import Candidate
from jettison.errors import BrokenArtifact

_NAMES = ("word_embeddings", "embed_tokens", "tok_embeddings", "shared", "wte", "embeddings", "embedding")
"""What models call the matrix, the surest name first."""
_TRAINED_VOCABULARY = 8000


class TokenTable(msgspec.Struct, frozen=True, kw_only=True):
    """Where a student's tokens come from."""

    tokenizer: Any
    """A `tokenizers.Tokenizer` without truncation and padding."""
    vectors: np.ndarray | None
    """Shape (n_tokens, width), float32; None when the model shows none."""
    source: str
    """In words, for the lineage."""


def token_table(candidate: Candidate, texts: list[str]) -> TokenTable:
    """Take over the tokenizer and token vectors of a model, or learn a tokenizer on the texts.

    Args:
        candidate: The model; its weights are read, not run.
        texts: What to learn word pieces from where the model comes without `tokenizer.json`.
    """
    if not (candidate.path / "tokenizer.json").is_file():
        return TokenTable(
            tokenizer=_train_tokenizer(texts), vectors=None, source="word pieces learned on train"
        )
    tokenizer = load_tokenizer(candidate.path / "tokenizer.json")
    tokenizer.no_padding()
    tokenizer.no_truncation()
    size = max(tokenizer.get_vocab(with_added_tokens=True).values()) + 1
    found = _from_safetensors(candidate.path, size) or _from_onnx(candidate.path, size)
    if found is None:
        return TokenTable(
            tokenizer=tokenizer, vectors=None, source=f"tokenizer of {candidate.name}, no table"
        )
    name, vectors = found
    return TokenTable(tokenizer=tokenizer, vectors=vectors, source=f"{name} of {candidate.name}")


def _from_safetensors(folder: Path, size: int) -> tuple[str, np.ndarray] | None:
    """The named matrix with at least one row a token, float32; None when no file has one."""
    from safetensors import SafetensorError, safe_open

    for path in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(path, "np") as weights:
                shapes = {name: tuple(weights.get_slice(name).get_shape()) for name in weights.keys()}  # noqa: SIM118 - no dict
                if (name := _matrix_name(shapes, size)) is not None:
                    return name, _read_matrix(path, name, weights)
        except SafetensorError as error:
            raise BrokenArtifact(f"{path} must be a safetensors file: {error}.") from error
    return None


def _read_matrix(path: Path, name: str, weights: Any) -> np.ndarray:
    """One tensor as float32; NumPy has no bfloat16, whose bits are the upper half of a float32's."""
    try:
        return np.asarray(weights.get_tensor(name), np.float32)
    except TypeError:
        from jettison.registry import need

        need("torch", "torch")
        from safetensors.torch import safe_open as safe_open_torch

        with safe_open_torch(path, "pt") as opened:
            return np.asarray(opened.get_tensor(name).float().numpy())


def _from_onnx(folder: Path, size: int) -> tuple[str, np.ndarray] | None:
    """The matrix among an ONNX graph's constants, brought back to float32 if it is int8."""
    paths = sorted(folder.glob("*.onnx"))
    if not paths:
        return None
    try:
        import onnx
        from onnx import numpy_helper
    except ModuleNotFoundError:
        return None
    graph = onnx.load(str(paths[0])).graph
    constants = {constant.name: constant for constant in graph.initializer}
    matrices = {name: tuple(constant.dims) for name, constant in constants.items()}
    gathered = {node.input[0] for node in graph.node if node.op_type == "Gather"}
    name = _matrix_name(matrices, size) or next(
        (n for n in sorted(gathered & set(matrices)) if _fits(matrices[n], size)), None
    )
    if name is None:
        return None
    vectors = numpy_helper.to_array(constants[name], base_dir=str(folder)).astype(np.float32)
    stem = name.removesuffix("_quantized")
    if stem != name and f"{stem}_scale" in constants:
        zero = numpy_helper.to_array(constants[f"{stem}_zero_point"]).astype(np.float32)
        scale = numpy_helper.to_array(constants[f"{stem}_scale"]).astype(np.float32)
        vectors = (vectors - zero.reshape(-1, 1)) * scale.reshape(-1, 1)
    return stem, vectors


def _matrix_name(shapes: dict[str, tuple[int, ...]], size: int) -> str | None:
    """The array that is most likely the token matrix, by name, then by having enough rows."""
    fitting = sorted(name for name, shape in shapes.items() if _fits(shape, size))
    for word in _NAMES:
        for name in fitting:
            parts = name.replace("_quantized", "").split(".")
            if word in parts:
                return name
    return None


def _fits(shape: tuple[int, ...], size: int) -> bool:
    """Whether there is a row for each token; models pad the vocabulary a little."""
    return len(shape) == 2 and size <= shape[0] <= size + 1024 and shape[1] >= 2


def _train_tokenizer(texts: list[str]) -> Any:
    from tokenizers import Tokenizer
    from tokenizers.models import WordPiece
    from tokenizers.normalizers import BertNormalizer
    from tokenizers.pre_tokenizers import BertPreTokenizer
    from tokenizers.trainers import WordPieceTrainer

    tokenizer = Tokenizer(WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = BertPreTokenizer()
    trainer = WordPieceTrainer(
        vocab_size=_TRAINED_VOCABULARY, special_tokens=["[UNK]"], show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer
