"""Task files of lm-eval (YAML with Jinja) read as tasks: the subset that is data, not Python code.

Prompts come out letter for letter as lm-eval renders them without a chat template: description,
shots and question joined by its delimiters. Shots are the same for every example.

Source: EleutherAI/lm-evaluation-harness 0.4.13, `api/task.py`.
"""

import random
import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

from jettison.errors import InvalidInput
from jettison.task.lm_eval_config import LmEvalTask, Metric, read_lm_eval_config
from jettison.task.lm_eval_docs import Doc, docs_of, row_of, template_of_nothing
from jettison.task.prompt import Prompt, Shot
from jettison.task.read import Found, found_of, task_of
from jettison.task.source import DataSource, TaskSource
from jettison.task.types import Finding, Task, TaskKind

SEED = 1234
"""lm-eval's own seed of the draw of shots."""
_ACCURACY: dict[str, Literal["none", "length", "unconditional"]] = {
    "acc": "none",
    "acc_norm": "length",
    "acc_mutual_info": "unconditional",
}
_TEXT_SCORERS = {"exact_match": "exact", "chrf": "chrf", "f1": "f1"}


def read_lm_eval(path: Path) -> Task:
    """Read a task file of lm-eval and the data it names.

    Raises:
        InvalidInput: It uses a key or a value outside the subset (the message names it), its
            templates do not render, or its data breaks a rule of tasks.
    """
    config = read_lm_eval_config(path)
    folder = path.absolute().parent
    kind: TaskKind = "choose" if config.output_type == "multiple_choice" else "generate"
    shots, drawn = _shots(config, folder)
    scorers, settings, notes = _scorers(config)
    read = partial(_found, config, folder, kind, (*drawn, *notes))
    return task_of(
        read(),
        name=config.task,
        kind=kind,
        folder=folder,
        prompt=_prompt(config, shots),
        scorers=scorers,
        scorer_settings=settings,
        read_again=read,
    )


def _found(config: LmEvalTask, folder: Path, kind: TaskKind, notes: Sequence[Finding]) -> Found:
    """Examples by split; lm-eval's validation split is our dev where there is a test split beside it."""
    names = {"train": config.training_split, "test": config.test_split or config.validation_split}
    if config.test_split:
        names["dev"] = config.validation_split
    shots = _shot_docs(config, folder)
    taken = {one.place for one in shots}
    rows = [
        row_of(config, doc, split=split)
        for split, name in names.items()
        if name is not None
        for doc in docs_of(config, folder, name)
        if doc.place not in taken
    ]
    source = TaskSource(format=1, name=config.task, kind=kind, data=DataSource(path=config.dataset_path))
    found = found_of(rows, source, folder)
    return Found(splits=found.splits, labels=(), notes=(*found.notes, *notes))


def _shot_docs(config: LmEvalTask, folder: Path) -> list[Doc]:
    """The documents that are shown, never of the split that decides."""
    n = config.num_fewshot or 0
    if n == 0:
        return []
    given = config.fewshot_config
    split = given.split or config.fewshot_split
    if split is None and given.samples is not None:
        pool = [
            Doc(values=sample, place=f"fewshot_config.samples[{i}]")
            for i, sample in enumerate(given.samples)
        ]
    else:
        split = split or config.training_split or (config.validation_split if config.test_split else None)
        if split is None or split == (config.test_split or config.validation_split):
            raise InvalidInput(
                f"`fewshot_split` of task {config.task!r} must be another split than the one that "
                f"decides, got {split!r}. Name the training split."
            )
        pool = docs_of(config, folder, split)
    if n > len(pool):
        raise InvalidInput(f"`num_fewshot` of task {config.task!r} must be at most {len(pool)}, got {n}.")
    return pool[:n] if given.sampler == "first_n" else random.Random(SEED).sample(pool, n)


def _shots(config: LmEvalTask, folder: Path) -> tuple[tuple[Shot, ...], tuple[Finding, ...]]:
    docs = _shot_docs(config, folder)
    shots = []
    for doc in docs:
        row = row_of(config, doc, split="train")
        shots.append(Shot(input=row.input, answer=row.expected or "", choices=row.choices))
    if not docs or config.fewshot_config.sampler == "first_n":
        return tuple(shots), ()
    message = (
        f"the {len(docs)} shots were drawn once (seed {SEED}) and are the same for every example; lm-eval "
        "draws anew for each. `fewshot_config: {sampler: first_n}` makes both the same."
    )
    return tuple(shots), (Finding(rule="same_shots", severity="note", message=message),)


def _prompt(config: LmEvalTask, shots: tuple[Shot, ...]) -> Prompt:
    generation = config.generation_kwargs
    normalise = _normalise(config)
    until = [generation.until] if isinstance(generation.until, str) else generation.until
    return Prompt(
        system=template_of_nothing(config.description, "description"),
        after_system="",
        shots=shots,
        between=config.fewshot_delimiter,
        before_answer=config.target_delimiter,
        chat=False,
        normalise=normalise,
        alone="" if normalise == "unconditional" else None,
        max_tokens=generation.max_gen_toks,
        stop=tuple([config.fewshot_delimiter] if until is None else until),
    )


def _normalise(config: LmEvalTask) -> Literal["none", "length", "unconditional"]:
    metrics = [one.metric for one in config.metric_list or ()]
    return next((_ACCURACY[name] for name in metrics if name in _ACCURACY), "none")


def _scorers(
    config: LmEvalTask,
) -> tuple[tuple[str, ...], dict[str, dict[str, Any]], tuple[Finding, ...]]:
    """Scorers in the order of the metrics, with settings; metrics that nothing here measures are noted."""
    if config.output_type == "multiple_choice":
        metrics = config.metric_list or [Metric(metric="acc")]
        measured = [one.metric for one in metrics if one.metric in _ACCURACY][:1]
        scorers: list[str] = ["label"] if measured else []
    elif config.output_type == "loglikelihood":
        metrics = config.metric_list or [Metric(metric="acc"), Metric(metric="perplexity")]
        measured = [one.metric for one in metrics if one.metric == "acc"]
        scorers = ["begins_with"] if measured else []
    else:
        metrics = config.metric_list or [Metric(metric="exact_match")]
        measured = [one.metric for one in metrics if one.metric in _TEXT_SCORERS]
        scorers = [_text_scorer(one) for one in metrics if one.metric in _TEXT_SCORERS]
    if not scorers:
        raise InvalidInput(
            f"`metric_list` of task {config.task!r} must have a metric that is measured here "
            f"({sorted({*_ACCURACY, *_TEXT_SCORERS})}), got {[one.metric for one in metrics]}."
        )
    left = [one.metric for one in metrics if one.metric not in measured]
    notes = [_noted(f"metrics of lm-eval that are not measured: {', '.join(left)}.")] if left else []
    settings: dict[str, dict[str, Any]] = {}
    if (pattern := _pattern(config)) is not None:
        scorers = ["regex", *(name for name in scorers if name not in ("exact", "normalized_exact"))]
        settings["regex"] = pattern
        notes.append(_noted("what the filter's pattern finds is compared without case."))
        if len(config.filter_list or ()) > 1:
            notes.append(_noted("of several filters the first is read."))
    return tuple(dict.fromkeys(scorers)), settings, tuple(notes)


def _text_scorer(metric: Metric) -> str:
    if metric.ignore_numbers or metric.regexes_to_ignore:
        raise InvalidInput(
            "`metric_list` must be without ignore_numbers and regexes_to_ignore, got one of them for "
            f"{metric.metric!r}."
        )
    relaxed = metric.ignore_case or metric.ignore_punctuation
    return (
        "normalized_exact" if metric.metric == "exact_match" and relaxed else _TEXT_SCORERS[metric.metric]
    )


def _pattern(config: LmEvalTask) -> dict[str, Any] | None:
    """Settings of the scorer `regex` that takes the answer out as the first filter does."""
    steps = config.filter_list[0].filter if config.filter_list else []
    found: dict[str, Any] | None = None
    for step in steps:
        name = step.get("function")
        if name in ("take_first", "remove_whitespace"):
            continue
        if name != "regex" or found is not None or config.output_type != "generate_until":
            raise InvalidInput(
                f"`filter_list` of task {config.task!r} must be of one regex, take_first and "
                f"remove_whitespace, got {name!r}."
            )
        found = _pattern_settings(config, step)
    return found


def _pattern_settings(config: LmEvalTask, step: dict[str, Any]) -> dict[str, Any]:
    pattern, at = step.get("regex_pattern", r"#### (\-?[0-9\.\,]+)"), step.get("group_select", 0)
    try:
        n_groups = re.compile(pattern).groups
    except (re.error, TypeError) as error:
        raise InvalidInput(
            f"`filter_list` of task {config.task!r} must have a regular expression, got {pattern!r}: "
            f"{error}."
        ) from error
    if n_groups > 1 or at not in (0, -1):
        raise InvalidInput(
            f"`filter_list` of task {config.task!r} must take the first (group_select 0) or last (-1) "
            f"match of a pattern with at most one group, got {n_groups} groups and group_select {at!r}."
        )
    whole = pattern if n_groups else f"({pattern})"
    # lm-eval's ^ and $ are the ends of the answer, not of its lines.
    whole = f"(?-m:{whole})" if re.search(r"[\^$]", whole) else whole
    return {"pattern": whole, "take": "last" if at == -1 else "first"}


def _noted(message: str) -> Finding:
    return Finding(rule="lm_eval_subset", severity="note", message=message)
