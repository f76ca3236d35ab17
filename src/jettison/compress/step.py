"""A step: one change to a model. `apply_step` runs it once, records it, and finds it again."""

import contextlib
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Protocol, runtime_checkable

import msgspec

from jettison import registry
from jettison.candidate import CUT_NOTE, AppliedStep, Candidate, library_versions, write_candidate
from jettison.compress.deadline import Deadline
from jettison.errors import InvalidInput, JettisonError, OutOfTime
from jettison.files import folder_atomic, value_sha256
from jettison.task import Development


def _silent(message: str, share: float | None = None) -> None:
    """Progress nobody watches."""


@dataclass(frozen=True, kw_only=True)
class StepContext:
    """What a step may use. It holds no test example."""

    data: Development
    incumbent: Candidate
    """The teacher, and what parity is checked against."""
    folder: Path
    """Empty; the step writes its files here and nowhere else."""
    workspace: Path
    """Where things worth keeping between steps lie (teacher outputs)."""
    seed: int = 0
    threads: int = 1
    deadline: Deadline | None = None
    """When a step should end with what it has; None is no limit."""
    progress: Callable[[str, float | None], None] = _silent
    """Called with a phrase and the share done in 0-1 (None: not known)."""


def check_time_left(deadline: Deadline | None) -> None:
    """Refuse to begin a training that would leave a student as it was initialized.

    Raises:
        OutOfTime: The deadline is over.
    """
    if deadline is not None and deadline.is_over():
        raise OutOfTime("training must start before the deadline, got no time left. Allow it more.")


def equal_part(deadline: Deadline | None, n_left: int) -> Deadline | None:
    """An equal part of the time left for each of the runs left."""
    return None if deadline is None else deadline.share(1.0 / n_left)


class Made(msgspec.Struct, frozen=True, kw_only=True):
    """What a step left in its folder. Fields left None are taken over from the parent."""

    backend: str | None = None
    labels: tuple[str, ...] | None = None
    licence: str | None = None
    settings: dict[str, Any] | None = None
    """All settings of the new candidate, not only the changed ones."""
    notes: dict[str, Any] = msgspec.field(default_factory=dict)
    resolved: dict[str, Any] = msgspec.field(default_factory=dict)
    """Settings that the step chose itself, by name."""


@runtime_checkable
class Step(Protocol):
    """One change to a model. A frozen record whose fields are its settings."""

    name: ClassVar[str]
    code_version: ClassVar[int]
    """Raised when the step's own code changes what it makes: old results are then not reused."""
    reads_data: ClassVar[bool]
    libraries: ClassVar[tuple[str, ...]]
    """Packages whose versions belong in the lineage."""

    def make(self, candidate: Candidate, context: StepContext) -> Made:
        """Write the new candidate's files to `context.folder` and say what they are."""


@runtime_checkable
class ReadsSource(Protocol):
    """A step that reads a model beside its parent: what it reads is part of the cache's key."""

    def source_digest(self) -> str:
        """Changes when the files that are read do."""


@runtime_checkable
class HasLaterSettings(Protocol):
    """A step that got settings after it had made things: None leaves them out of the cache's key."""

    later_settings: ClassVar[tuple[str, ...]]


@runtime_checkable
class ResolvesHere(Protocol):
    """A step with settings that this machine decides: what they come to is part of the cache's key."""

    def resolved_here(self) -> dict[str, Any]:
        """Those settings as they are on this machine, by name."""


def step_from(settings: dict[str, Any]) -> Step:
    """Build a step of `{"step": name, setting: value, ...}`.

    Raises:
        UnknownName: No plugin of that name.
        InvalidInput: A setting is unknown or of the wrong type.
    """
    rest = {key: value for key, value in settings.items() if key != "step"}
    if "step" not in settings:
        raise InvalidInput(f"a step must have a `step` name, got {settings}.")
    kind = registry.load("steps", settings["step"])
    unknown = sorted(set(rest) - set(kind.__struct_fields__))
    if unknown:
        raise InvalidInput(
            f"step {settings['step']!r} must have settings among {list(kind.__struct_fields__)}, "
            f"got {unknown[0]!r}."
        )
    try:
        made: Step = msgspec.convert(rest, kind)
    except msgspec.ValidationError as error:
        raise InvalidInput(f"step {settings['step']!r}: {error}.") from error
    return made


def apply_step(
    step: Step, candidate: Candidate, context: StepContext, *, cache: Path, name: str | None = None
) -> Candidate:
    """Make a candidate by one step, or return the one made before from the same ingredients.

    What the deadline cut short says so in its lineage, and is found again only where the deadline is of
    the same budget.

    Args:
        step: What to do.
        candidate: What to start from.
        context: Its `folder` is set here.
        cache: Folder of finished candidates, one folder a key.
        name: Name of the new candidate; None makes one of the parent's and the step's.

    Raises:
        OutOfTime: The deadline is over before it begins.
        JettisonError: As the step says; nothing is left behind.
    """
    settings = msgspec.to_builtins(step)
    if isinstance(step, ResolvesHere):
        settings |= step.resolved_here()
    versions = library_versions(*step.libraries)
    whole = cache / _key(step, settings, versions, candidate, context)
    deadline = None if context.deadline is None else context.deadline.earlier(0.0)
    # What turns out to be cut short stays where no run of another budget looks.
    cut = whole if deadline is None else cache / f"{whole.name}-within-{deadline.budget}"
    for folder in (whole, cut) if deadline is not None and deadline.budget else (whole,):
        if (found := _finished(folder)) is not None:
            return replace_name(found, name)
    if deadline is not None and deadline.is_over():
        raise OutOfTime(f"step {step.name!r} must begin before the deadline, got no time left.")
    started = time.perf_counter()
    with folder_atomic(cut) as partial:
        made = step.make(candidate, replace(context, folder=partial, deadline=deadline))
        is_cut = deadline is not None and deadline.has_cut
        applied = AppliedStep(
            step=step.name,
            settings={**settings, **made.resolved},
            seed=context.seed,
            versions=versions,
            parents=(candidate.digest,),
            data_digest=context.data.digest if step.reads_data else None,
            duration_s=time.perf_counter() - started,
            notes={**made.notes, CUT_NOTE: True} if is_cut else made.notes,
        )
        write_candidate(
            partial,
            name=name or f"{candidate.name}+{step.name}",
            backend=made.backend or candidate.backend,
            labels=made.labels or candidate.labels,
            out_of_scope=candidate.out_of_scope,
            settings=candidate.settings if made.settings is None else made.settings,
            licence=made.licence or candidate.licence,
            lineage=(*candidate.lineage, applied),
        )
    if is_cut or deadline is None:
        return Candidate.at(cut)
    with contextlib.suppress(OSError):  # another process has made the same meanwhile
        cut.rename(whole)
    return Candidate.at(whole)


def _key(
    step: Step,
    settings: dict[str, Any],
    versions: dict[str, str],
    candidate: Candidate,
    context: StepContext,
) -> str:
    """Identity of what a step makes of its ingredients, when it is given the time."""
    source = step.source_digest() if isinstance(step, ReadsSource) else None
    return value_sha256(
        {
            "step": [step.name, step.code_version],
            "settings": key_settings(step, settings),
            "parent": candidate.digest,
            "incumbent": context.incumbent.digest,
            "data": context.data.digest if step.reads_data else None,
            "seed": context.seed,
            "versions": {k: v for k, v in versions.items() if k != "jettison"},
            **({} if source is None else {"source": source}),
        }
    )[:20]


def key_settings(step: Step, settings: dict[str, Any]) -> dict[str, Any]:
    """The part of a step's settings that stands in its key."""
    later = step.later_settings if isinstance(step, HasLaterSettings) else ()
    return {name: value for name, value in settings.items() if name not in later or value is not None}


def replace_name(candidate: Candidate, name: str | None) -> Candidate:
    """The same candidate under another name; a name is no part of its identity."""
    return candidate if name is None else msgspec.structs.replace(candidate, name=name)


def _finished(folder: Path) -> Candidate | None:
    """The candidate of an earlier run, unless its folder is damaged, which is then removed."""
    if not folder.exists():
        return None
    try:
        found = Candidate.at(folder)
        intact = all((folder / f.path).stat().st_size == f.bytes for f in found.files)
    except (JettisonError, OSError):
        intact = False
    if not intact:
        shutil.rmtree(folder, ignore_errors=True)
        return None
    return found
