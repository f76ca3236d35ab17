"""What every step must hold, whatever it does to a model: `check_step(step, candidate, context)`."""

import contextlib
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np

from jettison.backends.open import open_model
from jettison.candidate import Candidate, verify_candidate
from jettison.compress.step import Step, StepContext, apply_step
from jettison.files import file_sha256


def check_step(
    step: Step, candidate: Candidate, context: StepContext, *, texts: Sequence[str] | None = None
) -> Candidate:
    """Check that a step keeps the promises of `jettison.compress.step.Step`.

    The step is run twice with the context's seed, in folders of its own.

    Args:
        step: What to check.
        candidate: What it starts from.
        context: Its `folder` is not used, its `workspace` is.
        texts: Asked of the results; None takes the first of dev.

    Returns:
        What the step made. It lies in a temporary folder of the system.

    Raises:
        AssertionError: A promise is broken; the message says which.
    """
    asked = list(texts or [example.input for example in context.data.dev[:20]])
    root = Path(tempfile.mkdtemp(prefix="jettison-check-step-"))
    before = _snapshot(candidate.path)
    candidate = _absolute(candidate)
    context = replace(
        context, incumbent=_absolute(context.incumbent), workspace=context.workspace.absolute()
    )
    first = _run(step, candidate, context, root / "first")
    second = _run(step, candidate, context, root / "second")
    _hold(_snapshot(candidate.path) == before, "a step must leave its parent as it was")
    _check_lineage(step, candidate, first, context)
    verify_candidate(first)
    _check_same(first, second, asked)
    return first


def _absolute(candidate: Candidate) -> Candidate:
    return msgspec.structs.replace(candidate, path=candidate.path.absolute())


def _run(step: Step, candidate: Candidate, context: StepContext, root: Path) -> Candidate:
    """Apply the step where what it leaves outside of its folder shows."""
    scratch, current = root / "scratch", root / "current"
    scratch.mkdir(parents=True)
    current.mkdir()
    usual, tempfile.tempdir = tempfile.tempdir, str(scratch)
    try:
        with contextlib.chdir(current):
            made = apply_step(step, candidate, replace(context, folder=root), cache=root / "made")
    finally:
        tempfile.tempdir = usual
    strays = sorted(path.name for path in current.iterdir())
    _hold(not strays, f"a step must write in its own folder alone, got {strays} in the current one")
    left = sorted(path.name for path in scratch.iterdir())
    _hold(not left, f"a step must clear its temporary files, got {left}")
    strays = sorted(p.name for p in (root / "made").iterdir() if p != made.path)
    _hold(not strays, f"a step must write in its own folder alone, got {strays} beside it")
    return made


def _check_lineage(step: Step, parent: Candidate, made: Candidate, context: StepContext) -> None:
    _hold(
        made.lineage[:-1] == parent.lineage,
        f"the lineage must be the parent's and one more, got {len(made.lineage)} steps",
    )
    link = made.lineage[-1]
    fields = set(getattr(step, "__struct_fields__", ()))
    _hold(link.step == step.name, f"the last step of the lineage must be {step.name!r}, got {link.step!r}")
    _hold(
        fields <= set(link.settings),
        f"the lineage must hold every setting, got none of {fields - set(link.settings)}",
    )
    _hold(link.parents == (parent.digest,), "the lineage must name the parent's digest")
    _hold(link.seed == context.seed, f"the lineage must hold the seed {context.seed}, got {link.seed}")
    missing = set(step.libraries) - set(link.versions)
    _hold(not missing, f"the lineage must hold the version of every library, got none of {missing}")
    wanted = context.data.digest if step.reads_data else None
    _hold(link.data_digest == wanted, "the lineage must say which data was read, and only if it was")
    left = {label for label in made.labels if label not in parent.labels}
    _hold(not left, f"a step must not make up labels, got {left}")


def _check_same(first: Candidate, second: Candidate, asked: list[str]) -> None:
    """The same seed gives the same answers; the files may differ in names that a library counts up."""
    one, other = open_model(first), open_model(second)
    try:
        for text, a, b in zip(asked, one.predict(asked), other.predict(asked), strict=True):
            same = a.label == b.label and a.confidence == b.confidence
            if a.logits is not None and b.logits is not None:
                same = same and np.array_equal(a.logits, b.logits)
            _hold(same, f"the same seed must give the same answers, got others on {text[:40]!r}")
    finally:
        one.close()
        other.close()


def _snapshot(folder: Path) -> dict[str, str]:
    return {
        p.relative_to(folder).as_posix(): file_sha256(p) for p in sorted(folder.rglob("*")) if p.is_file()
    }


def _hold(rule: bool, message: str) -> None:
    if not rule:
        raise AssertionError(message)
