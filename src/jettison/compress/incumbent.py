"""Takes in the model a team runs, whatever form it has, as the first candidate."""

import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from jettison.backends.hf import POOLINGS
from jettison.backends.open import open_model
from jettison.candidate import (
    MANIFEST,
    UNSAFE_SUFFIXES,
    AppliedStep,
    Candidate,
    library_versions,
    verify_candidate,
    write_candidate,
)
from jettison.compress.checkpoint import LICENCE_FILES, TOKENIZER_FILES, take_over
from jettison.compress.label_names import check_order, has_names, match_labels
from jettison.errors import BrokenArtifact, InvalidInput, UnsafeArtifact
from jettison.files import file_sha256, folder_atomic, link_or_copy, value_sha256
from jettison.registry import need
from jettison.task import Development

HUB_ID = re.compile(r"^[A-Za-z0-9][\w.-]*/[\w.-]+(@[\w./-]+)?$")
HUB_FILES = ("*.json", "*.safetensors", "*.txt", "*.model", "LICENSE*", "README.md")
MAX_TOKENS = 512


def take_in(
    source: str,
    *,
    labels: Sequence[str],
    out_of_scope: str | None,
    cache: Path,
    seed: int,
    data: Development,
    threads: int = 1,
    progress: Callable[[str, float | None], None] | None = None,
) -> Candidate:
    """Make a candidate of the model at `source`, or find the one made before.

    Args:
        source: A checkpoint folder with a classification head, an encoder folder without one
            (a linear head is then fitted on train), an ONNX file or folder, a candidate, a
            release, or a hub id `org/name` or `org/name@revision`.
        labels: The task's labels; the model's own are matched to them by name.
        out_of_scope: The label that means "none of these"; a model may lack it.
        cache: Folder in which candidates are kept, one folder each.
        seed: Of the fitted head.
        data: What a head is fitted on.
        threads: For fitting a head.
        progress: Called with a phrase and the share done.

    Raises:
        InvalidInput: There is nothing at `source`, it is no model, or its labels differ.
        UnsafeArtifact: Its weights are pickled.
        BrokenArtifact: A file is missing or corrupt.
    """
    path = Path(source).expanduser()
    if not path.exists():
        if not HUB_ID.match(source):
            raise InvalidInput(
                f"the incumbent must be a folder, an .onnx file or a hub id org/name, got {source!r}, "
                "where there is nothing."
            )
        path = _from_hub(source)
    if path.is_file():
        return _take_in_file(path, labels, out_of_scope, cache, data)
    if (path / "release.json").exists():
        path = _only_candidate(path)
    if (path / MANIFEST).exists():
        return _take_in_candidate(Candidate.at(path), labels, out_of_scope)
    if (path / "config.json").exists() and any(path.glob("*.safetensors")):
        name = source if HUB_ID.match(source) else path.resolve().name
        return _take_in_checkpoint(
            path, name, labels, out_of_scope, cache, seed, data, threads, progress or _silent
        )
    if found := sorted(path.glob("*.onnx")):
        return _take_in_file(found[0], labels, out_of_scope, cache, data)
    raise _not_a_model(path)


def _silent(message: str, share: float | None = None) -> None:
    """Progress nobody watches."""


def _take_in_checkpoint(
    folder: Path,
    name: str,
    labels: Sequence[str],
    out_of_scope: str | None,
    cache: Path,
    seed: int,
    data: Development,
    threads: int,
    progress: Callable[[str, float | None], None],
) -> Candidate:
    config = _read_config(folder)
    weights = sorted(p.name for p in folder.glob("*.safetensors"))
    names = ("config.json", "model.safetensors.index.json", *weights)
    has_head = _has_head(folder, config)
    own = match_labels(config.get("id2label"), labels, out_of_scope, where=folder) if has_head else None
    pooling = {} if has_head else _pooling(folder)
    key = value_sha256(
        [
            [file_sha256(folder / n) for n in (*names, *TOKENIZER_FILES) if (folder / n).exists()],
            [own or list(labels), out_of_scope, pooling, 1],
            None if has_head else [data.digest, seed],
        ]
    )[:20]
    if (found := _made_before(cache / key)) is not None:
        return found
    with folder_atomic(cache / key) as partial:
        take_over(folder, partial, (*names, *TOKENIZER_FILES, *LICENCE_FILES))
        _make_tokenizer(folder, partial)
        settings = {
            "max_tokens": _max_tokens(folder, config),
            "pad_id": _pad_id(partial, config),
            **pooling,
        }
        notes: dict[str, Any] = {}
        if not has_head:
            from jettison.compress.frozen_head import fit_head

            notes = fit_head(partial, settings, data, seed=seed, threads=threads, progress=progress)
        candidate = write_candidate(
            partial,
            name=name,
            backend="hf",
            labels=own or labels,
            out_of_scope=out_of_scope,
            settings=settings,
            licence=read_licence(folder),
            lineage=(_taken_in(name, seed, None if has_head else data.digest, notes),),
        )
        numbered = has_head and not has_names(config.get("id2label"))
        _check_answers(candidate, data if numbered else None)
    return Candidate.at(cache / key)


def _taken_in(name: str, seed: int, data_digest: str | None, notes: dict[str, Any]) -> AppliedStep:
    """The first link of every lineage."""
    return AppliedStep(
        step="take_in",
        settings={"source": name},
        seed=seed,
        versions=library_versions("torch", "transformers"),
        parents=(),
        data_digest=data_digest,
        notes=notes,
    )


def _take_in_file(
    path: Path, labels: Sequence[str], out_of_scope: str | None, cache: Path, data: Development
) -> Candidate:
    """An ONNX graph with `tokenizer.json` beside it."""
    if path.suffix.lower() in UNSAFE_SUFFIXES:
        raise UnsafeArtifact(
            f"weights must be safetensors, ONNX or GGUF, got {path}: opening it could run code. "
            "Save the model as a folder with `save_pretrained(folder, safe_serialization=True)`."
        )
    if path.suffix.lower() != ".onnx":
        raise _not_a_model(path)
    folder = path.parent
    n_labels = _check_onnx(path)
    config = _read_config(folder) if (folder / "config.json").exists() else {}
    own = match_labels(config.get("id2label"), labels, out_of_scope, where=folder)
    if n_labels is not None and n_labels != len(own):
        raise InvalidInput(f"{path} must give one logit per label ({len(own)}), got {n_labels}.")
    extra = [p.name for p in sorted(folder.glob(f"{path.stem}*data*")) if p.is_file()]
    names = [path.name, *extra, *(n for n in (*TOKENIZER_FILES, "config.json") if (folder / n).exists())]
    key = value_sha256([[n, file_sha256(folder / n)] for n in names] + [own, out_of_scope])[:20]
    if (found := _made_before(cache / key)) is not None:
        return found
    with folder_atomic(cache / key) as partial:
        link_or_copy(path, partial / "model.onnx")
        take_over(folder, partial, (*extra, *TOKENIZER_FILES, *LICENCE_FILES))
        _make_tokenizer(folder, partial)
        settings = {"max_tokens": _max_tokens(folder, config), "pad_id": _pad_id(partial, config)}
        name = folder.resolve().name if path.stem == "model" else path.stem
        candidate = write_candidate(
            partial,
            name=name,
            backend="onnx",
            labels=own,
            out_of_scope=out_of_scope,
            settings=settings,
            licence=read_licence(folder),
            lineage=(_taken_in(name, 0, None, {}),),
        )
        _check_answers(candidate, None if has_names(config.get("id2label")) else data)
    return Candidate.at(cache / key)


def _take_in_candidate(candidate: Candidate, labels: Sequence[str], out_of_scope: str | None) -> Candidate:
    """A candidate is taken as it is, once its labels are the task's."""
    verify_candidate(candidate)
    own = match_labels(list(candidate.labels), labels, out_of_scope, where=candidate.path)
    if own != list(candidate.labels):
        raise InvalidInput(
            f"labels of {candidate.path} must be spelled as the task's, got {list(candidate.labels)[:8]}. "
            "Rename the task's labels, or take in the checkpoint the candidate was made from."
        )
    return candidate


def _only_candidate(release: Path) -> Path:
    found = sorted(p.parent for p in release.glob(f"candidates/*/{MANIFEST}"))
    if len(found) != 1:
        raise InvalidInput(
            f"a release given as incumbent must hold one candidate, got {len(found)} in {release}. "
            f"Name one of them: {[str(p) for p in found][:4]}."
        )
    return found[0]


def _from_hub(source: str) -> Path:
    """Fetch safe files of a hub repository, or find them in the local cache."""
    hub = need("huggingface_hub", "torch")
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    name, _, revision = source.partition("@")
    offline = os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "TRUE", "YES", "ON")
    try:
        return Path(
            hub.snapshot_download(
                name,
                revision=revision or None,
                allow_patterns=list(HUB_FILES),
                ignore_patterns=["onnx/*", "openvino/*"],
                local_files_only=offline,
            )
        )
    except HFValidationError as error:
        raise InvalidInput(f"a hub id must be org/name, got {source!r}: {error}.") from error
    except (HfHubHTTPError, OSError, ValueError) as error:
        why = "HF_HUB_OFFLINE is set" if offline else f"{type(error).__name__}"
        raise InvalidInput(
            f"the incumbent must be a local folder or reachable on the hub, got {source!r}: there is "
            f"no such folder, and the hub did not give it ({why}). "
            "Download it elsewhere and name its folder."
        ) from error


def _not_a_model(path: Path) -> InvalidInput | UnsafeArtifact:
    pickled = [
        p for p in ([path] if path.is_file() else sorted(path.iterdir())) if p.suffix in UNSAFE_SUFFIXES
    ]
    if pickled:
        return UnsafeArtifact(
            f"weights must be safetensors, ONNX or GGUF, got {pickled[0]}: opening it could run code. "
            "Save the model with `save_pretrained(folder, safe_serialization=True)`."
        )
    return InvalidInput(
        f"the incumbent must be a folder with config.json and *.safetensors, an .onnx file, a candidate "
        f"or a release, got {path}."
    )


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BrokenArtifact(f"{path} must be a JSON object: {error}.") from error


def _has_head(folder: Path, config: dict[str, Any]) -> bool:
    """Whether the checkpoint classifies sequences, by its architecture or its weights' names."""
    architectures = config.get("architectures") or []
    if architectures:
        return any(str(name).endswith("ForSequenceClassification") for name in architectures)
    from safetensors import SafetensorError, safe_open

    for path in folder.glob("*.safetensors"):
        try:
            with safe_open(path, "np") as weights:
                if any(name.startswith(("classifier.", "score.")) for name in weights.keys()):  # noqa: SIM118
                    return True
        except (SafetensorError, OSError) as error:
            raise BrokenArtifact(f"{path} must be a safetensors file: {error}.") from error
    return False


def _pooling(folder: Path) -> dict[str, Any]:
    """How an embedder pools its tokens, as sentence-transformers wrote it; the mean otherwise."""
    path = folder / "1_Pooling" / "config.json"
    if not path.exists():
        return {"pooling": "mean", "normalize": False}
    stored = msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
    mode = stored.get("pooling_mode") or next(
        (key for key, on in stored.items() if key.startswith("pooling_mode_") and on), "mean"
    )
    word = "mean" if "mean" in str(mode) else "cls" if "cls" in str(mode) else str(mode)
    if word not in POOLINGS:
        raise InvalidInput(f"pooling of {path} must be one of {list(POOLINGS)}, got {mode!r}.")
    return {"pooling": word, "normalize": any(folder.glob("*_Normalize"))}


def _make_tokenizer(source: Path, folder: Path) -> None:
    """Write `tokenizer.json` where the checkpoint has only the slow tokenizer's files."""
    if (folder / "tokenizer.json").exists():
        return
    transformers = need("transformers", "torch")
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(source, local_files_only=True)
        tokenizer.backend_tokenizer.save(str(folder / "tokenizer.json"))
    except Exception as error:
        raise BrokenArtifact(
            f"{source} must hold tokenizer.json, got none, and none could be made "
            f"({type(error).__name__}). Save the fast tokenizer beside the model."
        ) from error


def _max_tokens(folder: Path, config: dict[str, Any]) -> int:
    """The longest input the model was made for, at most 512."""
    found = [MAX_TOKENS]
    if isinstance(limit := config.get("max_position_embeddings"), int):
        # RoBERTa's positions start after the padding index.
        found.append(limit - 2 if "roberta" in str(config.get("model_type")) else limit)
    for name, key in (
        ("tokenizer_config.json", "model_max_length"),
        ("sentence_bert_config.json", "max_seq_length"),
    ):
        if (folder / name).exists():
            limit = msgspec.json.decode((folder / name).read_bytes(), type=dict[str, Any]).get(key)
            if isinstance(limit, int) and limit > 0:
                found.append(limit)
    return min(found)


def _pad_id(folder: Path, config: dict[str, Any]) -> int:
    """Id that fills short rows: the configuration's, else the tokenizer's, else 0."""
    if isinstance(config.get("pad_token_id"), int):
        return int(config["pad_token_id"])
    from jettison.backends.text import load_tokenizer

    tokenizer = load_tokenizer(folder / "tokenizer.json")
    for token in ("[PAD]", "<pad>"):
        if (number := tokenizer.token_to_id(token)) is not None:
            return int(number)
    return 0


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


def _check_onnx(path: Path) -> int | None:
    """Read a graph's inputs and outputs; return its number of logits where it is fixed."""
    ort = need("onnxruntime", "onnx")
    try:
        session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    except Exception as error:
        raise BrokenArtifact(f"{path} must be an ONNX model: {str(error)[:200]}.") from error
    inputs = [node.name for node in session.get_inputs()]
    known = {"input_ids", "attention_mask", "token_type_ids"}
    if "input_ids" not in inputs or not set(inputs) <= known:
        raise InvalidInput(f"inputs of {path} must be input_ids and attention_mask, got {inputs}.")
    shape = session.get_outputs()[0].shape
    if len(shape) != 2:
        raise InvalidInput(
            f"the first output of {path} must be logits of shape (n, n_labels), got {shape}: "
            "an encoder without a head. Take in its torch folder instead, and a head is fitted."
        )
    return shape[1] if isinstance(shape[1], int) else None


def _check_answers(candidate: Candidate, data: Development | None) -> None:
    """Open the candidate and let it answer; with data, check that the order of its labels is right."""
    model = open_model(candidate)
    try:
        if data is None:
            model.predict(["a", "b c"])
            return
        examples = [e for e in data.train if e.expected in candidate.labels][:256]
        answers = [output.label for output in model.predict([e.input for e in examples])]
        check_order(answers, [str(e.expected) for e in examples], where=candidate.name)
    finally:
        model.close()


def _made_before(folder: Path) -> Candidate | None:
    if not (folder / MANIFEST).exists():
        return None
    return Candidate.at(folder)
