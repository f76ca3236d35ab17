"""What the model is that a team runs, read from its files without loading it."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec

from jettison.backends.gguf_file import read_gguf_facts
from jettison.backends.onnx_file import check_onnx_file
from jettison.candidate import MANIFEST, UNSAFE_SUFFIXES, Candidate
from jettison.compress.checkpoint_facts import (
    MAX_TOKENS,
    check_config,
    check_vocabulary,
    has_head,
    max_tokens,
    read_config,
)
from jettison.compress.hub import is_hub_id
from jettison.compress.incumbent_language import is_language, is_url, language_backend
from jettison.compress.label_names import has_names, match_labels
from jettison.cost.moved import tensor_bytes
from jettison.errors import BrokenArtifact, InvalidInput, JettisonError, UnsafeArtifact
from jettison.release.read import open_release, read_candidate
from jettison.route import candidate_folders

Kind = Literal["checkpoint", "onnx", "gguf", "candidate", "release", "hub"]
SIZES = (16, 32, 48, 64, 96, 128, 192, 256, 384, 512)
N_TOKENIZED = 4000
DATA_SUFFIXES = (".csv", ".tsv", ".json", ".jsonl", ".ndjson", ".parquet")
"""Of files that are surely no model."""


class ModelLook(msgspec.Struct, frozen=True, kw_only=True):
    """A model, as far as its files say."""

    place: str
    """As it was given."""
    kind: Kind
    architecture: str | None = None
    labels: tuple[str, ...] | None = None
    """In the order of the logits; None when the files do not name them."""
    has_head: bool | None = None
    """False: an encoder, and a linear head will be fitted on train. None: not known."""
    max_tokens: int | None = None
    """The longest input it was made for."""
    bytes: int | None = None
    """Of its weights."""
    tokenizer: Path | None = None
    is_language: bool = False
    """It is asked a prompt, and may write free answers."""


class TokenLook(msgspec.Struct, frozen=True, kw_only=True):
    """Lengths of the data's texts in the model's tokens; test is not looked at."""

    p50: int
    p95: int
    max: int
    n: int
    recommended_max_tokens: int
    """Smallest usual length that holds every text seen, as far as the model can read."""
    truncated_share: float
    """Share of the texts that are longer."""


class LabelLook(msgspec.Struct, frozen=True, kw_only=True):
    """Whether the model's labels are the data's."""

    verdict: Literal["match", "numbered", "differ", "unknown", "fitted", "asked"]
    message: str


def look_at_model(place: str) -> ModelLook:
    """Say what stands at a path or hub id.

    Raises:
        InvalidInput: There is nothing, or no model.
        UnsafeArtifact: Its weights are pickled.
        BrokenArtifact: Its configuration does not parse.
    """
    path = Path(place).expanduser()
    if is_url(place):
        raise InvalidInput(
            f"MODEL must be on this disk or a hub id to be looked at, got the address {place!r}. Name it "
            "as `incumbent` in jettison.toml, with [endpoint]: docs/endpoints.md."
        )
    if not path.exists():
        if is_hub_id(place) and not path.parent.is_dir():
            return ModelLook(place=place, kind="hub")
        beside = sorted(p.name for p in path.parent.iterdir()) if path.parent.is_dir() else []
        raise InvalidInput(
            f"MODEL must be a folder, an .onnx or .gguf file or a hub id org/name, got {place!r}, where "
            "there is nothing" + (f" (beside it: {beside[:8]})." if beside else ".")
        )
    if path.is_dir() and (path / "release.json").is_file():
        return _look_at_release(place, path)
    if path.is_dir() and (path / MANIFEST).is_file():
        return _of_candidate(place, "candidate", Candidate.at(path))
    folder = path if path.is_dir() else path.parent
    graphs = [path] if path.suffix.lower() == ".onnx" else sorted(folder.glob("*.onnx"))
    weights = sorted(folder.glob("*.safetensors"))
    if path.is_dir() and weights and (path / "config.json").is_file():
        return _of_files(place, "checkpoint", folder, weights)
    ggufs = [path] if path.suffix.lower() == ".gguf" else sorted(folder.glob("*.gguf"))
    if len(ggufs) == 1 and (path.is_dir() or path == ggufs[0]):
        return _of_gguf(place, ggufs[0])
    if graphs and (path.is_dir() or path.suffix.lower() == ".onnx"):
        return _of_files(place, "onnx", folder, graphs)
    raise _no_model(path)


def compare_labels(model: ModelLook, labels: Sequence[str], out_of_scope: str | None) -> LabelLook:
    """Match the model's labels to the data's, and say the way out where they differ."""
    if model.is_language and not model.labels:
        message = "a language model: it is asked by the prompt, which names the labels."
        return LabelLook(verdict="asked", message=message)
    if model.has_head is False:
        message = f"it has no head: a linear one is fitted on train for {len(labels)} labels."
        return LabelLook(verdict="fitted", message=message)
    if model.labels is None:
        return LabelLook(verdict="unknown", message="its files name no labels; the run checks them.")
    try:
        match_labels(list(model.labels), labels, out_of_scope, where=Path(model.place))
    except JettisonError as error:
        return LabelLook(verdict="differ", message=str(error))
    n = len(model.labels)
    if not has_names(list(model.labels)):
        message = (
            f"its {n} labels are only numbered and taken in sorted order, which the run checks by its "
            "answers; name them in id2label of config.json to be sure."
        )
        return LabelLook(verdict="numbered", message=message)
    lacking = "" if out_of_scope is None or n == len(labels) else f", without {out_of_scope!r}"
    return LabelLook(verdict="match", message=f"its {n} labels are the data's{lacking}.")


def count_tokens(model: ModelLook, texts: Sequence[str]) -> TokenLook | None:
    """Token lengths of up to 4,000 evenly spaced texts; None without a tokenizer or texts."""
    if model.tokenizer is None or not texts:
        return None
    import numpy as np

    from jettison.backends.text import load_tokenizer

    tokenizer = load_tokenizer(model.tokenizer)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    chosen = [texts[i] for i in np.linspace(0, len(texts) - 1, min(len(texts), N_TOKENIZED)).astype(int)]
    lengths = np.array([len(encoding.ids) for encoding in tokenizer.encode_batch(chosen)])
    limit = model.max_tokens or MAX_TOKENS
    longest = int(lengths.max())
    recommended = min(limit, next((size for size in SIZES if size >= longest), limit))
    return TokenLook(
        p50=int(np.quantile(lengths, 0.5, method="higher")),
        p95=int(np.quantile(lengths, 0.95, method="higher")),
        max=longest,
        n=len(chosen),
        recommended_max_tokens=recommended,
        truncated_share=float((lengths > recommended).mean()),
    )


def _of_files(place: str, kind: Kind, folder: Path, weights: Sequence[Path]) -> ModelLook:
    config = read_config(folder) if (folder / "config.json").is_file() else {}
    said = config.get("architectures") or []
    architectures = [str(name) for name in ([said] if isinstance(said, str) else said)]
    names = config.get("id2label")
    for path in weights if kind == "checkpoint" else ():
        _check_whole(path)
    for path in weights if kind == "onnx" else ():
        check_onnx_file(path)
    if kind == "checkpoint":
        check_config(folder, config)
    is_language = kind != "onnx" and language_backend(config) is not None
    headed = kind == "onnx" or (not is_language and has_head(folder, config))
    tokenizer = folder / "tokenizer.json"
    if kind == "checkpoint" and not is_language and tokenizer.is_file():
        check_vocabulary(folder, tokenizer)
    return ModelLook(
        place=place,
        kind=kind,
        architecture=architectures[0] if architectures else None,
        labels=_in_order(names) if headed and isinstance(names, dict | list) else None,
        has_head=None if is_language else headed,
        max_tokens=max_tokens(folder, config),
        bytes=sum(path.stat().st_size for path in weights),
        tokenizer=tokenizer if tokenizer.is_file() else None,
        is_language=is_language,
    )


def _check_whole(path: Path) -> None:
    """Refuse weights that are cut short, or a stand-in for them, by their header: nothing is read."""
    try:
        sizes, size = tensor_bytes(path), path.stat().st_size
        with path.open("rb") as file:
            n_header = 8 + int.from_bytes(file.read(8), "little")
    except OSError as error:
        raise BrokenArtifact(f"{path} must be a safetensors file, got {error.strerror}.") from error
    if sizes is not None and n_header + sum(sizes.values()) <= size:
        return
    got = "no header of tensors" if sizes is None else f"tensors of {sum(sizes.values()):,} bytes"
    raise BrokenArtifact(
        f"{path} must be a whole safetensors file, got {got} in a file of {size:,} bytes. Fetch it again "
        "(of a git repository, with `git lfs pull`)."
    )


def _of_gguf(place: str, path: Path) -> ModelLook:
    facts = read_gguf_facts(path)
    return ModelLook(
        place=place,
        kind="gguf",
        architecture=facts.architecture,
        max_tokens=facts.n_context_tokens,
        bytes=path.stat().st_size,
        is_language=True,
    )


def _of_candidate(place: str, kind: Kind, candidate: Candidate) -> ModelLook:
    tokenizer = candidate.path / "tokenizer.json"
    return ModelLook(
        place=place,
        kind=kind,
        architecture=candidate.backend,
        labels=candidate.labels,
        has_head=True,
        max_tokens=candidate.settings.get("max_tokens"),
        bytes=candidate.artifact_bytes,
        tokenizer=tokenizer if tokenizer.is_file() else None,
        is_language=is_language(candidate),
    )


def _look_at_release(place: str, folder: Path) -> ModelLook:
    release = open_release(folder)
    inside = candidate_folders(release.route)
    if len(inside) != 1:
        raise InvalidInput(
            f"a release given as MODEL must route to one candidate, got {len(inside)} in {folder}. "
            f"Name one of them: {[str(folder / part) for part in inside][:4]}."
        )
    return _of_candidate(place, "release", read_candidate(release, inside[0]))


def _in_order(names: dict[str, Any] | list[Any]) -> tuple[str, ...] | None:
    if isinstance(names, list):
        return tuple(map(str, names))
    if set(names) != {str(i) for i in range(len(names))}:
        return None
    return tuple(str(names[str(i)]) for i in range(len(names)))


def _no_model(path: Path) -> JettisonError:
    inside = [path] if path.is_file() else sorted(path.iterdir())
    for one in inside:
        if one.suffix.lower() in UNSAFE_SUFFIXES:
            return UnsafeArtifact(
                f"weights must be safetensors, ONNX or GGUF, got {one}: opening it could run code. "
                "Save the model with `save_pretrained(folder, safe_serialization=True)`."
            )
    return InvalidInput(
        "MODEL must be a folder with config.json and *.safetensors, an .onnx or .gguf file, a candidate, a "
        "release or "
        f"a hub id, got {path} with {[os.fspath(one.name) for one in inside][:6]}."
        + (" MODEL comes first and DATA second." if path.suffix.lower() in DATA_SUFFIXES else "")
    )
