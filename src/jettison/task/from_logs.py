"""Request logs into a task: one template's inputs, and what the incumbent answered to them.

The answers are the incumbent's outputs, not the truth: they go into a file of predictions, and the
examples stay unlabelled, unless the owner says that the answers may be trusted.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec

from jettison.errors import CannotWrite, InvalidInput
from jettison.files import write_atomic
from jettison.task.examples import text_key
from jettison.task.log_answers import answers_in
from jettison.task.log_calls import Calls, read_calls
from jettison.task.log_files import OUTPUTS_FILE, TASK_FILE, LoggedExample, files_of, input_id, task_content
from jettison.task.log_templates import Template, templates_of
from jettison.task.log_use import Use, fuller
from jettison.task.pii import mask
from jettison.task.prompting import check_template
from jettison.task.read import read_task
from jettison.task.similar import near_duplicates
from jettison.task.types import TaskKind

MOST_COMPARED = 50_000
"""Inputs among which near duplicates are looked for."""
_SHOWN = 20


class SeenTemplate(msgspec.Struct, frozen=True, kw_only=True):
    """A template that was recognised, in short."""

    system: str
    prefix: str
    suffix: str
    n_calls: int
    n_requests: int
    """Different ones."""


class LogReport(msgspec.Struct, frozen=True, kw_only=True):
    """What was found in the logs, and what was written."""

    kind: TaskKind
    labels: tuple[str, ...]
    n_lines: int
    n_calls: int
    n_bad: int
    bad: tuple[str, ...]
    """The first lines passed over: place and reason."""
    n_unmatched: int
    """Halves of batches without the other half."""
    kept_share: float
    """Share of different requests that were kept; below 1 where there were too many to hold."""
    templates: tuple[SeenTemplate, ...]
    """The most used first, up to twenty."""
    n_templates: int
    taken: int
    """Which template the task is of, from 1."""
    n_examples: int
    n_duplicates: int
    """Calls of the template that repeat another's input; each input's count is its weight."""
    n_near_duplicates: int
    n_inconsistent: int
    """Inputs that got more than one answer."""
    n_outside: int
    """Answers outside the closed set of labels."""
    models: dict[str, int]
    """Who answered → to how many inputs, the most frequent first; a log need not say it."""
    n_counted: int
    """Inputs to whose answer the log counts the tokens, as a price needs."""
    n_timed: int
    """Inputs of whose answer the log says how long it took."""
    prompt_tokens: float | None
    completion_tokens: float | None
    """Means of those that are counted."""
    pii: dict[str, int]
    """Kind → how often it was found."""
    masked: bool
    notes: tuple[str, ...]
    files: tuple[str, ...]


def task_from_logs(
    paths: Sequence[Path],
    out: Path,
    *,
    name: str | None = None,
    template: int = 1,
    trust_answers: bool = False,
    keep_pii: bool = False,
    max_calls: int = 100_000,
    force: bool = False,
) -> LogReport:
    """Write `task.toml`, its examples and the incumbent's outputs.

    Args:
        paths: Log files.
        out: Folder to write into.
        name: Of the task; the folder's by default.
        template: Which of the recognised templates, the most used is 1.
        trust_answers: Take the answers for what is expected, and set a fifth apart as test.
        keep_pii: Leave addresses and numbers of persons as they are.
        max_calls: Most different requests to hold in memory.
        force: Replace files that are there.

    Raises:
        InvalidInput: A file holds no calls, too many lines are unreadable, or there is no such template.
        CannotWrite: A file is there already and `force` is not given.
    """
    _check_free(out, force=force)
    calls = read_calls(paths, max_calls=max_calls)
    templates = templates_of(calls.calls)
    if not 1 <= template <= len(templates):
        raise InvalidInput(f"the template must be from 1 to {len(templates)}, got {template}.")
    chosen, notes = _sound(templates[template - 1])
    examples, pii, shots = _examples(chosen, keep_pii=keep_pii)
    answers = answers_in([(example.output, example.n) for example in examples])
    notes += _notes(chosen, calls, pii_in_prompt=_pii_in_prompt(chosen))
    notes += _mixed([example.use.model for example in examples])
    content = task_content(name or out.absolute().name, chosen, shots, answers, trust=trust_answers)
    files = files_of(content, examples, answers, trust=trust_answers)
    for file, text in files.items():
        write_atomic(out / file, text)
    read_task(out / TASK_FILE)
    near = near_duplicates(list(dict.fromkeys(text_key(e.input) for e in examples[:MOST_COMPARED])))
    return LogReport(
        kind=answers.kind,
        labels=answers.labels,
        n_lines=calls.n_lines,
        n_calls=calls.n_read,
        n_bad=calls.n_bad,
        bad=tuple(calls.bad),
        n_unmatched=calls.n_unmatched,
        kept_share=calls.kept_share,
        templates=tuple(_seen(one) for one in templates[:_SHOWN]),
        n_templates=len(templates),
        taken=template,
        n_examples=len(examples),
        n_duplicates=chosen.n_calls - len(examples),
        n_near_duplicates=len({i for pair in near for i in (pair.first, pair.second)}),
        n_inconsistent=sum(len({answers.plain(o) for o in e.outputs}) > 1 for e in examples),
        n_outside=sum(answers.label(e.output) is None for e in examples) if answers.labels else 0,
        **_took([example.use for example in examples]),
        pii=dict(pii),
        masked=not keep_pii,
        notes=tuple(notes),
        files=tuple(str(out / file) for file in files),
    )


def _check_free(out: Path, *, force: bool) -> None:
    for file in (TASK_FILE, OUTPUTS_FILE):
        if (out / file).exists() and not force:
            raise CannotWrite(
                f"{out / file} is there already and stays as it is. Replace it by `--force`, "
                "or `--output DIR`."
            )


def _sound(template: Template) -> tuple[Template, list[str]]:
    """The template, unless its own braces would be taken for places."""
    try:
        check_template(f"{template.prefix}{{input}}{template.suffix}", "generate")
        if "{input}" in template.prefix + template.suffix:
            raise InvalidInput("it has a place of its own")
    except InvalidInput:
        note = "what all requests share has braces of its own, so each whole message is taken as the input."
        return replace(template, prefix="", suffix=""), [note]
    return template, []


def _examples(
    template: Template, *, keep_pii: bool
) -> tuple[list[LoggedExample], Counter[str], list[tuple[str, str]]]:
    """Inputs with their answers, masked and merged; worked examples of the prompt, masked too."""
    found: Counter[str] = Counter()
    merged: dict[str, Counter[str]] = {}
    uses: dict[tuple[str, str], Use] = {}
    asked: Counter[str] = Counter()
    for call in template.calls:
        texts = (template.input_of(call.request.user), *call.answers)
        masked, counts = mask(texts)
        found += counts
        text, *answers = texts if keep_pii else masked
        outputs = merged.setdefault(text, Counter())
        for answer, (whole, n) in zip(answers, call.answers.items(), strict=True):
            outputs[answer] += n
            uses[text, answer] = fuller(uses.get((text, answer)), call.uses.get(whole, Use()))
        asked[text] += call.n
    examples = [
        LoggedExample(
            id=input_id(text),
            input=text,
            n=asked[text],
            outputs=dict(ranked := outputs.most_common()),
            use=uses[text, ranked[0][0]],
        )
        for text, outputs in merged.items()
    ]
    turns, counts = mask(tuple(text for _, text in template.turns))
    said = [text for _, text in template.turns] if keep_pii else list(turns)
    return examples, found + counts, list(zip(said[::2], said[1::2], strict=False))


def _took(uses: Sequence[Use]) -> dict[str, Any]:
    """What the answers took, as fields of the report."""
    counted = [(use.prompt_tokens, use.completion_tokens) for use in uses if use.is_counted]
    means = [sum(n or 0 for n in side) / len(counted) for side in zip(*counted, strict=True)] or [
        None,
        None,
    ]
    return {
        "models": dict(Counter(use.model for use in uses if use.model is not None).most_common()),
        "n_counted": len(counted),
        "n_timed": sum(use.latency_s is not None for use in uses),
        "prompt_tokens": means[0],
        "completion_tokens": means[1],
    }


def _pii_in_prompt(template: Template) -> bool:
    return bool(mask((template.system, template.prefix, template.suffix))[1])


def _notes(template: Template, calls: Calls, *, pii_in_prompt: bool) -> list[str]:
    notes = []
    if pii_in_prompt:
        notes.append("the prompt itself names an address or number; it stays, being the same for everyone.")
    if template.n_systems > 1:
        notes.append(
            f"{template.n_systems} system messages differ in their numbers alone; the most frequent is "
            "taken."
        )
    if template.turns and [role for role, _ in template.turns] != ["user", "assistant"] * (
        len(template.turns) // 2
    ):
        notes.append("earlier turns that are no pairs of question and answer are left out of the prompt.")
    if calls.kept_share < 1:
        notes.append(
            f"too many different requests to hold: {calls.kept_share:.1%} of them were kept, "
            "chosen by content."
        )
    return notes


def _mixed(models: Sequence[str | None]) -> list[str]:
    """A note where more than one model answered: they are no single incumbent."""
    named = Counter(model for model in models if model is not None).most_common()
    if len(named) < 2:
        return []
    said = ", ".join(f"{model} {n}" for model, n in named[:5])
    return [f"more than one model answered ({said}): as one incumbent's they are taken all together."]


def _seen(template: Template) -> SeenTemplate:
    return SeenTemplate(
        system=template.system,
        prefix=template.prefix,
        suffix=template.suffix,
        n_calls=template.n_calls,
        n_requests=len(template.calls),
    )
