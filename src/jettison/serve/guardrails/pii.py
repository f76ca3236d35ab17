"""Addresses and numbers of persons, by form and checksum."""

from jettison.errors import InvalidInput
from jettison.serve.guardrails.spans import verdict_of_finds
from jettison.serve.guardrails.verdict import GuardSettings, Verdict, Where
from jettison.task.pii import KINDS, cut, find


class PiiSettings(GuardSettings, frozen=True, kw_only=True):
    """Settings of `pii`."""

    kinds: tuple[str, ...] = KINDS
    """What to look for: some of `email`, `iban`, `card`, `ip`, `phone`."""
    allow: tuple[str, ...] = ()
    """What may stand in a text, written as there: the company's own address, say."""


class Pii:
    """Finds e-mail addresses, IBANs (checksum), payment cards (checksum), IP addresses, phone numbers.

    Names of people are not looked for.
    """

    Settings = PiiSettings

    def __init__(self, settings: PiiSettings) -> None:
        unknown = sorted(set(settings.kinds) - set(KINDS))
        if unknown or not settings.kinds:
            raise InvalidInput(f"kinds must be some of {list(KINDS)}, got {unknown or 'none'}.")
        self._settings = settings
        self._allowed = frozenset(text.casefold() for text in settings.allow)

    def check(self, text: str, *, where: Where) -> Verdict:
        """Judge one text."""
        del where
        found = find(text, self._settings.kinds)
        if self._allowed:
            found = [one for one in found if text[one.start : one.end].casefold() not in self._allowed]
        return verdict_of_finds("pii", self._settings, text, found)

    def cut(self, text: str, start: int = 0) -> int:
        """The last place where a find can neither go on nor begin before."""
        return cut(text, start)
