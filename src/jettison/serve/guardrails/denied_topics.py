"""Topics that are not to be talked of, told by a few examples each."""

from pathlib import Path

import msgspec
import numpy as np

from jettison.backends.embedder import open_embedder
from jettison.errors import InvalidInput
from jettison.serve.guardrails.verdict import GuardSettings, Verdict, Where

_LEAST_ORDINARY = 20


class DeniedTopicsSettings(GuardSettings, frozen=True, kw_only=True):
    """Settings of `denied_topics`."""

    model: str = ""
    """Folder of the embedder: a static student, a model2vec table, or an encoder's checkpoint."""
    topics: dict[str, tuple[str, ...]] = msgspec.field(default_factory=dict)
    """Topic to examples of it, texts as users write them."""
    threshold: float | None = None
    """Cosine to the nearest example from which a text is caught."""
    ordinary: str | None = None
    """File of ordinary texts, one a line, that sets the threshold where none is given."""
    false_alarm_share: float = 0.01
    """Share of the ordinary texts that may be caught."""


class DeniedTopics:
    """Catches texts that are near to an example of a denied topic, in the eyes of an embedder.

    Cosines mean nothing across embedders: give ordinary texts of your own traffic rather than a threshold.
    """

    Settings = DeniedTopicsSettings

    def __init__(self, settings: DeniedTopicsSettings) -> None:
        _check(settings)
        self._settings = settings
        self._embedder = open_embedder(Path(settings.model))
        pairs = [(topic, text) for topic, texts in settings.topics.items() for text in texts]
        self._topic_of = [topic for topic, _ in pairs]
        self._examples = self._embedder.embed([text for _, text in pairs])
        if not np.linalg.norm(self._examples, axis=1).all():
            raise InvalidInput("every example of topics must have a word that the embedder knows.")
        if settings.threshold is not None:
            self.threshold = settings.threshold
        else:
            self.threshold = self._from_ordinary(Path(str(settings.ordinary)))

    def check(self, text: str, *, where: Where) -> Verdict:
        """Judge one text; `score` is the cosine to the nearest example, at least 0."""
        del where
        cosines = self._examples @ self._embedder.embed([text])[0]
        nearest = int(cosines.argmax())
        score = float(np.clip(cosines[nearest], 0.0, 1.0))
        if score < self.threshold:
            return Verdict(action="pass", guardrail="denied_topics", score=score)
        reason = f"near to topic {self._topic_of[nearest]!r}"
        return Verdict(action=self._settings.action, guardrail="denied_topics", reason=reason, score=score)

    def _from_ordinary(self, path: Path) -> float:
        try:
            texts = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidInput(f"ordinary must be a file of UTF-8 texts, got {path}: {error}.") from error
        least = max(_LEAST_ORDINARY, int(1 / self._settings.false_alarm_share))
        if len(texts) < least:
            raise InvalidInput(
                f"ordinary must hold at least {least} texts to tell a false_alarm_share of "
                f"{self._settings.false_alarm_share}, got {len(texts)} in {path}."
            )
        cosines = np.sort((self._embedder.embed(texts) @ self._examples.T).max(axis=1))
        # Above the ordinary text with rank (n + 1)(1 - share): a new one is caught at most that often.
        rank = min(len(cosines), int(np.ceil((len(cosines) + 1) * (1 - self._settings.false_alarm_share))))
        return float(np.nextafter(cosines[rank - 1], np.float32(np.inf)))


def _check(settings: DeniedTopicsSettings) -> None:
    if not settings.model:
        raise InvalidInput("model must be the folder of an embedder, got none.")
    if not settings.topics or not all(settings.topics.values()):
        raise InvalidInput("topics must hold at least one topic, each with at least one example.")
    if (settings.threshold is None) == (settings.ordinary is None):
        raise InvalidInput("either threshold or ordinary must be given, and not both.")
    if settings.threshold is not None and not 0 < settings.threshold <= 1:
        raise InvalidInput(f"threshold must be in 0-1, got {settings.threshold}.")
    if not 0 < settings.false_alarm_share < 1:
        raise InvalidInput(f"false_alarm_share must be in 0-1, got {settings.false_alarm_share}.")
    if settings.action == "redact":
        raise InvalidInput("action must be `flag`, `escalate` or `block`, got `redact`.")
