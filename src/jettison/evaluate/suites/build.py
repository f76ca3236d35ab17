"""Builds the tiers of a task and writes them as an ordinary task folder that `run` and `compare` read."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import numpy as np

from jettison.errors import InvalidInput, NotEnoughData
from jettison.evaluate.slices import Slicer
from jettison.evaluate.suites.discover import is_member
from jettison.evaluate.suites.given import given_examples
from jettison.evaluate.suites.long_tail import COLUMN as LONG_TAIL
from jettison.evaluate.suites.long_tail import LongTail
from jettison.evaluate.suites.out_of_domain import LABEL, from_files, from_traffic, held_out
from jettison.evaluate.suites.perturbations import PERTURBATIONS
from jettison.evaluate.suites.perturbed import perturbed
from jettison.evaluate.suites.tier import TIER, TIERS, in_tier, with_slice
from jettison.files import folder_atomic
from jettison.stats.betting import smallest_group_margin
from jettison.stats.planning import smallest_certifiable_margin
from jettison.task import Example, Task
from jettison.task.ledger import carry_readings
from jettison.task.read import read_task
from jettison.task.write import DATA, SCHEMA, TASK, write_task


@dataclass(frozen=True, kw_only=True)
class SuitePlan:
    """What to build."""

    tiers: tuple[str, ...] = ("in_domain", "long_tail", "out_of_domain", "perturbed", "adversarial")
    gates: tuple[str, ...] = ()
    """Slices that must hold by themselves: a tier's name, `column=value` or `column=*`."""
    perturbations: tuple[str, ...] = tuple(PERTURBATIONS)
    per_example: int = 2
    out_of_domain: tuple[Path, ...] = ()
    """Data files of other domains."""
    most_out_of_domain: int | None = None
    """At most so many of each file."""
    hold_out: tuple[str, ...] = ()
    """Classes taken out of the task and expected to be refused."""
    given: Mapping[str, tuple[Path, ...]] = field(default_factory=dict)
    """Tier → files of examples with right answers."""
    made: tuple[Example, ...] = ()
    """Examples that a search made (`attacked_examples`)."""
    disagree: Mapping[str, bool] = field(default_factory=dict)
    """Test example → whether two models answered it differently."""
    found: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Column → rule of a slice that a search on dev found (`FoundSlice.where`): test is marked by it."""
    embedder: Path | None = None
    """Folder of an embedder whose vectors tell low density; characters in common do where there is none."""
    seed: int = 0


class Suite(msgspec.Struct, frozen=True, kw_only=True):
    """What was built."""

    folder: str
    n: dict[str, int]
    """Tier → test examples; `long_tail` counts examples of `in_domain` again."""
    smallest_margin: dict[str, float] = {}
    """Tier → the least margin that its groups certify when no answer changes, in 0-1."""
    slices: dict[str, int]
    """Slice of the test split → examples."""
    required: tuple[str, ...]
    notes: tuple[str, ...]
    """What was left out, and why."""


def build_suite(task: Task, plan: SuitePlan, folder: Path) -> Suite:
    """Write the tiers of a task to a folder: `task.toml`, `examples.jsonl`.

    Train and dev stay as they are, so that models are made and calibrated on what the task holds. No model
    is asked here. The new folder's ledger starts with the readings of the old one, since most of its test
    examples are the same.

    Args:
        task: Any kind.
        plan: What to build.
        folder: Becomes the suite's folder; an earlier suite there is replaced.

    Raises:
        InvalidInput: A tier, a gate or a file of the plan cannot be used, or the folder holds other things.
        NotEnoughData: The task has no test examples.
        CannotWrite: The folder cannot be written.
    """
    _check(task, plan)
    check_suite_folder(folder, task)
    old = task.folder / ".jettison" / "test_reads.jsonl"
    test = task.test_for_inspection()
    label, notes = task.out_of_scope, list[str]()
    wants_label = "out_of_domain" in plan.tiers and (
        plan.out_of_domain or plan.hold_out or "out_of_domain" in plan.given
    )
    if label is None and wants_label:
        label = LABEL
    tiers = _tiers(task, plan, test, label, notes)
    with folder_atomic(folder) as partial:
        _write(partial, task, plan, tiers, label)
    required = _required(task, plan, tiers)
    written = read_task(folder / TASK)
    ledger = folder / ".jettison" / "test_reads.jsonl"
    carry_readings(old, of=task.test_digest, new=ledger, test_digest=written.test_digest)
    members = defaultdict(list)
    for example in tiers:
        members[example.slices[TIER]].append(example)
    if "long_tail" in plan.tiers:
        members[LONG_TAIL] = [e for e in tiers if e.slices.get(LONG_TAIL) == "yes"]
    return Suite(
        folder=str(folder),
        n={tier: len(examples) for tier, examples in members.items()},
        smallest_margin={
            tier: _smallest_margin(examples) for tier, examples in members.items() if examples
        },
        slices=dict(written.slice_counts),
        required=required,
        notes=tuple(notes),
    )


def _smallest_margin(examples: Sequence[Example]) -> float:
    """Copies of one example lose it together: they certify little more than one of them would."""
    sizes = Counter(example.group or example.id for example in examples)
    if len(sizes) == len(examples):
        return smallest_certifiable_margin(len(examples))
    return smallest_group_margin(np.array(list(sizes.values()), float))


def check_suite_folder(folder: Path, task: Task) -> None:
    """A suite takes the whole folder, so that nothing but an earlier suite may be there.

    Raises:
        InvalidInput: It holds the task itself, or a file that no suite has.
    """
    if not folder.is_dir():
        return
    if folder.resolve() == task.folder.resolve():
        raise InvalidInput(
            f"a suite must have a folder of its own, got the task's, {folder}. Choose another."
        )
    foreign = sorted(p.name for p in folder.iterdir() if p.name not in (DATA, SCHEMA, TASK, ".jettison"))
    if foreign:
        raise InvalidInput(
            f"a suite's folder must be new or an earlier suite's, since it is replaced, got {folder} with "
            f"{foreign[0]!r} in it. Name another."
        )


def gate_slice(name: str) -> str:
    """The slice that a gate's name means: a tier's, or a slice as it is written."""
    if name == LONG_TAIL:
        return f"{LONG_TAIL}=yes"
    return f"{TIER}={name}" if name in TIERS else name


def _check(task: Task, plan: SuitePlan) -> None:
    for tier in (*plan.tiers, *plan.given):
        if tier not in TIERS:
            raise InvalidInput(f"a tier must be one of {list(TIERS)}, got {tier!r}.")
    if plan.per_example < 1:
        raise InvalidInput(f"perturbations for each example must be at least 1, got {plan.per_example}.")
    if (plan.out_of_domain or plan.hold_out) and task.kind != "classify":
        raise InvalidInput(
            "the tier out_of_domain must be of a task of kind 'classify', where a label can mean none of "
            f"the others, got kind {task.kind!r}."
        )
    if not task.n_test:
        raise NotEnoughData("a suite is built on a task's test split, got a task without test examples.")


def _tiers(
    task: Task, plan: SuitePlan, test: Sequence[Example], label: str | None, notes: list[str]
) -> tuple[Example, ...]:
    out: tuple[Example, ...] = ()
    if plan.hold_out:
        if label in plan.hold_out:
            raise InvalidInput(
                f"a held-out class must be another than the out-of-scope label, got {label!r}."
            )
        test, out = held_out(test, plan.hold_out, label=str(label))
    if "long_tail" in plan.tiers:
        test = LongTail(task.development, embedder=plan.embedder, seed=plan.seed).mark(test)
    if plan.disagree:
        test = [with_slice(e, "disagreement", "yes" if plan.disagree.get(e.id) else "no") for e in test]
    # A rule may name what a run computes of an example: its length, density and class frequency.
    computed = Slicer.fit(task.development).apply(test) if plan.found else test
    for column, where in plan.found.items():
        is_in = [is_member(e, where) for e in computed]
        test = [with_slice(e, column, "yes" if hit else "no") for e, hit in zip(test, is_in, strict=True)]
    scope = {e.id: e.expected == task.out_of_scope and task.out_of_scope is not None for e in test}
    found = [
        in_tier(e, "out_of_domain", name="", source=e.source or e.id, slices={"ood": "task"})
        if scope[e.id] and "out_of_domain" in plan.tiers
        else in_tier(e, "in_domain", name="", source=e.source or e.id)
        for e in test
    ]
    found += out
    if "out_of_domain" in plan.tiers and label is not None:
        known = (*task.train, *task.dev, *test)
        found += from_files(
            plan.out_of_domain, label=label, known=known, most=plan.most_out_of_domain, seed=plan.seed
        )
        found += from_traffic(task.development, label=label)
    if "perturbed" in plan.tiers:
        inside = [e for e in test if not scope[e.id]]
        made = perturbed(
            inside,
            kinds=plan.perturbations,
            per_example=plan.per_example,
            copied_answers=task.kind in ("generate", "extract"),
            seed=plan.seed,
        )
        applied = {e.slices["perturbation"] for e in made}
        notes += [
            f"no example that {kind!r} applies to" for kind in plan.perturbations if kind not in applied
        ]
        found += made
    for tier, paths in plan.given.items():
        found += given_examples(tier, paths, labels=task.labels, out_of_scope=label)
    found += plan.made
    for tier in plan.tiers:
        if tier not in (LONG_TAIL, *(e.slices[TIER] for e in found)):
            notes.append(f"tier {tier}: {_WAYS[tier]}")
    return tuple(found)


_WAYS = {
    "in_domain": "nothing is left of the test split",
    "out_of_domain": "give other data with --out-of-domain, or classes with --hold-out",
    "perturbed": "no perturbation applies",
    "adversarial": "give a set with --given adversarial=FILE, or a model to search on with --attack",
    "safety": "give a set with --given safety=FILE; free text is asked the safety probes by every run",
}


def _required(task: Task, plan: SuitePlan, tiers: Sequence[Example]) -> tuple[str, ...]:
    """The task's own slices and those asked for; `all` of the task is the tier `in_domain` of its suite."""
    own = [name for name in task.required_slices if name not in ("all", "scope=in", "scope=out")]
    required = dict.fromkeys(("tier=in_domain", *own, *map(gate_slice, plan.gates)))
    present = {f"{c}={v}" for e in tiers for c, v in e.slices.items()}
    columns = {name.partition("=")[0] for name in present}
    for name in required:
        column, _, value = name.partition("=")
        if name != "all" and name not in present and not (value == "*" and column in columns):
            raise InvalidInput(
                f"a gate must be a tier or slice that the suite has, got {name!r}; "
                f"it has {sorted(present)[:24]}."
            )
    return tuple(required)


def _write(folder: Path, task: Task, plan: SuitePlan, test: Sequence[Example], label: str | None) -> None:
    held, tested = set(plan.hold_out), {example.id for example in test}

    def stay(examples: Sequence[Example]) -> list[Example]:
        return [e for e in examples if e.expected not in held and e.id not in tested]

    names = [n for n in task.labels if n not in held]
    if label is not None and label not in names:
        names.append(label)
    write_task(
        folder,
        task,
        {
            "train": stay(task.train),
            "dev": [_dev_tier(e, label) for e in stay(task.dev)],
            "test": test,
            "unlabelled": stay(task.unlabelled),
        },
        name=f"{task.name}-suite",
        required=_required(task, plan, test),
        labels=names,
        out_of_scope=label,
    )


def _dev_tier(example: Example, out_of_scope: str | None) -> Example:
    """A dev example, whose tier predicts what the same tier will come to on test."""
    source = example.source or ""
    if out_of_scope is not None and example.expected == out_of_scope:
        return in_tier(example, "out_of_domain", name="", source=source, slices={"ood": "task"})
    return in_tier(example, "in_domain", name="", source=source)
