"""Scorers of a text against the right ones: exact, normalised, and F1 over shared words.

Every right answer counts: `expected` and each of `references`; the best of them is the score.
"""

import re
import string
import unicodedata
from abc import ABC, abstractmethod
from collections import Counter

from jettison.errors import InvalidInput
from jettison.evaluate.scorers import Score
from jettison.model import Output
from jettison.task import Example

_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(?:a|an|the)\b")


def right_answers(example: Example) -> tuple[str, ...]:
    """`expected`, where somebody has said it, and the further references."""
    said = () if example.expected is None else (example.expected,)
    return tuple(dict.fromkeys((*said, *example.references)))


class TextScorer(ABC):
    """Compares the answer with each right answer and keeps the best score. No answer scores 0."""

    needs_right_answer = True

    def __init__(self, *, out_of_scope: str | None = None) -> None:
        del out_of_scope

    def score(self, example: Example, output: Output) -> Score:
        """Judge one answer; None where no right answer is known."""
        rights = right_answers(example)
        if not rights:
            return Score(value=None, reason="nobody has said what the right answer is")
        if output.error is not None:
            return Score(value=0.0, reason="no answer")
        return self.best(output.label, rights)

    def best(self, answer: str, rights: tuple[str, ...]) -> Score:
        """The best score over the right answers, of which there is at least one."""
        return Score(value=max(self.compare(answer, right) for right in rights))

    @abstractmethod
    def compare(self, answer: str, right: str) -> float:
        """Score of an answer against one right answer, in 0-1."""


class ExactScorer(TextScorer):
    """1 when the answer is a right one, letter by letter; space around it does not count."""

    def compare(self, answer: str, right: str) -> float:
        """Both in Unicode NFC, so that one accent is one accent however it is encoded."""
        return float(_nfc(answer) == _nfc(right))


class NormalizedExactScorer(TextScorer):
    """1 when the answer is a right one without regard to case, punctuation, English articles and space."""

    def compare(self, answer: str, right: str) -> float:
        """SQuAD's exact match."""
        return float(squad_normalize(answer) == squad_normalize(right))


class F1Scorer(TextScorer):
    """Harmonic mean of the shares of words that answer and right answer have in common, as in SQuAD."""

    def compare(self, answer: str, right: str) -> float:
        """Words are split at space after SQuAD's normalisation; two empty texts agree."""
        return token_f1(squad_normalize(answer).split(), squad_normalize(right).split())


def squad_normalize(text: str) -> str:
    """Lower case, without ASCII punctuation and English articles, single spaces.

    Source:
        Rajpurkar et al. 2016, the official evaluation script of SQuAD 1.1.
    """
    bare = text.lower().translate(_PUNCTUATION)
    return " ".join(_ARTICLES.sub(" ", bare).split())


def token_f1(answer: list[str], right: list[str]) -> float:
    """F1 of two bags of words, in 0-1; where one is empty, 1 if both are."""
    if not answer or not right:
        return float(answer == right)
    n_common = (Counter(answer) & Counter(right)).total()
    return 2.0 * n_common / (len(answer) + len(right))


def check_choice(scorer: str, setting: str, value: object, known: tuple[object, ...]) -> None:
    """Refuse a setting that is none of the known values.

    Raises:
        InvalidInput: It is not.
    """
    if value not in known:
        raise InvalidInput(f"{setting} of scorer {scorer!r} must be one of {list(known)}, got {value!r}.")


def _nfc(text: str) -> str:
    return unicodedata.normalize("NFC", text).strip()
