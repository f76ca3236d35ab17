"""Any classifier of ours as a guardrail: a candidate or release, and the labels that are not to pass."""

from pathlib import Path

from jettison.backends.open import open_model
from jettison.backends.released import open_release_model
from jettison.candidate import Candidate
from jettison.errors import InvalidInput
from jettison.model import Model, softmax
from jettison.release.types import RELEASE_FILE
from jettison.serve.guardrails.verdict import GuardSettings, Verdict, Where


class ClassifierSettings(GuardSettings, frozen=True, kw_only=True):
    """Settings of `classifier`."""

    model: str = ""
    """Folder of a release, or of a candidate."""
    labels: tuple[str, ...] = ()
    """What is caught."""
    threshold: float = 0.5
    """Probability of those labels together from which a text is caught."""


class Classifier:
    """Catches what a classifier gives one of some labels: toxicity, say, by a model of your own."""

    Settings = ClassifierSettings

    def __init__(self, settings: ClassifierSettings, *, name: str = "classifier") -> None:
        if not settings.model:
            raise InvalidInput("model must be the folder of a release or a candidate, got none.")
        self._name, self._settings = name, settings
        self._model = _open(Path(settings.model))
        unknown = sorted(set(settings.labels) - set(self._model.labels))
        if unknown or not settings.labels:
            raise InvalidInput(
                f"labels must be some of {list(self._model.labels)[:20]}, got {unknown or 'none'}."
            )
        if not 0 < settings.threshold <= 1:
            raise InvalidInput(f"threshold must be in 0-1, got {settings.threshold}.")
        if settings.action == "redact":
            raise InvalidInput("action must be `flag`, `escalate` or `block`, got `redact`.")
        self._rows = [self._model.labels.index(label) for label in settings.labels]

    def check(self, text: str, *, where: Where) -> Verdict:
        """Judge one text; `score` is the probability of the labels together."""
        del where
        score = self.probability(text)
        if score < self._settings.threshold:
            return Verdict(action="pass", guardrail=self._name, score=score)
        reason = "classified as " + " or ".join(self._settings.labels)
        return Verdict(action=self._settings.action, guardrail=self._name, reason=reason, score=score)

    def probability(self, text: str) -> float:
        """Calibrated probability, in 0-1, of the labels together."""
        output = self._model.predict([text])[0]
        if output.error is not None:
            raise RuntimeError("the classifier gave no answer")
        if output.logits is None:
            sure = output.label in self._settings.labels
            return output.confidence if sure else 1.0 - output.confidence
        candidate = getattr(self._model, "candidate", None)
        temperature = 1.0 if candidate is None else candidate.calibration.temperature
        shares = softmax(output.logits[None], temperature)[0]
        return min(1.0, float(shares[self._rows].sum()))


def _open(folder: Path) -> Model:
    if (folder / RELEASE_FILE).is_file():
        return open_release_model(folder)
    return open_model(Candidate.at(folder))
