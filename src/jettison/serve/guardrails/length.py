"""How long a text may be, in characters and words."""

import msgspec

from jettison.errors import InvalidInput
from jettison.serve.guardrails.verdict import GuardSettings, Verdict, Where


class LengthSettings(GuardSettings, frozen=True, kw_only=True):
    """Settings of `length`."""

    most_characters: int | None = None
    least_characters: int | None = None
    most_words: int | None = None
    """Runs of characters without white space."""


class Length:
    """Catches texts that are too long or too short; `redact` cuts off what is over `most_characters`."""

    Settings = LengthSettings
    is_for_answers = True

    def __init__(self, settings: LengthSettings) -> None:
        limits = (settings.most_characters, settings.least_characters, settings.most_words)
        if all(limit is None for limit in limits):
            raise InvalidInput(
                "at least one of most_characters, least_characters and most_words must be given, got none."
            )
        if any(limit is not None and limit < 1 for limit in limits):
            raise InvalidInput(f"limits must be at least 1, got {limits}.")
        if settings.action == "redact" and settings.most_characters is None:
            raise InvalidInput("with action `redact` most_characters must be given, got none.")
        self._settings = settings

    def check(self, text: str, *, where: Where) -> Verdict:
        """Judge one text."""
        del where
        settings = self._settings
        n = len(text)
        if settings.most_characters is not None and n > settings.most_characters:
            masked = text[: settings.most_characters] if settings.action == "redact" else None
            return self._caught(f"over {settings.most_characters} characters", masked)
        if settings.least_characters is not None and n < settings.least_characters:
            return self._caught(f"under {settings.least_characters} characters")
        # A word takes two characters with its space: short texts need no counting.
        limit = settings.most_words
        if limit is not None and n >= 2 * limit and len(text.split(maxsplit=limit)) > limit:
            return self._caught(f"over {limit} words")
        return Verdict(action="pass", guardrail="length")

    def stage(self) -> "LengthStage":
        """Its part in one streamed output: nothing is held back."""
        return LengthStage(self)

    def _caught(self, reason: str, masked: str | None = None) -> Verdict:
        action = self._settings.action
        if action == "redact" and masked is None:
            action = "block"  # too short, or too many words: there is nothing to cut off
        return Verdict(action=action, guardrail="length", reason=reason, text=masked)


class LengthStage:
    """Lets pieces by until the output is too long."""

    def __init__(self, length: Length) -> None:
        self._length, self._text, self._said = length, "", False
        most = length._settings.most_characters
        self._room = most if length._settings.action == "redact" else None

    def take(self, piece: str, *, last: bool) -> tuple[str, list[Verdict]]:
        """Take a piece; see `jettison.serve.guardrails.stream.Stage`."""
        self._text += piece
        if self._room is not None:
            kept = piece[: self._room]
            self._room -= len(kept)
            piece = kept
        if self._said:
            return piece, []
        verdict = self._length.check(self._text, where="output")
        too_short = (verdict.reason or "").startswith("under")
        if verdict.action == "pass" or (too_short and not last):
            return piece, []
        self._said = True
        return piece, [msgspec.structs.replace(verdict, text=None)]
