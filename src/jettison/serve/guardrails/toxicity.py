"""Whether a text demeans, threatens or abuses people: a lean classifier that `jettison guard` has made."""

from pathlib import Path

from jettison.backends.guard import TOXICITY, guard_threshold, open_guard
from jettison.errors import InvalidInput
from jettison.serve.guardrails.verdict import GuardSettings, Verdict, Where


class ToxicitySettings(GuardSettings, frozen=True, kw_only=True):
    """Settings of `toxicity`."""

    model: str = ""
    """Folder that `jettison guard --kind toxicity` made; the built-in one where there is none."""
    false_alarm_share: float | None = None
    """Share of ordinary texts like those of dev that may be caught: one that `guard.json` lists."""
    threshold: float | None = None
    """Probability from which a text is caught, instead."""


class Toxicity:
    """Catches texts that demean, threaten or abuse people, in English.

    A long text is read in windows, the worst of which counts; so are its disguises.
    """

    Settings = ToxicitySettings

    def __init__(self, settings: ToxicitySettings) -> None:
        if settings.action == "redact":
            raise InvalidInput("action must be `flag`, `escalate` or `block`, got `redact`.")
        self._settings = settings
        self._guard = open_guard(Path(settings.model) if settings.model else TOXICITY)
        self.threshold = guard_threshold(
            self._guard.guard, threshold=settings.threshold, false_alarm_share=settings.false_alarm_share
        )

    def check(self, text: str, *, where: Where) -> Verdict:
        """Judge one text; `score` is the probability of its most toxic window."""
        del where
        score = self._guard.scores([text])[0]
        if score < self.threshold:
            return Verdict(action="pass", guardrail="toxicity", score=score)
        reason = "reads as demeaning, threatening or abusive"
        return Verdict(action=self._settings.action, guardrail="toxicity", reason=reason, score=score)
