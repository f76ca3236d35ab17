"""Takes in a language model: a causal or encoder-decoder checkpoint, a GGUF file, or an endpoint."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from jettison.backends.gguf_file import read_gguf_facts
from jettison.backends.open import open_model
from jettison.candidate import AppliedStep, Candidate, find_verified, library_versions, write_candidate
from jettison.compress import checkpoint_facts as facts
from jettison.compress.checkpoint import LICENCE_FILES, TOKENIZER_FILES, take_over
from jettison.errors import BrokenArtifact, InvalidInput
from jettison.files import file_sha256, folder_atomic, link_or_copy, value_sha256
from jettison.task import Development
from jettison.task.prompt import Prompt

CAUSAL = ("ForCausalLM", "LMHeadModel")
SEQ2SEQ = ("ForConditionalGeneration", "ForSeq2SeqLM")
LANGUAGE_BACKENDS = (
    "hf_causal",
    "hf_seq2seq",
    "llamacpp",
    "openvino_causal",
    "onnx_genai",
    "openai",
    "vllm",
    "fake_language",
)
"""Backends that are asked a prompt."""
_MORE_FILES = ("generation_config.json", "chat_template.jinja", "chat_template.json")


def is_language(candidate: Candidate) -> bool:
    """Whether a candidate is asked a prompt, rather than a text."""
    return candidate.backend in LANGUAGE_BACKENDS


def language_backend(config: Mapping[str, Any]) -> str | None:
    """Backend of a checkpoint by the architecture its `config.json` names; None is no language model."""
    names = [str(name) for name in config.get("architectures") or []]
    if any(name.endswith(CAUSAL) for name in names):
        return "hf_causal"
    return "hf_seq2seq" if any(name.endswith(SEQ2SEQ) for name in names) else None


def is_url(source: str) -> bool:
    """Whether an incumbent is named by an address rather than a place on disk."""
    return source.startswith(("http://", "https://"))


def prompt_of(data: Development) -> Prompt:
    """The task's prompt, or the plainest one for its kind; labels come first, so that they are shared."""
    if data.prompt is not None:
        return data.prompt
    if data.kind == "classify":
        return Prompt(
            template="Answer with one of these labels: {labels}.\n\nText: {input}\nLabel:",
            max_tokens=16,
            stop=("\n",),
        )
    if data.kind == "choose":
        return Prompt(template="{input}", answer_prefix="\nAnswer:", max_tokens=16)
    return Prompt()


def language_settings(data: Development) -> dict[str, Any]:
    """What every language candidate of a task is asked with."""
    schema = {} if data.schema is None else {"schema": data.schema}
    return {"kind": data.kind, "prompt": msgspec.to_builtins(prompt_of(data)), **schema}


def take_in_checkpoint(
    folder: Path, name: str, backend: str, data: Development, *, cache: Path, seed: int
) -> Candidate:
    """A checkpoint folder of a language model, its weights as safetensors.

    Raises:
        BrokenArtifact: It does not open or does not answer.
    """
    config = facts.read_config(folder)
    weights = sorted(p.name for p in folder.glob("*.safetensors"))
    files = ("config.json", "model.safetensors.index.json", *weights, *TOKENIZER_FILES, *_MORE_FILES)
    n_layers = config.get("num_hidden_layers") or config.get("n_layer") or config.get("num_layers")
    settings = {**language_settings(data), **({"n_layers": n_layers} if n_layers else {})}
    return _taken(folder, files, name, backend, settings, data, cache=cache, seed=seed)


def take_in_gguf(path: Path, data: Development, *, cache: Path, seed: int) -> Candidate:
    """A GGUF file with its tokenizer inside.

    Raises:
        BrokenArtifact: It does not keep to its format, does not open or does not answer.
    """
    read_gguf_facts(path)
    settings = language_settings(data)
    return _taken(
        path.parent,
        (path.name,),
        path.stem,
        "llamacpp",
        settings,
        data,
        cache=cache,
        seed=seed,
        rename=path,
    )


def take_in_endpoint(
    url: str, given: Mapping[str, Any], data: Development, *, cache: Path, seed: int
) -> Candidate:
    """An OpenAI-compatible endpoint. It is not asked here; the first evaluation does.

    Args:
        url: Base address, as `https://host/v1`.
        given: `[endpoint]` of `jettison.toml`: `model`, `api_key_env`, prices, limits.
        data: Its kind, labels and prompt.
        cache: Folder in which candidates are kept.
        seed: Kept in the lineage.

    Raises:
        InvalidInput: A setting is missing, unknown or out of range.
    """
    from jettison.backends.endpoint import endpoint_candidate

    if not given.get("model"):
        raise InvalidInput(
            'an endpoint must be given with its model, got none. Add `[endpoint]` with `model = "…"`.'
        )
    settings = language_settings(data)
    logged = Path(str(given["logged"])) if given.get("logged") else None
    content = file_sha256(logged) if logged is not None and logged.is_file() else None
    key = value_sha256([url, dict(given), content, settings, data.labels, data.out_of_scope])[:20]
    folder = cache / key
    if (made := find_verified(folder)) is not None:
        return made
    with folder_atomic(folder) as partial:
        endpoint_candidate(
            partial, url=url, labels=data.labels, out_of_scope=data.out_of_scope, settings=settings, **given
        )
    return Candidate.at(folder)


def _taken(
    source: Path,
    files: tuple[str, ...],
    name: str,
    backend: str,
    settings: dict[str, Any],
    data: Development,
    *,
    cache: Path,
    seed: int,
    rename: Path | None = None,
) -> Candidate:
    present = [source / file for file in files if (source / file).is_file()]
    labels = data.labels if data.kind == "classify" else ()
    identity = [[p.name, file_sha256(p)] for p in present]
    key = value_sha256([identity, backend, settings, labels, data.out_of_scope])[:20]
    folder = cache / key
    if (made := find_verified(folder)) is not None:
        return made
    with folder_atomic(folder) as partial:
        if rename is not None:
            link_or_copy(rename.resolve(), partial / "model.gguf")
            take_over(source, partial, LICENCE_FILES)
        else:
            take_over(source, partial, (*files, *LICENCE_FILES))
        candidate = write_candidate(
            partial,
            name=name,
            backend=backend,
            labels=labels,
            out_of_scope=data.out_of_scope,
            settings=settings,
            licence=facts.read_licence(source),
            lineage=[
                AppliedStep(
                    step="take_in",
                    settings={"source": name},
                    seed=seed,
                    versions=library_versions("torch", "transformers"),
                    parents=(),
                )
            ],
        )
        _check_answers(candidate, data)
    return Candidate.at(folder)


def _check_answers(candidate: Candidate, data: Development) -> None:
    """Let it answer one example, so that a model that cannot is told before any work is done."""
    examples = (data.dev or data.train or data.unlabelled)[:1]
    model = open_model(candidate)
    try:
        outputs = model.predict([example.asked for example in examples])
    finally:
        model.close()
    if outputs and outputs[0].error is not None:
        raise BrokenArtifact(f"{candidate.name} must answer the task's inputs, got: {outputs[0].error}")
