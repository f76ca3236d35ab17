"""Keys, tokens and passwords: by the forms that their makers gave them, or by the name they are set to."""

import math
import re
from collections import Counter
from typing import NamedTuple

from jettison.serve.guardrails.spans import verdict_of_finds
from jettison.serve.guardrails.verdict import GuardSettings, Verdict, Where
from jettison.task.pii import Found


class _Rule(NamedTuple):
    kind: str
    hints: tuple[str, ...]
    """One of them is in every text that the pattern finds: looking for them is 50 times as fast."""
    pattern: re.Pattern[str]
    """Bounded everywhere, with no space but what `_CUTS` knows. Group 1, if there is one, is masked."""


def _rule(kind: str, hints: str, pattern: str) -> _Rule:
    return _Rule(kind, tuple(hints.split()), re.compile(pattern))


_B, _E = r"(?<![A-Za-z0-9_-])", r"(?![A-Za-z0-9])"
_RULES = (
    _rule("aws_access_key", "AKIA ASIA ABIA ACCA", rf"{_B}(?:AKIA|ASIA|ABIA|ACCA)[A-Z2-7]{{16}}{_E}"),
    _rule("github_token", "ghp_ gho_ ghu_ ghs_ ghr_", rf"{_B}gh[pousr]_[A-Za-z0-9]{{36,255}}{_E}"),
    _rule("github_token", "github_pat_", rf"{_B}github_pat_[A-Za-z0-9_]{{22,255}}"),
    _rule("gitlab_token", "glpat-", rf"{_B}glpat-[A-Za-z0-9_-]{{20,64}}"),
    _rule("api_key", "sk-", rf"{_B}sk-(?=[A-Za-z0-9_-]{{0,200}}\d)[A-Za-z0-9_-]{{20,200}}"),
    _rule("slack_token", "xox", rf"{_B}xox[abeoprs]-[A-Za-z0-9-]{{10,250}}"),
    _rule(
        "slack_webhook",
        "hooks.slack.com",
        r"https://hooks\.slack\.com/services/[A-Za-z0-9_]{8,12}/[A-Za-z0-9_]{8,14}/[A-Za-z0-9_]{20,30}",
    ),
    _rule("google_api_key", "AIza", rf"{_B}AIza[A-Za-z0-9_-]{{35}}{_E}"),
    _rule("stripe_key", "_live_ _test_", rf"{_B}[srp]k_(?:live|test)_[A-Za-z0-9]{{16,247}}"),
    _rule("npm_token", "npm_", rf"{_B}npm_[A-Za-z0-9]{{36}}{_E}"),
    _rule("pypi_token", "pypi-AgE", rf"{_B}pypi-AgE[A-Za-z0-9_-]{{50,600}}"),
    _rule("hugging_face_token", "hf_", rf"{_B}hf_[A-Za-z0-9]{{30,40}}{_E}"),
    _rule("sendgrid_key", "SG.", rf"{_B}SG\.[A-Za-z0-9_-]{{16,32}}\.[A-Za-z0-9_-]{{32,64}}"),
    _rule("telegram_token", ":AA", rf"{_B}\d{{8,10}}:AA[A-Za-z0-9_-]{{33}}{_E}"),
    _rule(
        "jwt",
        "eyJ",
        rf"{_B}eyJ[A-Za-z0-9_-]{{8,2000}}\.eyJ[A-Za-z0-9_-]{{8,4000}}\.[A-Za-z0-9_-]{{10,2000}}",
    ),
    _rule("azure_key", "AccountKey=", r"AccountKey=([A-Za-z0-9+/]{80,90}={0,2})"),
    _rule(
        "url_password",
        "://",
        r"(?<![A-Za-z0-9+.-])[A-Za-z][A-Za-z0-9+.-]{1,20}://[^\s:/@\"'<>]{0,64}:([^\s/@\"'<>[{$][^\s/@\"'<>]{2,127})@",
    ),
    _rule(
        "bearer_token",
        "earer EARER asic ASIC",
        rf"{_B}(?:[Bb]earer|BEARER|[Bb]asic|BASIC) ([A-Za-z0-9._~+/-]{{20,2000}}={{0,2}})",
    ),
)  # fmt: skip
_NAMES = re.compile(r"key|secret|token|passw|pwd|credential", re.IGNORECASE)
_ASSIGNED = re.compile(
    r"(?i:api[_-]?key|secret|token|passwor[dt]|passwd|passphrase|pwd|credentials?|(?:access|private|account)[_-]?key)"
    r"[\w-]{0,24}[\"']?\]?[ \t]{0,2}(?::=|=>|={1,2}|:)[ \t]{0,2}[\"'`]?([^\s\"'`,;<>()\[\]{}]{8,256})"
)
_PLACEHOLDER = re.compile(
    r"(?i:x{4}|\*{3}|\.{3}|your|example|placeholder|changeme|redacted|dummy|insert|environ|getenv|process\.env|\$)"
)
_OPEN = re.compile(r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----")
_CLOSE = re.compile(r"-----END [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----")
_BEGIN = "-----BEGIN"
_LONGEST_OPEN = 80
_CUTS = re.compile(
    r"[\r\n]|(?<=[^\s:=>\"'`\]])(?<!earer)(?<!EARER)(?<!asic)(?<!ASIC)[ \t](?=[^\s:=\"'`\]])", re.ASCII
)


class Secrets:
    """Finds private keys, tokens of well-known makers, passwords in addresses, and random-looking values
    of what is called a key, secret, token or password.

    A value by its name alone must look random: 8 characters or more, two of small letters, large letters,
    digits and marks, and at least 2.5 bits a character. Placeholders (`your-key`, `xxxx`, `$TOKEN`) pass.
    """

    Settings = GuardSettings

    def __init__(self, settings: GuardSettings) -> None:
        self._settings = settings

    def check(self, text: str, *, where: Where) -> Verdict:
        """Judge one text."""
        del where
        return verdict_of_finds("secrets", self._settings, text, find_secrets(text))

    def cut(self, text: str, start: int = 0) -> int:
        """The last place outside of any secret, at the end of a line or between two words."""
        keys = _key_places(text) if _BEGIN in text else ()
        last = 0
        for match in _CUTS.finditer(text, start):
            if not any(begun < match.end() < ended for begun, ended in keys):
                last = match.end()
        return last


def find_secrets(text: str) -> list[Found]:
    """Secrets of a text, in order, no two of one place."""
    found = _private_keys(text) if "PRIVATE KEY" in text else []
    for rule in _RULES:
        if any(hint in text for hint in rule.hints):
            found += [_found(rule.kind, match) for match in rule.pattern.finditer(text)]
    if _NAMES.search(text):
        found += [_found("secret", m) for m in _ASSIGNED.finditer(text) if looks_random(m[1])]
    return _apart(found) if len(found) > 1 else found


def looks_random(value: str) -> bool:
    """Whether a value may be a secret rather than a word or a placeholder."""
    if _PLACEHOLDER.search(value):
        return False
    kinds = (str.isdigit, str.islower, str.isupper)
    classes = sum(any(kind(c) for c in value) for kind in kinds) + any(not c.isalnum() for c in value)
    counts = Counter(value).values()
    bits = -sum(n / len(value) * math.log2(n / len(value)) for n in counts)
    return classes >= 2 and bits >= 2.5


def _found(kind: str, match: re.Match[str]) -> Found:
    group = match.re.groups
    return Found(kind, match.start(group), match.end(group))


def _private_keys(text: str) -> list[Found]:
    """From the first line to the last, or to the end of the text where that is missing."""
    found, at = [], 0
    while opened := _OPEN.search(text, at):
        closed = _CLOSE.search(text, opened.end())
        at = closed.end() if closed else len(text)
        found.append(Found("private_key", opened.start(), at))
    return found


def _key_places(text: str) -> list[tuple[int, int]]:
    """Begin and end of each private key; of one that may still go on, the end is past the text's."""
    places, at = [], 0
    while (begun := text.find(_BEGIN, at)) >= 0:
        opened = _OPEN.match(text, begun)
        if opened is None:
            line = text[begun : begun + _LONGEST_OPEN]
            if len(line) < _LONGEST_OPEN and not re.search(r"[\r\n]", line):
                places.append((begun, len(text) + 1))
            at = begun + len(_BEGIN)
            continue
        closed = _CLOSE.search(text, opened.end())
        at = closed.end() if closed else len(text) + 1
        places.append((begun, at))
    return places


def _apart(found: list[Found]) -> list[Found]:
    """In order of place; those that overlap become one, named by the first."""
    kept: list[Found] = []
    for one in sorted(found, key=lambda one: (one.start, -one.end)):
        if not kept or one.start >= kept[-1].end:
            kept.append(one)
        elif one.end > kept[-1].end:
            kept[-1] = kept[-1]._replace(end=one.end)
    return kept
