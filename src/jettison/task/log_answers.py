"""What kind of answers logs hold: one of a few labels, JSON objects, or free text."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from jettison.files import decode_json
from jettison.task.types import TaskKind

MIN_ANSWERS = 20
MIN_COVERAGE = 0.95
MAX_LABELS = 200
MAX_LABEL_CHARACTERS = 80
MAX_LABEL_WORDS = 8
OBJECT_SHARE = 0.95
_AROUND = " \t\r\n\"'`*.:;!"


@dataclass(frozen=True, kw_only=True)
class Answers:
    """The kind that the answers are of, and how one is read."""

    kind: TaskKind
    labels: tuple[str, ...] = ()
    by_plain: dict[str, str] = field(default_factory=dict)
    """Answer without case and marks → label."""

    def plain(self, answer: str) -> str:
        """What two answers share that say the same."""
        return plain(answer) if self.labels else answer.strip()

    def label(self, answer: str) -> str | None:
        """The label an answer says; None where it says none."""
        return self.by_plain.get(plain(answer))

    def expected(self, answer: str) -> str | None:
        """The answer as what is expected; None where it is none of its kind."""
        if self.kind == "classify":
            return self.label(answer)
        if self.kind == "extract":
            found = object_in(answer)
            return None if found is None else msgspec.json.encode(found).decode()
        return answer if answer.strip() else None


def answers_in(answers: Sequence[tuple[str, int]]) -> Answers:
    """The kind of the answers.

    They are of a closed set when nearly all of them are short and recur: at least 20 inputs, at most
    one label for five of them, and 95 % of the inputs covered by labels seen twice or more.

    Args:
        answers: The answer to each different input, and how often it was asked.
    """
    texts = [answer for answer, _ in answers]
    objects = sum(object_in(text) is not None for text in texts)
    if objects >= OBJECT_SHARE * len(texts):
        return Answers(kind="extract")
    written: dict[str, Counter[str]] = {}
    for text in texts:
        written.setdefault(plain(text), Counter())[text.strip()] += 1
    frequent = {
        key: forms
        for key, forms in written.items()
        if forms.total() >= max(2, 0.002 * len(texts)) and _is_short(key)
    }
    covered = sum(forms.total() for forms in frequent.values())
    closed = (
        len(texts) >= MIN_ANSWERS
        and 2 <= len(frequent) <= min(MAX_LABELS, len(texts) / 5)
        and covered >= MIN_COVERAGE * len(texts)
    )
    if not closed:
        return Answers(kind="generate")
    by_plain = {key: _bare(forms) for key, forms in frequent.items()}
    return Answers(kind="classify", labels=tuple(sorted(by_plain.values())), by_plain=by_plain)


def plain(answer: str) -> str:
    """Without case, the space and the marks around it."""
    return " ".join(answer.strip(_AROUND).casefold().split())


def object_in(answer: str) -> dict[str, object] | None:
    """The JSON object that an answer is, with or without a fence around it."""
    text = answer.strip()
    if text.startswith("```"):
        text = text.strip("`").removeprefix("json").strip()
    if not text.startswith("{"):
        return None
    try:
        found = decode_json(text.encode("utf-8", "replace"), Any)
    except msgspec.DecodeError:
        return None
    return found if isinstance(found, dict) else None


def _is_short(key: str) -> bool:
    return 0 < len(key) <= MAX_LABEL_CHARACTERS and len(key.split()) <= MAX_LABEL_WORDS


def _bare(forms: Counter[str]) -> str:
    """A label as it is written most often, without the marks around it."""
    return min(forms, key=lambda text: (-forms[text], text)).strip(_AROUND)
