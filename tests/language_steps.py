"""What tests of the steps for language models share: tiny models behind a prompt, and a context."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from jettison.candidate import Candidate, write_candidate
from jettison.compress.step import StepContext, apply_step, step_from
from jettison.task import Development
from jettison.task.prompt import Prompt
from tiny import make_tiny_development, make_tiny_language

PROMPT = Prompt(template="Labels: {labels}\nText: {input}\nLabel:", max_tokens=8, chat=False)
DATA = make_tiny_development(n_labels=3, out_of_scope=False, train=48, dev=40, unlabelled=16)
TEXTS = [example.input for example in DATA.dev]


def as_candidate(folder: Path, data: Development = DATA, **settings: Any) -> Candidate:
    """The checkpoint in a folder, asked the prompt of these tests."""
    given = {"kind": data.kind, "prompt": msgspec.to_builtins(PROMPT), "threads": 1}
    # Steps are held to float32 references; on a GPU `auto` would be bfloat16.
    given |= {"dtype": "float32", **settings}
    labels = data.labels if data.kind == "classify" else ()
    return write_candidate(folder, name=folder.name, backend="hf_causal", labels=labels, settings=given)


def language_candidate(
    folder: Path, data: Development = DATA, *, settings: dict[str, Any] | None = None, **shape: Any
) -> Candidate:
    """A tiny causal model with random weights."""
    words = [example.input for example in data.train] + [f"Labels: {', '.join(data.labels)}\nText: Label:"]
    make_tiny_language(folder, words, **shape)
    return as_candidate(folder, data, **(settings or {}))


def save_changed(candidate: Candidate, folder: Path, change: Callable[[Any], None]) -> Candidate:
    """The same candidate with other weights."""
    from jettison.compress.causal import load_causal, save_causal

    model = load_causal(candidate)
    change(model)
    folder.mkdir()
    save_causal(model, folder, source=candidate.path)
    return write_candidate(
        folder, name=folder.name, backend="hf_causal", labels=candidate.labels, settings=candidate.settings
    )


def context_in(folder: Path, incumbent: Candidate, data: Development = DATA, **given: Any) -> StepContext:
    """A context that keeps its files under a folder."""
    return StepContext(
        data=data, incumbent=incumbent, folder=folder, workspace=folder / "workspace", **given
    )


def apply(
    folder: Path,
    candidate: Candidate,
    step: dict[str, Any],
    *,
    incumbent: Candidate | None = None,
    data: Development = DATA,
    **given: Any,
) -> Candidate:
    """Apply one step."""
    context = context_in(folder, incumbent or candidate, data, **given)
    return apply_step(step_from(step), candidate, context, cache=folder / "cache")
