"""Which language a text is in."""

from typing import Any

from jettison import registry
from jettison.errors import InvalidInput
from jettison.serve.guardrails.verdict import GuardSettings, Verdict, Where


class LanguageSettings(GuardSettings, frozen=True, kw_only=True):
    """Settings of `language`."""

    allowed: tuple[str, ...] = ()
    """ISO 639-1 codes: `en`, `de`."""
    least_probability: float = 0.9
    """Of the languages that are not allowed, taken together, from which a text is caught; what is short or
    mixed seldom reaches it."""
    least_letters: int = 12
    """A text with fewer letters passes: nobody can tell."""


class Language:
    """Catches texts in other languages than those allowed. Needs the extra `language` (py3langid)."""

    Settings = LanguageSettings
    is_for_answers = True

    def __init__(self, settings: LanguageSettings) -> None:
        if not settings.allowed:
            raise InvalidInput("allowed must name at least one language, as in ['en'], got none.")
        if not 0 < settings.least_probability <= 1:
            raise InvalidInput(f"least_probability must be in 0-1, got {settings.least_probability}.")
        if settings.action == "redact":
            raise InvalidInput("action must be `flag`, `escalate` or `block`, got `redact`.")
        langid = registry.need("py3langid.langid", "language")
        self._settings = settings
        self._identifier: Any = langid.LanguageIdentifier.from_model_file(
            langid.MODEL_FILE, norm_probs=True
        )
        known = {str(code) for code in self._identifier.labels}
        unknown = sorted(set(settings.allowed) - known)
        if unknown:
            raise InvalidInput(f"allowed must be some of {sorted(known)}, got {unknown}.")

    def check(self, text: str, *, where: Where) -> Verdict:
        """Judge one text; `score` is how probable it is that the language is not allowed."""
        del where
        settings = self._settings
        if sum(map(str.isalpha, text[:1000])) < settings.least_letters:
            return Verdict(action="pass", guardrail="language")
        ranked = self._identifier.rank(text.encode("utf-8", "replace"))
        other = 1.0 - sum(float(share) for code, share in ranked if code in settings.allowed)
        other = min(max(other, 0.0), 1.0)
        if other < settings.least_probability:
            return Verdict(action="pass", guardrail="language", score=other)
        reason = f"looks like {ranked[0][0]}"
        return Verdict(action=settings.action, guardrail="language", reason=reason, score=other)
