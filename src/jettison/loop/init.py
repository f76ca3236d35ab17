"""`jettison init`: looks at a model and data, and writes a task and a run that fit them."""

import os
from pathlib import Path

import msgspec

from jettison.errors import CannotWrite, InvalidInput, UnknownName
from jettison.files import write_atomic
from jettison.loop.blocking import blocking_findings
from jettison.loop.init_text import TaskFacts, run_text, task_text
from jettison.loop.look_model import (
    LabelLook,
    ModelLook,
    TokenLook,
    compare_labels,
    count_tokens,
    look_at_model,
)
from jettison.loop.propose import Proposal, propose_gates
from jettison.task import Finding, Task
from jettison.task.guess import Guess, guess_data
from jettison.task.kinds import DEFAULT_SCORERS
from jettison.task.read import build_task
from jettison.task.source import Columns, did_you_mean, parse_task_source

TASK_FILE, RUN_FILE = "task.toml", "jettison.toml"


class Hints(msgspec.Struct, frozen=True, kw_only=True):
    """What the data's owner says instead of having it guessed."""

    input: str | None = None
    expected: str | None = None
    id: str | None = None
    split: str | None = None
    group: str | None = None
    slices: tuple[str, ...] = ()
    weight: str | None = None
    out_of_scope: str | None = None
    aliases: dict[str, str] = msgspec.field(default_factory=dict)
    """Label as the data writes it → the label meant."""
    drop_leaked: bool = False
    """Take rows out of train whose text is in dev or test."""
    name: str | None = None
    config: str | None = None
    """Configuration of a Hugging Face folder that has several."""


class Looked(msgspec.Struct, frozen=True, kw_only=True):
    """All that was found, and the two files that say it."""

    model: ModelLook
    data: Guess
    labels: LabelLook
    tokens: TokenLook | None
    """None where the model has no tokenizer.json to count with."""
    proposal: Proposal
    findings: tuple[Finding, ...]
    n_examples: dict[str, int]
    """Split → examples."""
    files: dict[str, str]
    """Path → text of the file."""
    blocking: tuple[str, ...] = ()
    """What a run would stop at, or end at with nothing released: to be mended first."""
    written: bool


def look(
    model: str,
    data: Path | str,
    *,
    out: Path | str = ".",
    hints: Hints | None = None,
    force: bool = False,
    write: bool = True,
) -> Looked:
    """Look at a model and data, and write `task.toml` and `jettison.toml`.

    Args:
        model: Folder, .onnx or .gguf file, candidate, release or hub id.
        data: Data file or Hugging Face data set folder.
        out: Folder for the two files.
        hints: What need not be guessed.
        force: Replace files that are there.
        write: False only looks.

    Raises:
        InvalidInput: The model or the data cannot be used; nothing is written.
        CannotWrite: A file is there already and `force` is not given.
    """
    folder, hints = Path(out), hints or Hints()
    paths = {name: folder / name for name in (TASK_FILE, RUN_FILE)}
    if write:
        _check_free(paths, force=force)
    found_model = look_at_model(model)
    guess = _guess(Path(data).expanduser(), hints, writes=found_model.is_language)
    data = Path(data).expanduser()
    facts = TaskFacts(
        guess=guess,
        name=hints.name or _task_name(data),
        label_names=_label_names(found_model, guess),
        config=hints.config,
        aliases=hints.aliases,
        drop_leaked=hints.drop_leaked,
    )
    # The folder may not be there yet, so the data is read by its absolute path first.
    task = _build(task_text(facts, data=str(data.resolve()), required=("all",)), folder, guess)
    labels = (
        compare_labels(found_model, task.labels, task.out_of_scope)
        if task.kind == "classify"
        else LabelLook(verdict="asked", message=f"none: answers are free ({task.kind}).")
    )
    tokens = count_tokens(found_model, [e.input for e in (*task.train, *task.dev, *task.unlabelled)])
    proposal = propose_gates(
        task.slice_counts, out_of_scope=task.out_of_scope, scorer=DEFAULT_SCORERS[task.kind]
    )
    text = task_text(facts, data=_from(data, folder), required=proposal.required, findings=task.findings)
    incumbent = model if found_model.kind == "hub" else _from(Path(model).expanduser(), folder)
    run = run_text(incumbent, found_model, labels, tokens, proposal, task_file=TASK_FILE)
    files = {TASK_FILE: text, RUN_FILE: run}
    if write:
        for file, content in files.items():
            write_atomic(paths[file], content)
    return Looked(
        model=found_model,
        data=guess,
        labels=labels,
        tokens=tokens,
        proposal=proposal,
        findings=(*guess.findings, *task.findings),
        n_examples={
            "train": len(task.train),
            "dev": len(task.dev),
            "test": task.n_test,
            "unlabelled": len(task.unlabelled),
        },
        files={str(paths[file]): content for file, content in files.items()},
        blocking=blocking_findings(found_model, labels, task, proposal),
        written=write,
    )


def _check_free(paths: dict[str, Path], *, force: bool) -> None:
    for path in paths.values():
        if path.is_dir():
            raise CannotWrite(f"{path} must be free for a file, got a folder. Choose another with `--out`.")
        if path.exists() and not force:
            raise CannotWrite(
                f"{path} is there already and stays as it is. Replace it by `--force`, or `--out DIR`."
            )


def _guess(data: Path, hints: Hints, *, writes: bool) -> Guess:
    if not data.exists():
        raise InvalidInput(
            f"DATA must be a data file or a data set folder, got {str(data)!r}, where there is nothing."
        )
    given = Columns(
        input=hints.input or "",
        expected=hints.expected or "",
        id=hints.id,
        split=hints.split,
        group=hints.group,
        slices=list(hints.slices),
        weight=hints.weight,
    )
    guess = guess_data(data, given, config=hints.config, writes=writes)
    if hints.out_of_scope is None:
        return guess
    if hints.out_of_scope not in guess.labels:
        raise UnknownName(
            f"--out-of-scope must be one of the {len(guess.labels)} labels, got {hints.out_of_scope!r}."
            f"{did_you_mean(hints.out_of_scope, guess.labels)}"
        )
    return msgspec.structs.replace(guess, out_of_scope=hints.out_of_scope, maybe_out_of_scope=())


def _label_names(model: ModelLook, guess: Guess) -> tuple[str, ...] | None:
    """The model's label names where the data has only their positions, or no example of some."""
    if not guess.labels or not model.labels or any(name.isdecimal() for name in model.labels):
        return None  # no labels in the task, or a number would be a name and a position
    if set(guess.labels) < set(model.labels):
        return model.labels
    if not all(label.isdecimal() for label in guess.labels):
        return None
    positions = {int(label) for label in guess.labels}
    return model.labels if max(positions) < len(model.labels) else None


def _build(text: str, folder: Path, guess: Guess) -> Task:
    """Read the data as the file to be written says, so that only a file that works is written."""
    try:
        return build_task(parse_task_source(text, where=TASK_FILE), folder)
    except InvalidInput as error:
        told = "; ".join(f"{role} = {reason}" for role, reason in guess.reasons.items())
        raise type(error)(f"{error} (Nothing was written. Columns taken: {told}.)") from error


def _from(path: Path, folder: Path) -> str:
    """The path as seen from `folder`, or absolute where that would climb far."""
    relative = os.path.relpath(path.resolve(), folder.resolve())
    return str(path.resolve()) if relative.count("..") > 3 else Path(relative).as_posix()


def _task_name(data: Path) -> str:
    return (data.resolve().stem if data.is_file() else data.resolve().name) or "task"
