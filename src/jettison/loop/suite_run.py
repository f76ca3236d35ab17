"""The suites of a run: built from its task before anything else, and gated beside the task's own slices."""

from collections.abc import Sequence
from pathlib import Path

import msgspec

from jettison.decision import AtMost, Gate, NotShownWorse, NotWorse, ScoreGate
from jettison.errors import InvalidInput
from jettison.evaluate.suites.build import Suite, SuitePlan, build_suite, gate_slice
from jettison.evaluate.suites.perturbations import PERTURBATIONS
from jettison.files import file_sha256, read_json, value_sha256, write_json
from jettison.loop.config import RunConfig, SuiteSettings, default_gates
from jettison.loop.suites import FoundSlices
from jettison.task import Task
from jettison.task.read import read_task
from jettison.task.write import TASK

FOLDER, STAMP = "suite", "suite.json"
CODE_VERSION = 2
IN_SCOPE, OUT_OF_SCOPE = "tier=in_domain", "ood=task"
"""A task's own `scope=in` and `scope=out` in its suite, where other examples stand beside them."""


class BuiltSuite(msgspec.Struct, frozen=True, kw_only=True):
    """What stands in the run's folder, and what it was made of."""

    key: str
    suite: Suite


def with_suites(config: RunConfig, task: Task) -> tuple[Task, Suite | None]:
    """The task with the tiers that `[suites]` asks for; the task itself where nothing is asked.

    A suite that was built of the same task and settings is taken as it is.

    Raises:
        InvalidInput: A tier, a gate or a file of the settings cannot be used.
    """
    if config.suites is None:
        return task, None
    folder, stamp = Path(config.output) / FOLDER, Path(config.output) / STAMP
    plan = plan_of(config.suites, seed=config.seed)
    files = [*plan.out_of_domain, *(path for paths in plan.given.values() for path in paths)]
    key = value_sha256(
        {
            "code": CODE_VERSION,
            "task": [task.development.digest, task.test_digest, list(task.required_slices)],
            "settings": msgspec.to_builtins(config.suites),
            "found": {column: dict(where) for column, where in plan.found.items()},
            "files": [file_sha256(path) if path.is_file() else None for path in files],
            "seed": config.seed,
        }
    )
    built = read_json(stamp, BuiltSuite) if stamp.exists() and (folder / TASK).exists() else None
    if built is None or built.key != key:
        built = BuiltSuite(key=key, suite=build_suite(task, plan, folder))
        write_json(stamp, built)
    return read_task(folder / TASK), built.suite


def plan_of(settings: SuiteSettings, *, seed: int) -> SuitePlan:
    """The plan that the settings stand for.

    Raises:
        InvalidInput: The file of found slices cannot be read.
    """
    found = read_json(Path(settings.found), FoundSlices).slices if settings.found else ()
    return SuitePlan(
        tiers=settings.tiers,
        gates=settings.gates,
        perturbations=settings.perturbations or tuple(PERTURBATIONS),
        per_example=settings.per_example,
        out_of_domain=tuple(Path(path) for path in settings.out_of_domain),
        most_out_of_domain=settings.most_out_of_domain,
        given={tier: tuple(Path(path) for path in paths) for tier, paths in settings.given.items()},
        embedder=None if settings.embedder is None else Path(settings.embedder),
        found={f"found_{i}": one.where for i, one in enumerate(found, 1) if one.where},
        seed=seed,
    )


def gates_of(config: RunConfig, task: Task, scorer: str) -> tuple[Gate, ...]:
    """What must hold: the gates given, the task's own otherwise, and each slice that `[suites]` gates.

    In a suite, a gate on all of the task is one on the examples that users wrote: perturbed copies and
    other domains have gates of their own.

    Args:
        config: Of the run.
        task: The suite, where there is one.
        scorer: The task's first.

    Raises:
        InvalidInput: A gate is on `all` where that would mix what is in and out of scope with copies.
    """
    if not config.gates:
        return default_gates(task.required_slices, task.out_of_scope, scorer)
    if config.suites is None:
        return config.gates
    given = tuple(gate if isinstance(gate, AtMost) else _in_suite(gate, task) for gate in config.gates)
    named = {name for gate in given if isinstance(gate, NotWorse) for name in gate.slices}
    asked = [name for one in config.suites.gates if (name := gate_slice(one)) not in named]
    first = next(gate for gate in given if isinstance(gate, NotWorse))
    inside = tuple(name for name in asked if not (is_outside(name) and task.out_of_scope))
    outside = tuple(name for name in asked if name not in inside)
    more = [msgspec.structs.replace(first, slices=inside, margins={})] if inside else []
    if outside:
        judged = next((g for g in given if isinstance(g, NotWorse) and g.scorer == "out_of_scope"), None)
        margin = judged.margin if judged else 2 * first.margin
        more.append(NotWorse(scorer="out_of_scope", slices=outside, margin=margin, alpha=first.alpha))
    return (*given, *more)


def is_outside(slice_name: str) -> bool:
    """Whether a slice of a suite holds out-of-scope examples alone."""
    return slice_name == "tier=out_of_domain" or slice_name.startswith("ood=")


def _in_suite(gate: ScoreGate, task: Task) -> ScoreGate:
    if task.out_of_scope is not None and "all" in gate.slices:
        raise InvalidInput(
            "a gate must be on 'scope=in' or 'scope=out' where [suites] are built and the task has an "
            f"out-of-scope label, got 'all' of scorer {gate.scorer!r}: a suite's `all` counts copies too."
        )
    names = {"all": IN_SCOPE, "scope=in": IN_SCOPE, "scope=out": OUT_OF_SCOPE}
    renamed = msgspec.structs.replace(gate, slices=tuple(names.get(name, name) for name in gate.slices))
    if isinstance(renamed, NotShownWorse):
        return renamed
    margins = {names.get(name, name): margin for name, margin in renamed.margins.items()}
    return msgspec.structs.replace(renamed, margins=margins)


def tier_counts(suite: Suite | None) -> dict[str, int]:
    """Tier → test examples; empty without suites."""
    return {} if suite is None else dict(suite.n)


def notes_of(suite: Suite | None) -> Sequence[str]:
    """What was left out of the suites, and why."""
    return () if suite is None else suite.notes
