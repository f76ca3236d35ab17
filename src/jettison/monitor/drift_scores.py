"""What streams of drift are fed: the bins of each score and category, of a part of the log."""

import zlib
from collections.abc import Collection
from dataclasses import dataclass, field

import numpy as np

from jettison.monitor.drift_window import is_lean_answer
from jettison.monitor.log import News
from jettison.record import Record
from jettison.release.describe import answer_categories, answer_scores, describe_texts
from jettison.release.sketch import FEATURES, Sketch, TextScorer, bin_of

ANSWER_SCORES = ("confidence", "in_scope", "tokens")
CATEGORIES = ("label", "refused", "error")
N_CODES = 64


@dataclass(frozen=True, kw_only=True)
class ScoreBins:
    """Of a part of the log, oldest first."""

    inputs: dict[str, list[int]]
    """Score of the inputs → its bins."""
    answers: list[tuple[Record, dict[str, int]]]
    """Answers of the release, each with the bins of its scores and categories."""
    asked: list[Record]
    """Requests with a text."""
    features: np.ndarray = field(repr=False)
    """Of these texts, shape (n_asked, n_features)."""

    @property
    def streams(self) -> dict[str, list[int]]:
        """Score or category → its bins."""
        found = {name: list(bins) for name, bins in self.inputs.items()}
        for _, bins in self.answers:
            for name, code in bins.items():
                found.setdefault(name, []).append(code)
        return found


class DriftScores:
    """Bins inputs and answers as the reference's are.

    Args:
        sketch: Of the release.
        candidates: Digests of the release's candidates; None takes every lean answer.
    """

    def __init__(self, sketch: Sketch, *, candidates: Collection[str] | None = None) -> None:
        self._candidates = None if candidates is None else frozenset(candidates)
        self._scorer = TextScorer(sketch.word_counts, sketch.gram_counts)
        self._is_text = "label" not in sketch.categories
        self.references = {name: list(counts) for name, counts in sketch.scores.items()}
        """Score or category → how often each of its bins came in the reference."""
        for name in CATEGORIES:
            if name in sketch.categories:
                self.references[name] = [0] * N_CODES
                for value, count in sketch.categories[name].items():
                    self.references[name][_code(value)] += count

    def of(self, news: News) -> ScoreBins:
        """Of a part of the log; its bounds may fall anywhere."""
        asked = [r for r in news.records if r.role in (None, "answer") and r.input is not None]
        inputs, features = {}, np.zeros((0, len(FEATURES)))
        if asked:
            described = describe_texts([str(r.input) for r in asked], self._scorer)
            inputs = {name: bin_of(name, some).tolist() for name, some in described.scores.items()}
            features = described.features
        answers = [(r, self._bins(r)) for r in news.records if is_lean_answer(r, self._candidates)]
        return ScoreBins(inputs=inputs, answers=answers, asked=asked, features=features)

    def _bins(self, record: Record) -> dict[str, int]:
        found = {
            name: int(bin_of(name, [value])[0])
            for name, value in answer_scores(record).items()
            if name in ANSWER_SCORES
        }
        for name, category in answer_categories(record, is_text=self._is_text).items():
            if name in CATEGORIES and name in self.references:
                found[name] = _code(category)
        return found


def _code(value: str) -> int:
    """A category's place, the same whatever the reference was.

    Ranking categories by how often the reference has them would make every reference look a little
    more frequent than what follows it, and so raise false alarms.
    """
    return zlib.crc32(value.encode("utf-8", "surrogatepass")) % N_CODES
