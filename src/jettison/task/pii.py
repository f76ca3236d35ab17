"""What names or reaches a person, found in texts by form and checksum, and masked.

Patterns are narrow: what is masked is nearly always what it is called, and names of people are not
looked for at all. A mask says its kind and number, so that one address stays one address within a call.
"""

import ipaddress
import re
from collections import Counter
from collections.abc import Collection
from typing import NamedTuple

KINDS = ("email", "iban", "card", "ip", "phone")
_IBAN_LENGTHS = range(15, 35)
_DOMAIN = r"(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.){1,8}[A-Za-z]{2,24}"
_V4, _V6 = r"\d{1,3}(?:\.\d{1,3}){3}", r"(?:[0-9A-Fa-f]{0,4}:){2,7}[0-9A-Fa-f]{0,4}"
_PATTERNS: dict[str, re.Pattern[str]] = {
    "email": re.compile(rf"\b[\w.+-]{{1,64}}@{_DOMAIN}\b"),
    "iban": re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{2,4}){3,8}\b"),
    "card": re.compile(r"(?<![\d.-])\d(?:[ -]?\d){12,18}(?![\d.-]?\d)"),
    "ip": re.compile(rf"(?<![\w.:])(?:{_V4}|{_V6})(?![\w:])(?!\.\d)"),
    "phone": re.compile(
        r"(?<![\w+.-])(?<!\d{4} )(?:"  # not the rest of a number in groups of four
        r"\+\d{1,3}[ ./-]?(?:\(0?\d{1,4}\)[ ./-]?)?\d(?:[ ./-]?\d){5,11}"  # +49 (0)30 1234567
        r"|\(\d{2,5}\)[ -]?\d(?:[ -]?\d){4,9}"  # (555) 123-4567
        r"|\d{3}[-. ]\d{3}[-. ]\d{4}"  # 555-123-4567
        r"|0\d{2,5}[ /-]\d(?:[ -]?\d){4,9}"  # 030 1234567
        r")(?![\w-])(?! \d)"
    ),
}  # fmt: skip
_DIGIT = re.compile(r"\d")
_CUTS = re.compile(r"[^\w.+\-@ /():]|(?<=[^\W\d_A-Z]) |(?<=\.) ")


class Found(NamedTuple):
    """One find in a text."""

    kind: str
    start: int
    end: int


def find(text: str, kinds: Collection[str] = KINDS) -> list[Found]:
    """What was found in a text, in its order, no two of one place.

    Args:
        text: To look in.
        kinds: Of `KINDS`; where two fit one place, the earlier in `KINDS` takes it.
    """
    found: list[Found] = []
    has_digit = _DIGIT.search(text) is not None
    for kind in KINDS:
        if kind not in kinds or not _may_hold(kind, text, has_digit):
            continue
        for match in _PATTERNS[kind].finditer(text):
            if _holds(kind, match[0]):
                found.append(Found(kind, match.start(), match.end()))
                # Taken: no other kind reads it, and what stands beside it stays where it was.
                text = text[: match.start()] + "\0" * (match.end() - match.start()) + text[match.end() :]
    return sorted(found, key=lambda one: one.start)


def cut(text: str, start: int = 0) -> int:
    """Where a text may be cut so that the finds of both parts are those of the whole, whatever follows.

    White space ends a find where the word before it has a small letter or the sentence ends, and so do
    all marks that no pattern knows. Patterns may look past their end by two characters, which such a
    mark, or a full stop and its space, cover.

    Args:
        text: Any text.
        start: Where to begin to look.

    Returns:
        The last such place, or 0 if there is none at or after `start`.
    """
    last = 0
    for match in _CUTS.finditer(text, start):
        last = match.end()
    return last


def mask(texts: tuple[str, ...]) -> tuple[tuple[str, ...], Counter[str]]:
    """Texts of one call with what was found replaced by `[EMAIL_1]` and the like.

    Args:
        texts: Read as one: what stands in two of them gets one mask.

    Returns:
        The texts, and how often each kind was found.
    """
    counts: Counter[str] = Counter()
    names: dict[str, str] = {}
    numbers: Counter[str] = Counter()
    masked = []
    for text in texts:
        parts, done = [], 0
        for kind, start, end in find(text):
            key = f"{kind}:{_plain(text[start:end])}"
            if key not in names:
                numbers[kind] += 1
                names[key] = f"[{kind.upper()}_{numbers[kind]}]"
            counts[kind] += 1
            parts += [text[done:start], names[key]]
            done = end
        masked.append("".join((*parts, text[done:])))
    return tuple(masked), counts


def _may_hold(kind: str, text: str, has_digit: bool) -> bool:
    """Whether a search can find anything: most texts hold no digit and no @."""
    if kind == "email":
        return "@" in text
    return has_digit or (kind == "ip" and ":" in text)


def _plain(found: str) -> str:
    return "".join(c for c in found.casefold() if c.isalnum() or c in "@.:+")


def _holds(kind: str, found: str) -> bool:
    if kind == "iban":
        return _is_iban(found.replace(" ", ""))
    if kind == "card":
        return _is_card("".join(c for c in found if c.isdigit()))
    if kind == "ip":
        return _is_address(found)
    return True


def _is_iban(text: str) -> bool:
    """ISO 13616: moved to the end, letters as numbers from 10, the first four leave 1 modulo 97."""
    if len(text) not in _IBAN_LENGTHS:
        return False
    return int("".join(str(int(c, 36)) for c in text[4:] + text[:4])) % 97 == 1


def _is_card(digits: str) -> bool:
    """ISO/IEC 7812: the Luhn checksum; one digit over and over is no card."""
    if not 13 <= len(digits) <= 19 or len(set(digits)) == 1 or digits[0] not in "23456":
        return False
    doubled = [int(c) * (2 if i % 2 else 1) for i, c in enumerate(reversed(digits))]
    return sum(n - 9 if n > 9 else n for n in doubled) % 10 == 0


def _is_address(text: str) -> bool:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    return not (address.is_unspecified or address.is_loopback)
