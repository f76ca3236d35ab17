"""Takes in the model a team runs, whatever form it has, as the first candidate."""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jettison.backends.onnx import open_session
from jettison.backends.open import open_model
from jettison.candidate import (
    MANIFEST,
    UNSAFE_SUFFIXES,
    AppliedStep,
    Candidate,
    find_verified,
    library_versions,
    verify_candidate,
    write_candidate,
)
from jettison.compress import checkpoint_facts as facts
from jettison.compress.checkpoint import LICENCE_FILES, TOKENIZER_FILES, take_over
from jettison.compress.embedder_index import RANKING
from jettison.compress.frozen_head import fit_head
from jettison.compress.hub import fetch, is_hub_id
from jettison.compress.incumbent_embedder import take_in_embedder
from jettison.compress.incumbent_language import (
    is_url,
    language_backend,
    take_in_checkpoint,
    take_in_endpoint,
    take_in_gguf,
)
from jettison.compress.label_names import check_order, has_names, match_labels
from jettison.compress.teacher import keep_answers
from jettison.errors import BrokenArtifact, InvalidInput, JettisonError, UnsafeArtifact
from jettison.files import file_sha256, folder_atomic, is_disk_full, link_or_copy, value_sha256
from jettison.release.read import open_release, read_candidate
from jettison.route import candidate_folders
from jettison.task import Development

Progress = Callable[[str, float | None], None]


def _silent(message: str, share: float | None = None) -> None:
    """Progress nobody watches."""


@dataclass(frozen=True, kw_only=True)
class _Intake:
    """What the model has to fit, and where it goes."""

    labels: tuple[str, ...]
    out_of_scope: str | None
    cache: Path
    seed: int
    data: Development
    threads: int
    progress: Progress
    workspace: Path | None


def take_in(
    source: str,
    *,
    labels: Sequence[str],
    out_of_scope: str | None,
    cache: Path,
    seed: int,
    data: Development,
    threads: int = 1,
    progress: Progress = _silent,
    endpoint: Mapping[str, Any] | None = None,
    workspace: Path | None = None,
) -> Candidate:
    """Make a candidate of the model at `source`, or find the one made before.

    Args:
        source: A checkpoint folder with a classification head, an encoder folder without one
            (a linear head is then fitted on train), an ONNX file or folder, a language model (a
            checkpoint folder, a GGUF file, or the address of an OpenAI-compatible endpoint), a
            candidate, a release of one candidate, or a hub id `org/name` or `org/name@revision`.
        labels: The task's labels; the model's own are matched to them by name.
        out_of_scope: The label that means "none of these"; a model may lack it.
        cache: Folder in which candidates are kept, one folder each.
        seed: Of the fitted head.
        data: What a head is fitted on.
        threads: For fitting a head.
        progress: Called with a phrase and the share done.
        endpoint: Model name, prices and limits of an endpoint (`[endpoint]` in `jettison.toml`).
        workspace: Where students will look for the teacher's answers: what fitting a head told of
            train is left there.

    Raises:
        InvalidInput: There is nothing at `source`, it is no model, or its labels differ.
        UnsafeArtifact: Its weights are pickled.
        BrokenArtifact: A file is missing or corrupt.
    """
    intake = _Intake(
        labels=tuple(labels),
        out_of_scope=out_of_scope,
        cache=cache,
        seed=seed,
        data=data,
        threads=threads,
        progress=progress,
        workspace=workspace,
    )
    if is_url(source):
        _check_ranks(source, data)
        return take_in_endpoint(source, endpoint or {}, data, cache=cache, seed=seed)
    path = Path(source).expanduser()
    name = path.resolve().name
    if not path.exists():
        if not is_hub_id(source):
            raise InvalidInput(
                f"a model must be a folder, an .onnx file or a hub id org/name, got {source!r}, "
                "where there is nothing."
            )
        path, name = fetch(source), source
    if path.is_file() and path.suffix.lower() == ".gguf":
        _check_ranks(source, data)
        return take_in_gguf(path, data, cache=cache, seed=seed)
    if path.is_file():
        return _take_in_onnx(path, intake)
    if (path / "release.json").exists():
        return _take_in_candidate(_released(path), intake)
    if (path / MANIFEST).exists():
        return _take_in_candidate(Candidate.at(path), intake)
    if (path / "config.json").exists() and any(path.glob("*.safetensors")):
        if (backend := language_backend(facts.read_config(path))) is not None:
            _check_ranks(source, data)
            return take_in_checkpoint(path, name, backend, data, cache=cache, seed=seed)
        if data.kind not in RANKING:
            return _take_in_checkpoint(path, name, intake)
    if data.kind in RANKING and any(path.glob("*.safetensors")):
        return take_in_embedder(path, name, data, cache=cache, seed=seed, progress=progress)
    if len(ggufs := sorted(path.glob("*.gguf"))) == 1:
        return take_in_gguf(ggufs[0], data, cache=cache, seed=seed)
    if found := sorted(path.glob("*.onnx")):
        return _take_in_onnx(found[0], intake)
    raise _not_a_model(path)


def _check_ranks(source: str, data: Development) -> None:
    """A language model ranks choices, and cannot search a corpus."""
    if data.kind == "embed":
        raise InvalidInput(
            "the incumbent of a task of kind 'embed' must be an embedder (folder of an encoder, or of a "
            f"static table), got the language model {source!r}. To have one order choices, use kind 'rank'."
        )


def _take_in_checkpoint(folder: Path, name: str, intake: _Intake) -> Candidate:
    """A folder with `config.json` and safetensors, with or without a classification head."""
    config = facts.read_config(folder)
    facts.check_config(folder, config)
    weights = sorted(p.name for p in folder.glob("*.safetensors"))
    files = ("config.json", "model.safetensors.index.json", *weights, *TOKENIZER_FILES)
    head = facts.has_head(folder, config)
    own = list(intake.labels)
    if head:
        own = match_labels(config.get("id2label"), intake.labels, intake.out_of_scope, where=folder)
    pooling = {} if head else facts.pooling_settings(folder)
    fitted_on = None if head else [intake.data.digest, intake.seed]
    read = [own, intake.out_of_scope, pooling, fitted_on, *_read_otherwise_before(folder, config)]
    key = _key([folder / file for file in files], read)
    if (made := find_verified(intake.cache / key)) is not None:
        return made
    with folder_atomic(intake.cache / key) as partial, _naming(folder, instead_of=partial):
        take_over(folder, partial, (*files, *LICENCE_FILES))
        facts.make_tokenizer(folder, partial)
        facts.check_vocabulary(partial, partial / "tokenizer.json")
        settings = {**_limits(folder, partial, config), **facts.layer_count(config), **pooling}
        fitted = None
        if not head:
            fitted = fit_head(
                partial,
                settings,
                intake.data,
                seed=intake.seed,
                threads=intake.threads,
                progress=intake.progress,
            )
        fitted_notes = {} if fitted is None else fitted.notes
        notes = {**fitted_notes, **facts.warnings_of(config)}
        candidate = _write(partial, name, "hf", own, settings, notes, folder, intake)
        _check_answers(candidate, numbered=head and not has_names(config.get("id2label")), intake=intake)
    made = Candidate.at(intake.cache / key)
    if fitted is not None and intake.workspace is not None:
        texts = [example.input for example in intake.data.train]
        keep_answers(intake.workspace, made, texts, fitted.train_logits)
    return made


@contextlib.contextmanager
def _naming(folder: Path, *, instead_of: Path) -> Iterator[None]:
    """Let errors name the user's own folder, not the one where its files were being put together."""
    try:
        yield
    except JettisonError as error:
        if str(instead_of) not in str(error):
            raise
        raise type(error)(str(error).replace(str(instead_of), str(folder))) from error


def _take_in_onnx(path: Path, intake: _Intake) -> Candidate:
    """An ONNX graph from token ids to logits, with its tokenizer beside it."""
    if path.suffix.lower() != ".onnx":
        raise _not_a_model(path)
    folder = path.parent
    config = facts.read_config(folder) if (folder / "config.json").exists() else {}
    n_logits = _check_graph(path)
    own = match_labels(config.get("id2label"), intake.labels, intake.out_of_scope, where=path)
    if n_logits is not None and n_logits != len(own):
        hint = " A regression or sigmoid head is not supported." if n_logits == 1 else ""
        raise InvalidInput(f"{path} must give one logit per label ({len(own)}), got {n_logits}.{hint}")
    # Weights over 2 GB stand beside the graph, which names their files.
    beside = [p.name for p in sorted(folder.glob("*")) if p.suffix in (".data", ".onnx_data")]
    read = [own, intake.out_of_scope, *_read_otherwise_before(folder, config)]
    key = _key([folder / f for f in (path.name, *beside, *TOKENIZER_FILES)], read)
    if (made := find_verified(intake.cache / key)) is not None:
        return made
    with folder_atomic(intake.cache / key) as partial, _naming(folder, instead_of=partial):
        link_or_copy(path.resolve(), partial / "model.onnx")
        take_over(folder, partial, (*beside, *TOKENIZER_FILES, *LICENCE_FILES))
        facts.make_tokenizer(folder, partial)
        name = folder.resolve().name if path.stem == "model" else path.stem
        settings = _limits(folder, partial, config)
        candidate = _write(partial, name, "onnx", own, settings, facts.warnings_of(config), folder, intake)
        _check_answers(candidate, numbered=not has_names(config.get("id2label")), intake=intake)
    return Candidate.at(intake.cache / key)


def _take_in_candidate(candidate: Candidate, intake: _Intake) -> Candidate:
    """A candidate is taken as it is, once its labels are the task's."""
    verify_candidate(candidate)
    own = match_labels(list(candidate.labels), intake.labels, intake.out_of_scope, where=candidate.path)
    if own != list(candidate.labels):
        raise InvalidInput(
            f"labels of {candidate.path} must be spelled as the task's, got {list(candidate.labels)[:8]}. "
            "Rename the task's labels, or take in the checkpoint the candidate was made from."
        )
    return candidate


def _released(folder: Path) -> Candidate:
    release = open_release(folder)
    found = candidate_folders(release.route)
    if len(found) != 1:
        raise InvalidInput(
            f"a release given as incumbent must route to one candidate, got {len(found)} in {folder}. "
            f"Name one of them: {[str(folder / part) for part in found][:4]}."
        )
    return read_candidate(release, found[0])


def _write(
    folder: Path,
    name: str,
    backend: str,
    labels: Sequence[str],
    settings: dict[str, Any],
    notes: dict[str, Any],
    source: Path,
    intake: _Intake,
) -> Candidate:
    """Write the manifest, with the first link of the lineage."""
    return write_candidate(
        folder,
        name=name,
        backend=backend,
        labels=labels,
        out_of_scope=intake.out_of_scope,
        settings=settings,
        licence=facts.read_licence(source),
        lineage=[
            AppliedStep(
                step="take_in",
                settings={"source": name},
                seed=intake.seed,
                versions=library_versions("torch", "transformers"),
                parents=(),
                data_digest=intake.data.digest if notes.keys() - {facts.WARNING} else None,
                notes=notes,
            )
        ],
    )


def _limits(source: Path, folder: Path, config: dict[str, Any]) -> dict[str, Any]:
    return {
        "max_tokens": facts.max_tokens(source, config),
        "pad_id": facts.pad_id(folder, config),
        **facts.cut_on_the_left(source),
    }


def _read_otherwise_before(folder: Path, config: dict[str, Any]) -> list[Any]:
    """What earlier versions read wrong: in the key, so that no candidate they kept is found again."""
    found: dict[str, Any] = {**facts.warnings_of(config), **facts.cut_on_the_left(folder)}
    family = str(config.get("model_type"))
    if family in facts.FROM_PADDING and "roberta" not in family:
        found["max_tokens"] = facts.max_tokens(folder, config)
    return [found] if found else []


def _check_answers(candidate: Candidate, *, numbered: bool, intake: _Intake) -> None:
    """Open the candidate and let it answer; where its labels are only numbered, check their order.

    Raises:
        BrokenArtifact: It does not answer.
    """
    model = open_model(candidate)
    try:
        model.predict(["a", "b c"])
        if numbered:
            known = [e for e in intake.data.train if e.expected in candidate.labels][:256]
            answers = [output.label for output in model.predict([e.input for e in known])]
            check_order(answers, [str(e.expected) for e in known], where=candidate.name)
    except (JettisonError, MemoryError):
        raise
    except Exception as error:  # runtimes raise anything
        if is_disk_full(error):
            raise
        first = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        raise BrokenArtifact(f"{candidate.path} must answer a batch of short texts, got {first}") from error
    finally:
        model.close()


def _check_graph(path: Path) -> int | None:
    """Read a graph's inputs and outputs; return its number of logits where that is fixed."""
    session = open_session(path)
    inputs = [node.name for node in session.get_inputs()]
    if "input_ids" not in inputs or set(inputs) - {"input_ids", "attention_mask", "token_type_ids"}:
        raise InvalidInput(f"inputs of {path} must be input_ids and attention_mask, got {inputs}.")
    shapes = {node.name: node.shape for node in session.get_inputs()}
    if any(isinstance(size, int) for shape in shapes.values() for size in shape):
        raise InvalidInput(
            f"inputs of {path} must have free batch and token axes, got {shapes}. "
            "Export the model again with dynamic axes."
        )
    shape = session.get_outputs()[0].shape
    if len(shape) != 2:
        raise InvalidInput(
            f"the first output of {path} must be logits of shape (n, n_labels), got {shape}. "
            "Take in the encoder's torch folder instead, and a head is fitted."
        )
    return shape[1] if isinstance(shape[1], int) else None


def _key(files: Sequence[Path], facts_too: list[Any]) -> str:
    """Identity of a candidate to be: content of its files, and what else decides."""
    return value_sha256([[f.name, file_sha256(f)] for f in files if f.is_file()] + facts_too)[:20]


def _not_a_model(path: Path) -> InvalidInput | UnsafeArtifact:
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    if pickled := [file for file in files if file.suffix.lower() in UNSAFE_SUFFIXES]:
        return UnsafeArtifact(
            f"weights must be safetensors, ONNX or GGUF, got {pickled[0]}: opening it could run code. "
            "Load the model where you trust it and save it as a folder with "
            "`save_pretrained(folder, safe_serialization=True)`."
        )
    return InvalidInput(
        "the incumbent must be a folder with config.json and *.safetensors, an .onnx or .gguf file, "
        f"a candidate, a release or an address, got {path}."
    )
