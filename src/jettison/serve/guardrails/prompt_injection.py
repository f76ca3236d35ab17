"""Whether a text gives a language model orders of its own: a lean classifier, made by `jettison guard`."""

from pathlib import Path

import msgspec

from jettison.backends.released import open_release_model
from jettison.errors import BrokenArtifact, InvalidInput
from jettison.files import read_json
from jettison.model import Model
from jettison.release import open_release
from jettison.serve.guardrails.unmask import unmasked
from jettison.serve.guardrails.verdict import GuardSettings, Verdict, Where
from jettison.task.windows import windows

GUARD_FILE = "guard.json"
RELEASE = "release"
BATCH = 32


class Caught(msgspec.Struct, frozen=True, kw_only=True):
    """How many texts of a family of test were caught."""

    kind: str
    """`attack` or `ordinary`."""
    family: str
    n: int
    n_caught: int


class Guard(msgspec.Struct, frozen=True, kw_only=True):
    """`guard.json`: beside the release, what its probabilities are worth as a guardrail."""

    label: str
    """What is caught."""
    release: str
    """Digest of the release that the thresholds were set for."""
    thresholds: dict[str, float]
    """Share of ordinary texts of dev that is caught → probability from which a text is."""
    n_ordinary: int
    """Ordinary texts of dev."""
    share: str = "0.01"
    """The one taken where nobody says otherwise."""
    caught: tuple[Caught, ...] = ()
    """On test, at that share."""
    format: int = 1


class PromptInjectionSettings(GuardSettings, frozen=True, kw_only=True):
    """Settings of `prompt_injection`."""

    where: tuple[Where, ...] = ("input",)
    model: str = ""
    """Folder that `jettison guard` made."""
    false_alarm_share: float | None = None
    """Share of ordinary texts like those of dev that may be caught: one that `guard.json` lists."""
    threshold: float | None = None
    """Probability from which a text is caught, instead."""


class PromptInjection:
    """Catches orders to a model: to drop its rules, tell its prompt, play another, do what a document says.

    A long text is read in windows, the worst of which counts; so are its disguises.
    """

    Settings = PromptInjectionSettings

    def __init__(self, settings: PromptInjectionSettings) -> None:
        if not settings.model:
            raise InvalidInput("model must be the folder of a guard, got none. `jettison guard` makes one.")
        if settings.action == "redact":
            raise InvalidInput("action must be `flag`, `escalate` or `block`, got `redact`.")
        folder = Path(settings.model)
        self.guard = read_guard(folder)
        self._settings = settings
        self._model = open_release_model(folder / RELEASE)
        if self.guard.label not in self._model.labels or len(self._model.labels) != 2:
            raise BrokenArtifact(
                f"{folder} must hold a release of two labels, {self.guard.label!r} one of them, "
                f"got {list(self._model.labels)[:20]}."
            )
        self.threshold = _threshold(settings, self.guard)

    def check(self, text: str, *, where: Where) -> Verdict:
        """Judge one text; `score` is the probability of the window that is most like an attack."""
        del where
        score = injection_scores(self._model, self.guard.label, [text])[0]
        if score < self.threshold:
            return Verdict(action="pass", guardrail="prompt_injection", score=score)
        reason = "reads like an order to the model"
        return Verdict(
            action=self._settings.action, guardrail="prompt_injection", reason=reason, score=score
        )


def injection_scores(model: Model, label: str, texts: list[str]) -> list[float]:
    """For each text the probability, in 0-1, of its window most like an attack.

    Args:
        model: Of two labels.
        label: Of an attack.
        texts: Of any length.

    Raises:
        RuntimeError: The model gave no answer.
    """
    parts = [
        [part for reading in unmasked(text) for part in windows(reading) if part.strip()] for text in texts
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


def read_guard(folder: Path) -> Guard:
    """Read `guard.json` and check that it is of the release beside it.

    Raises:
        InvalidInput: There is none.
        BrokenArtifact: It was made for another release.
    """
    path = folder / GUARD_FILE
    if not path.is_file():
        raise InvalidInput(
            f"model must be a folder that `jettison guard` made, got {folder} without {GUARD_FILE}."
        )
    guard = read_json(path, Guard)
    if guard.format != 1:
        raise BrokenArtifact(f"{path} must have format 1, got {guard.format}.")
    release = open_release(folder / RELEASE)
    if release.digest != guard.release:
        raise BrokenArtifact(
            f"{path} must be of the release beside it, {release.digest[:12]}…, got {guard.release[:12]}…. "
            "Run `jettison guard` again."
        )
    return guard


def _threshold(settings: PromptInjectionSettings, guard: Guard) -> float:
    if settings.threshold is not None and settings.false_alarm_share is not None:
        raise InvalidInput("either threshold or false_alarm_share may be given, got both.")
    if settings.threshold is not None:
        if not 0 < settings.threshold <= 1:
            raise InvalidInput(f"threshold must be in 0-1, got {settings.threshold}.")
        return settings.threshold
    share = guard.share if settings.false_alarm_share is None else f"{settings.false_alarm_share:g}"
    if share not in guard.thresholds:
        raise InvalidInput(f"false_alarm_share must be one of {list(guard.thresholds)}, got {share}.")
    return guard.thresholds[share]
