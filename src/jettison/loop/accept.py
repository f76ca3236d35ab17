"""Accepted rows of mined failures into the next task: each mode becomes a slice, required by itself."""

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import tomli_w

from jettison.decision import NotWorse
from jettison.errors import InvalidInput
from jettison.evaluate.suites.tier import rng_of, with_slice
from jettison.files import decode_json, folder_atomic
from jettison.loop.config import ENDPOINT_PATHS, RunConfig, default_gates, read_config
from jettison.loop.mine import Proposal
from jettison.monitor.failures import Request
from jettison.stats.planning import smallest_passing_n
from jettison.task import Example, Task
from jettison.task.examples import text_key
from jettison.task.ledger import carry_readings
from jettison.task.pii import mask
from jettison.task.read import read_task
from jettison.task.write import TASK, write_task

COLUMN = "failure"
TEST_SHARE = 0.5
"""Of a mode's rows; train gets the rest but a tenth, which dev gets."""
MOST_UNLABELLED = 20_000


class NextTask(msgspec.Struct, frozen=True, kw_only=True):
    """What was written for the next round."""

    folder: str
    task: str
    config: str | None
    """`jettison.toml` with the new task and its gates; None where none was given."""
    rows: dict[str, dict[str, int]]
    """Mode → split → rows."""
    required: tuple[str, ...]
    n_unlabelled: int
    """Texts of traffic added for distillation."""
    notes: tuple[str, ...]


def read_proposals(path: Path) -> tuple[Proposal, ...]:
    """Read what `write_found` wrote and a person went through.

    Raises:
        InvalidInput: There is no such file, or a line is not a proposal.
    """
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise InvalidInput(f"proposals must be a JSONL file, got {path}: {error.strerror}.") from error
    found = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            found.append(decode_json(line, Proposal))
        except msgspec.DecodeError as error:
            raise InvalidInput(
                f"{path}:{number} must be a line of proposed.jsonl with `accept` true, false or null "
                f"and `label` a text or null: {error}."
            ) from error
    return tuple(found)


def accept(
    proposals: Sequence[Proposal],
    task: Task,
    folder: Path,
    *,
    config: Path | None = None,
    margin: float = 0.05,
    traffic: Iterable[Request] = (),
    seed: int = 0,
) -> NextTask:
    """Write the task of the next round: the old one, the accepted rows, and texts of traffic.

    No example of the old task changes its split. Half of a mode's rows go to test, and the mode's slice is
    required; it is judged against the incumbent at `margin`.

    Args:
        proposals: Those with `accept` true are taken.
        task: Of the last round.
        folder: Becomes the new task's folder; what was there is replaced.
        config: `jettison.toml` of the last round, to be written anew beside the task.
        margin: Of the new slices' gates.
        traffic: Requests whose texts become unlabelled examples.
        seed: Of the split.

    Raises:
        InvalidInput: Nothing was accepted, or an accepted row has no label or one that the task has not.
        CannotWrite: The folder cannot be written.
    """
    if not 0 < margin < 1:
        raise InvalidInput(f"the margin must be between 0 and 1, got {margin}.")
    settings = None if config is None else read_config(config)
    taken = [one for one in proposals if one.accept]
    unlabelled = _unlabelled(traffic, task, taken)
    if not taken and not unlabelled:
        raise InvalidInput(
            "at least one row must have `accept` true, got none. Go through proposed.jsonl and set it."
        )
    for one in taken:
        _check(one, task)
    new = _split(taken, seed)
    splits = {
        "train": (*task.train, *new["train"]),
        "dev": (*task.dev, *new["dev"]),
        "test": (*task.test_for_inspection(), *new["test"]),
        "unlabelled": (*task.unlabelled, *unlabelled),
    }
    modes = sorted({example.slices[COLUMN] for example in new["test"]})
    required = tuple(dict.fromkeys((*task.required_slices, *(f"{COLUMN}={mode}" for mode in modes))))
    with folder_atomic(folder) as partial:
        write_task(
            partial,
            task,
            splits,
            name=task.name,
            required=required,
            labels=task.labels,
            out_of_scope=task.out_of_scope,
        )
        if settings is not None:
            _write_config(partial, folder.name, settings, modes, task, margin)
    written = read_task(folder / TASK)
    _carry_readings(task, written)
    rows = {
        mode: dict(Counter(s for s, examples in new.items() for e in examples if e.slices[COLUMN] == mode))
        for mode in sorted({one.mode for one in taken})
    }
    return NextTask(
        folder=str(folder),
        task=str(folder / TASK),
        config=None if settings is None else str(folder / "jettison.toml"),
        rows=rows,
        required=required,
        n_unlabelled=len(unlabelled),
        notes=tuple(_notes(rows, margin)),
    )


def _check(one: Proposal, task: Task) -> None:
    if one.label is None:
        raise InvalidInput(f"an accepted row must have a label, got null at {one.id} ({one.mode}).")
    if task.kind == "classify" and one.label not in (*task.labels, task.out_of_scope):
        raise InvalidInput(
            f"a label must be one of the task's, got {one.label!r} at {one.id} ({one.mode}). "
            "A new class needs a task of its own."
        )


def _split(taken: Sequence[Proposal], seed: int) -> dict[str, tuple[Example, ...]]:
    by_mode: dict[str, list[Example]] = {}
    for one in {one.id: one for one in taken}.values():
        example = Example(id=one.id, input=one.text, expected=one.label, source=f"traffic, {one.mode}")
        by_mode.setdefault(one.mode, []).append(with_slice(example, COLUMN, one.mode))
    found: dict[str, list[Example]] = {"train": [], "dev": [], "test": []}
    for mode, examples in sorted(by_mode.items()):
        order = rng_of(seed, "accepted", mode).permutation(len(examples)).tolist()
        n_test = round(TEST_SHARE * len(order))
        n_dev = len(order) // 10
        for position, i in enumerate(order):
            split = "test" if position < n_test else "dev" if position < n_test + n_dev else "train"
            found[split].append(examples[i])
    return {split: tuple(examples) for split, examples in found.items()}


def _unlabelled(traffic: Iterable[Request], task: Task, taken: Sequence[Proposal]) -> tuple[Example, ...]:
    splits = (task.train, task.dev, task.unlabelled, task.test_for_inspection())
    known = {text_key(e.input) for split in splits for e in split} | {text_key(p.text) for p in taken}
    fresh: dict[str, Example] = {}
    for one in reversed(list(traffic)):
        (text,), _ = mask((one.text,))
        key = text_key(text)
        if key not in known and key not in fresh:
            fresh[key] = Example(id=f"traffic-{one.id}", input=text, source="traffic")
        if len(fresh) == MOST_UNLABELLED:
            break
    return tuple(fresh.values())


def _write_config(
    folder: Path, run_name: str, settings: RunConfig, modes: Sequence[str], task: Task, margin: float
) -> None:
    scorer = task.scorers[0]
    content: dict[str, Any] = {
        field: value
        for field, value in msgspec.to_builtins(settings).items()
        if value is not None and value != [] and value != {}
    }
    # Beside the folder, not in it: writing the task again must not take a run's finished work along.
    content |= {"task": TASK, "output": f"../{run_name}-run", "incumbent": _absolute(settings.incumbent)}
    if settings.student is not None:
        content["student"] = _absolute(settings.student)
    if settings.endpoint:
        content["endpoint"] = {
            name: _absolute(value) if name in ENDPOINT_PATHS else value
            for name, value in settings.endpoint.items()
        }
    content["safety_probes"] = [_absolute(name) for name in settings.safety_probes]
    slices = tuple(f"{COLUMN}={mode}" for mode in modes)
    gates = [*(settings.gates or default_gates(task.required_slices, task.out_of_scope, scorer))]
    if slices:
        gates.append(NotWorse(scorer=scorer, slices=slices, margin=margin))
    content["gates"] = [_plain(msgspec.to_builtins(gate)) for gate in gates]
    (folder / "jettison.toml").write_text(tomli_w.dumps(content), encoding="utf-8")


def _plain(gate: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in gate.items() if value not in ({}, None)}


def _absolute(source: str) -> str:
    return str(Path(source).absolute()) if Path(source).exists() else source


def _carry_readings(old: Task, new: Task) -> None:
    """The new test split is mostly the old one: what has been read of it stays counted."""
    old_ledger, ledger = (task.folder / ".jettison" / "test_reads.jsonl" for task in (old, new))
    carry_readings(old_ledger, of=old.test_digest, new=ledger, test_digest=new.test_digest)


def _notes(rows: dict[str, dict[str, int]], margin: float) -> list[str]:
    least = smallest_passing_n(margin)
    return [
        f"{COLUMN}={mode}: {n.get('test', 0)} test rows; a margin of {margin:g} needs at least {least}, "
        "so no candidate can pass until more are accepted"
        for mode, n in rows.items()
        if n.get("test", 0) < least
    ]
