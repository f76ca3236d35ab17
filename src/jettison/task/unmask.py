"""What a text says once the disguises are off that cost a language model nothing to see through."""

import base64
import binascii
import re
import unicodedata

_LETTERS = dict(
    zip(
        "АВЕЅІЈКМНОРСТУХаеѕіјкорсухѵԁһӏΑΒΕΖΗΙΚΜΝΟΡΤΥΧονρα",
        "ABESIJKMHOPCTYXaesijkopcyxvdhlABEZHIKMNOPTYXovpa",
        strict=True,
    )
)
"""Cyrillic and Greek letters that look like Latin ones."""
_LOOKALIKES = str.maketrans(_LETTERS)
_TAGS = {0xE0000 + code: code for code in range(0x20, 0x7F)}
"""Invisible tag characters, each with the ASCII character it stands for."""
_APART = re.compile(r"(?<!\w)(?:\w[ .\-_*]){4,}\w(?!\w)")
_BASE64 = re.compile(r"[A-Za-z0-9+/]{20,}={0,2}")
_MOST_DECODED = 8
_LATIN = re.compile(r"[A-Za-z]")


def unmasked(text: str) -> list[str]:
    """The text itself, and what else can be read in it: at most nine readings more.

    Compatibility forms, invisible characters and look-alike letters are undone; letters set apart are
    joined; what is base64 of plain text is decoded. Other codes, other languages and misspellings stay.
    """
    if text.isascii():
        plain = text
    else:
        plain = unicodedata.normalize("NFKC", text.translate(_TAGS))
        plain = "".join(one for one in plain if unicodedata.category(one) != "Cf")
        if _LATIN.search(plain):  # a wholly Cyrillic or Greek text is a language, not a disguise
            plain = plain.translate(_LOOKALIKES)
    plain = _APART.sub(lambda found: re.sub(r"[ .\-_*]", "", found.group()), plain)
    return [plain, *_decoded(plain)]


def _decoded(text: str) -> list[str]:
    found = []
    for match in _BASE64.finditer(text):
        raw = match.group().rstrip("=")
        try:
            said = base64.b64decode(raw + "=" * (-len(raw) % 4)).decode("utf-8")
        except (binascii.Error, UnicodeDecodeError):
            continue
        if said.isprintable() or said.replace("\n", " ").isprintable():
            found.append(said)
        if len(found) == _MOST_DECODED:
            break
    return found
