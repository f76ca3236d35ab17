"""A classifier as a guard: a model with `guard.json`, which says from which probability it catches.

A long text is read in windows, the worst of which counts; so are its disguises.
"""

from pathlib import Path
from typing import Any

import msgspec

from jettison.backends.open import open_model
from jettison.backends.released import open_release_model
from jettison.candidate import Candidate
from jettison.decision import ScorerErrors
from jettison.errors import BrokenArtifact, InvalidInput
from jettison.files import read_json
from jettison.model import Model
from jettison.release import open_release
from jettison.task.unmask import unmasked
from jettison.task.windows import windows

GUARD_FILE = "guard.json"
RELEASE = "release"
TOXICITY = Path(__file__).parent / "toxicity"
"""The guard of toxic texts that comes with jettison."""
BATCH = 32


class Caught(msgspec.Struct, frozen=True, kw_only=True):
    """How many texts of a family of test were caught."""

    kind: str
    """`ordinary`, or what the guard is for: `attack`, `toxic`."""
    family: str
    n: int
    n_caught: int


class Guard(msgspec.Struct, frozen=True, kw_only=True):
    """`guard.json`: beside the release, what its probabilities are worth as a guardrail."""

    label: str
    """What is caught."""
    release: str
    """Digest of the release, or of the candidate, that the thresholds were set for."""
    thresholds: dict[str, float]
    """Share of ordinary texts of dev that is caught → probability from which a text is."""
    n_ordinary: int
    """Ordinary texts of dev."""
    share: str = "0.01"
    """The one taken where nobody says otherwise."""
    caught: tuple[Caught, ...] = ()
    """On test, at that share."""
    size: int = 600
    """Characters of a window at most."""
    step: int = 400
    """From one window's start to the next's at most."""
    errors: dict[str, ScorerErrors] = msgspec.field(default_factory=dict)
    """Share → verdicts on texts that people have labelled, if there are some; right ones are ordinary."""
    format: int = 1


class OpenGuard(msgspec.Struct, frozen=True, kw_only=True):
    """A guard ready to judge."""

    guard: Guard
    model: Model

    def scores(self, texts: list[str]) -> list[float]:
        """For each text the probability, in 0-1, of its window most like what is caught.

        Raises:
            RuntimeError: The model gave no answer.
        """
        guard = self.guard
        return window_scores(self.model, guard.label, texts, size=guard.size, step=guard.step)


def open_guard(folder: Path) -> OpenGuard:
    """Open what `jettison guard` made, or a bare candidate with its `guard.json`.

    Raises:
        InvalidInput: There is no guard.
        BrokenArtifact: It was made for another release, or its model has not the two labels.
    """
    guard = read_guard(folder)
    is_release = (folder / RELEASE).is_dir()
    model = open_release_model(folder / RELEASE) if is_release else open_model(Candidate.at(folder))
    if guard.label not in model.labels or len(model.labels) != 2:
        raise BrokenArtifact(
            f"{folder} must hold a model of two labels, {guard.label!r} one of them, "
            f"got {list(model.labels)[:20]}."
        )
    return OpenGuard(guard=guard, model=model)


def read_guard(folder: Path) -> Guard:
    """Read `guard.json` and check that it is of the release or candidate beside it.

    Raises:
        InvalidInput: There is none.
        BrokenArtifact: It was made for another one.
    """
    path = folder / GUARD_FILE
    if not path.is_file():
        raise InvalidInput(
            f"model must be a folder that `jettison guard` made, got {folder} without {GUARD_FILE}."
        )
    guard = read_json(path, Guard)
    if guard.format != 1:
        raise BrokenArtifact(f"{path} must have format 1, got {guard.format}.")
    is_release = (folder / RELEASE).is_dir()
    digest = open_release(folder / RELEASE).digest if is_release else Candidate.at(folder).digest
    if digest != guard.release:
        raise BrokenArtifact(
            f"{path} must be of the release beside it, {digest[:12]}…, got {guard.release[:12]}…. "
            "Run `jettison guard` again."
        )
    return guard


def guard_threshold(guard: Guard, *, threshold: float | None, false_alarm_share: float | None) -> float:
    """Probability from which a text is caught, as asked for or the guard's own.

    Raises:
        InvalidInput: Both are asked for, or one that is out of range or unknown.
    """
    if threshold is not None and false_alarm_share is not None:
        raise InvalidInput("either threshold or false_alarm_share may be given, got both.")
    if threshold is not None:
        if not 0 < threshold <= 1:
            raise InvalidInput(f"threshold must be in 0-1, got {threshold}.")
        return threshold
    return guard.thresholds[guard_share(guard, false_alarm_share)]


def guard_share(guard: Guard, false_alarm_share: float | None) -> str:
    """The share asked for as `guard.json` writes it, or the guard's own.

    Raises:
        InvalidInput: It lists no such share.
    """
    share = guard.share if false_alarm_share is None else f"{false_alarm_share:g}"
    if share not in guard.thresholds:
        raise InvalidInput(f"false_alarm_share must be one of {list(guard.thresholds)}, got {share}.")
    return share


def window_scores(
    model: Model, label: str, texts: list[str], *, size: int = 600, step: int = 400
) -> list[float]:
    """For each text the probability, in 0-1, of its window most like one of a label.

    Args:
        model: Of two labels.
        label: Of what is caught.
        texts: Of any length.
        size: Characters of a window at most.
        step: From one window's start to the next's at most.

    Raises:
        RuntimeError: The model gave no answer.
    """
    cut: dict[str, Any] = {"size": size, "step": step}
    parts = [
        [part for reading in unmasked(text) for part in windows(reading, **cut) if part.strip()]
        for text in texts
    ]
    flat = [part for own in parts for part in own]
    scores: list[float] = []
    for start in range(0, len(flat), BATCH):
        for output in model.predict(flat[start : start + BATCH]):
            if output.error is not None:
                raise RuntimeError("the classifier gave no answer")
            # Calibrated, whichever arm of a cascade it came from; of two labels the other has the rest.
            share = output.confidence if output.label == label else 1.0 - output.confidence
            scores.append(min(1.0, max(0.0, share)))
    found, done = [], 0
    for own in parts:
        found.append(max(scores[done : done + len(own)], default=0.0))
        done += len(own)
    return found
