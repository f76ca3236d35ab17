"""OpenAI-compatible endpoints as candidates: a folder with `endpoint.json`, and no weights.

The key is read from the environment variable that the file names, and is in no file, log or error.
Every answer is kept (see `jettison.backends.answer_cache`), so that a killed run asks only for what it
has not got.
"""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from jettison.backends.endpoint_engine import EndpointEngine
from jettison.backends.endpoint_logged import logged_answers
from jettison.backends.endpoint_settings import Endpoint, check_endpoint
from jettison.backends.prompted import PromptedModel, open_prompted
from jettison.candidate import AppliedStep, Candidate, library_versions, write_candidate
from jettison.errors import InvalidInput
from jettison.files import read_json, value_sha256, write_json
from jettison.language import Completion
from jettison.task.log_files import read_logged
from jettison.task.prompt import Prompt

MANIFEST = "endpoint.json"
LOGGED = "logged.jsonl"
BACKENDS = ("openai", "vllm")


def endpoint_candidate(
    folder: Path,
    *,
    url: str,
    model: str,
    labels: Sequence[str] = (),
    out_of_scope: str | None = None,
    settings: Mapping[str, Any] | None = None,
    backend: str = "openai",
    name: str | None = None,
    **given: Any,
) -> Candidate:
    """Write a candidate that is a model behind an address; nothing is sent.

    Args:
        folder: Where; it must be there.
        url: Base address, as `https://host/v1`.
        model: Its name there.
        labels: Of the task, for kind `classify`.
        out_of_scope: The label that means "none of these".
        settings: `kind`, `prompt` and the like; see `jettison.backends.prompted`.
        backend: `openai`, or `vllm` for a server with its extras.
        name: Of the candidate; None is the model's.
        given: Further fields of `Endpoint`.

    Raises:
        InvalidInput: A field is unknown or out of range.
    """
    try:
        endpoint = msgspec.convert({"url": url.rstrip("/"), "model": model, **given}, Endpoint)
    except msgspec.ValidationError as error:
        raise InvalidInput(f"[endpoint]: {error}.") from error
    check_endpoint(endpoint)
    if backend not in BACKENDS:
        raise InvalidInput(f"[endpoint] backend must be one of {list(BACKENDS)}, got {backend!r}.")
    if endpoint.logged is not None:
        endpoint = _with_logged(endpoint, folder, settings or {})
    write_json(folder / MANIFEST, endpoint)
    return write_candidate(
        folder,
        name=name or model.rsplit("/", 1)[-1],
        backend=backend,
        labels=labels,
        out_of_scope=out_of_scope,
        settings=settings,
        lineage=[
            AppliedStep(
                step="take_in",
                settings={"source": f"{endpoint.url}#{model}"},
                seed=0,
                versions=library_versions(),
                parents=(),
            )
        ],
    )


def read_endpoint(candidate: Candidate) -> Endpoint:
    """The endpoint of a candidate.

    Raises:
        InvalidInput: `endpoint.json` is missing or malformed.
    """
    endpoint = read_json(candidate.path / MANIFEST, Endpoint)
    check_endpoint(endpoint)
    return endpoint


def open_endpoint(candidate: Candidate) -> PromptedModel:
    """Open an endpoint behind the candidate's prompt; nothing is sent yet.

    Raises:
        InvalidInput: `endpoint.json` is missing or malformed, or the key's variable is not set.
    """
    return _opened(candidate, is_vllm=False)


def open_vllm(candidate: Candidate) -> PromptedModel:
    """The same for a server with vLLM's extras: likelihoods of given texts, begun answers, choices.

    Raises:
        InvalidInput: As of `open_endpoint`.
    """
    return _opened(candidate, is_vllm=True)


def _opened(candidate: Candidate, *, is_vllm: bool) -> PromptedModel:
    endpoint = read_endpoint(candidate)
    known: Mapping[str, Completion] = {}
    # A candidate that asks otherwise has not been answered yet.
    if endpoint.logged is not None and endpoint.logged_asked == _asked(candidate.settings):
        known = logged_answers(read_logged(candidate.path / LOGGED), endpoint)
    return open_prompted(EndpointEngine(endpoint, is_vllm=is_vllm), candidate, known=known)


def _with_logged(endpoint: Endpoint, folder: Path, settings: Mapping[str, Any]) -> Endpoint:
    """The logged answers lie with the candidate: what it answers must not change under its digest."""
    source = Path(endpoint.logged or "")
    prompts = read_logged(source).prompts
    prompt = msgspec.convert(settings.get("prompt", {}), Prompt)
    if prompts and prompt.digest not in prompts:
        raise InvalidInput(
            f"[endpoint] logged must be answers to the task's own prompt, got {source}, whose answers were "
            "given to another. Put [prompt] back as `jettison init --logs` wrote it, or leave `logged` out "
            "to ask again."
        )
    copied = folder / LOGGED
    if copied.resolve() != source.resolve():
        shutil.copyfile(source, copied)  # no link: a log may be written on
    return msgspec.structs.replace(endpoint, logged=LOGGED, logged_asked=_asked(settings))


def _asked(settings: Mapping[str, Any]) -> str:
    """Identity of all that an answer depends on besides the input."""
    return value_sha256({key: settings.get(key) for key in ("prompt", "schema", "samples")})
