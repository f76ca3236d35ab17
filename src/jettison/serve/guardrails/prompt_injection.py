"""Whether a text gives a language model orders of its own: a lean classifier, made by `jettison guard`."""

from pathlib import Path

from jettison.backends.guard import guard_threshold, open_guard
from jettison.errors import InvalidInput
from jettison.serve.guardrails.verdict import GuardSettings, Verdict, Where


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
        self._settings = settings
        self._guard = open_guard(Path(settings.model))
        self.threshold = guard_threshold(
            self._guard.guard, threshold=settings.threshold, false_alarm_share=settings.false_alarm_share
        )

    def check(self, text: str, *, where: Where) -> Verdict:
        """Judge one text; `score` is the probability of the window that is most like an attack."""
        del where
        score = self._guard.scores([text])[0]
        if score < self.threshold:
            return Verdict(action="pass", guardrail="prompt_injection", score=score)
        reason = "reads like an order to the model"
        return Verdict(
            action=self._settings.action, guardrail="prompt_injection", reason=reason, score=score
        )
