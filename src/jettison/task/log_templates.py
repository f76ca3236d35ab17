"""Prompt templates recognised in logged requests: what is the same in all of them, and what varies.

Requests with one system message (whatever its numbers) belong together. Among their user messages,
templates are told apart by the words they begin or end with; of each, the longest common beginning and
end, in whole tokens, is the template, and what stands between is the input.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from jettison.task.log_calls import Call

MIN_CALLS = 5
"""Different requests that must share a beginning or an end before it is taken for a template's."""
MIN_SHARE = 0.05
SURE_WORDS = 6
"""So many words in common are no accident, however small their share of the requests."""
COVERAGE = 0.9
_TOKEN = re.compile(r"\s+|\w+|[^\w\s]")
_WORD = re.compile(r"\w+")


@dataclass(frozen=True, kw_only=True)
class Template:
    """What a group of requests has in common."""

    system: str
    turns: tuple[tuple[str, str], ...]
    """Earlier turns that are the same in every request: worked examples."""
    prefix: str
    suffix: str
    calls: tuple[Call, ...]
    n_systems: int = 1
    """Different system messages, which differ in numbers alone."""

    @property
    def n_calls(self) -> int:
        return sum(call.n for call in self.calls)

    def input_of(self, user: str) -> str:
        """What varies in one user message."""
        return user[len(self.prefix) : len(user) - len(self.suffix)]


def templates_of(calls: Sequence[Call]) -> list[Template]:
    """Templates, the most used first; every call belongs to one."""
    groups: dict[tuple[str, tuple[tuple[str, str], ...]], list[Call]] = defaultdict(list)
    for call in calls:
        groups[(re.sub(r"\d+", "0", call.request.system), call.request.turns)].append(call)
    found = []
    for (_, turns), members in groups.items():
        systems = Counter[str]()
        for call in members:
            systems[call.request.system] += call.n
        system = min(systems, key=lambda text: (-systems[text], text))
        for group in _told_apart([call.request.user for call in members]):
            prefix, suffix = common_ends([members[i].request.user for i in group])
            found.append(
                Template(
                    system=system,
                    turns=turns,
                    prefix=prefix,
                    suffix=suffix,
                    calls=tuple(members[i] for i in group),
                    n_systems=len(systems),
                )
            )
    return sorted(found, key=lambda one: (-one.n_calls, one.system, one.prefix))


def common_ends(texts: Sequence[str]) -> tuple[str, str]:
    """Longest common beginning and end in whole tokens, which never overlap; none of too few texts.

    Args:
        texts: User messages; equal ones count once.
    """
    different = list(dict.fromkeys(texts))
    if len(different) < MIN_CALLS:
        return "", ""
    rows = [_TOKEN.findall(text) for text in different]
    n_prefix = _n_common(rows)
    rests = [row[n_prefix:][::-1] for row in rows]
    n_suffix = _n_common(rests)
    first = rows[0]
    return "".join(first[:n_prefix]), "".join(first[len(first) - n_suffix :]) if n_suffix else ""


def _n_common(rows: Sequence[Sequence[str]]) -> int:
    first, n = rows[0], min(map(len, rows))
    for row in rows[1:]:
        at = 0
        while at < n and row[at] == first[at]:
            at += 1
        n = at
    return n


def _told_apart(texts: Sequence[str]) -> list[list[int]]:
    """Positions of the texts by template: by many words in common, then by few that cover nearly all."""
    prefix, suffix = common_ends(texts)
    words = [_WORD.findall(text[len(prefix) : len(text) - len(suffix)]) for text in texts]
    rest = list(range(len(texts)))
    groups: list[list[int]] = []
    for from_end in (False, True):
        for group in _by_ends(words, rest, SURE_WORDS, from_end=from_end, least=MIN_SHARE * len(texts)):
            groups.append(group)
        taken = {i for group in groups for i in group}
        rest = [i for i in rest if i not in taken]
    for n_words in (4, 3, 2):
        for from_end in (False, True):
            few = _by_ends(words, rest, n_words, from_end=from_end, least=MIN_SHARE * len(rest))
            if len(few) > 1 and sum(map(len, few)) >= COVERAGE * len(rest):
                taken = {i for group in few for i in group}
                groups += few
                rest = [i for i in rest if i not in taken]
    return [*groups, rest] if rest else groups


def _by_ends(
    words: Sequence[Sequence[str]], among: Sequence[int], n_words: int, *, from_end: bool, least: float
) -> list[list[int]]:
    found: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for i in among:
        row = words[i]
        if len(row) >= n_words:
            found[tuple(row[-n_words:] if from_end else row[:n_words])].append(i)
    return [group for group in found.values() if len(group) >= max(MIN_CALLS, least)]
