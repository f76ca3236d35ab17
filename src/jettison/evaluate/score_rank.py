"""Scorers of an order of choices against how well each of them answers the query."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import msgspec

from jettison.errors import InvalidInput
from jettison.evaluate.score_text import right_answers
from jettison.evaluate.scorers import Score
from jettison.model import Output
from jettison.task import Example


class RankScorer(ABC):
    """Reads the answer as a JSON list of positions of choices, best first.

    Relevance is `Example.relevance`; without it, the choice that is `expected` has 1 and the rest 0.
    Choices that the answer leaves out come last and earn nothing; a position named twice counts once.
    An example without choices (kind `embed`) is answered by a JSON list of ids, of which those that are
    right answers have 1.
    """

    def __init__(self, *, out_of_scope: str | None = None, k: int | None = None) -> None:
        del out_of_scope
        if k is not None and (isinstance(k, bool) or not isinstance(k, int) or k < 1):
            raise InvalidInput(f"k of a scorer of ranks must be 1 or more, got {k!r}.")
        self._k = k

    def score(self, example: Example, output: Output) -> Score:
        """Judge one order; None where no choice is relevant, or nobody has said which is."""
        if not example.choices and not example.relevance:
            return self._score_found(right_answers(example), output)
        relevance = _relevance(example)
        if relevance is None:
            return Score(value=None, reason="nobody has said which choices are relevant")
        if not any(relevance):
            return Score(value=None, reason="no choice is relevant")
        if output.error is not None:
            return Score(value=0.0, reason="no answer")
        order = _order(output.label, len(relevance))
        if order is None:
            return Score(value=0.0, reason="the answer is no JSON list of positions of the choices")
        return Score(value=self.judge([relevance[i] for i in order][: self._k], relevance))

    def _score_found(self, rights: tuple[str, ...], output: Output) -> Score:
        """Judge ids of passages against those that are right."""
        if not rights:
            return Score(value=None, reason="nobody has said which passages are relevant")
        if output.error is not None:
            return Score(value=0.0, reason="no answer")
        try:
            named = list(dict.fromkeys(msgspec.json.decode(output.label, type=list[str])))
        except msgspec.DecodeError:
            return Score(value=0.0, reason="the answer is no JSON list of ids of passages")
        gains = [float(name in rights) for name in named[: self._k]]
        return Score(value=self.judge(gains, [1.0] * len(rights)))

    @abstractmethod
    def judge(self, gains: Sequence[float], relevance: Sequence[float]) -> float:
        """Score of the relevances in the order answered, cut at k, against those of all choices."""


class NdcgScorer(RankScorer):
    """Gain of the order, each place worth 1 / log2(place + 1), over the best order's. Setting: `k` (all).

    Source:
        Järvelin & Kekäläinen 2002, with the relevance itself as gain, as scikit-learn's `ndcg_score`.
    """

    def judge(self, gains: Sequence[float], relevance: Sequence[float]) -> float:
        """In 0-1."""
        best = sorted(relevance, reverse=True)[: self._k]
        return _discounted(gains) / _discounted(best)


class RecallScorer(RankScorer):
    """Share of the relevant choices among the first k. Setting: `k` (10)."""

    def __init__(self, *, out_of_scope: str | None = None, k: int = 10) -> None:
        super().__init__(out_of_scope=out_of_scope, k=k)

    def judge(self, gains: Sequence[float], relevance: Sequence[float]) -> float:
        """In 0-1."""
        return sum(gain > 0 for gain in gains) / sum(gain > 0 for gain in relevance)


class ReciprocalRankScorer(RankScorer):
    """One over the place of the first relevant choice; 0 when none is named. Setting: `k` (all)."""

    def judge(self, gains: Sequence[float], relevance: Sequence[float]) -> float:
        """In 0-1."""
        del relevance
        return next((1 / place for place, gain in enumerate(gains, start=1) if gain > 0), 0.0)


def _relevance(example: Example) -> tuple[float, ...] | None:
    if example.relevance:
        if any(not math.isfinite(r) or r < 0 for r in example.relevance):
            raise InvalidInput(
                f"relevance must be zero or more, got {list(example.relevance)} at {example.id}."
            )
        return example.relevance
    if example.expected is None or example.expected not in example.choices:
        return None
    return tuple(float(choice == example.expected) for choice in example.choices)


def _order(answer: str, n: int) -> list[int] | None:
    try:
        order = msgspec.json.decode(answer, type=list[int])
    except msgspec.DecodeError:
        return None
    if any(not 0 <= position < n for position in order):
        return None
    return list(dict.fromkeys(order))


def _discounted(gains: Sequence[float]) -> float:
    return sum(gain / math.log2(place + 1) for place, gain in enumerate(gains, start=1))
