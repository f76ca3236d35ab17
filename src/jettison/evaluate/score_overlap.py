"""Scorers of shared word and character sequences: ROUGE and chrF."""

import re
from collections import Counter
from collections.abc import Sequence

from jettison.errors import InvalidInput
from jettison.evaluate.score_text import TextScorer, check_choice

_ASCII = re.compile(r"[^a-z0-9]+")
_UNICODE = re.compile(r"[\W_]+")
MOST_WORDS = 20_000
"""Longest common subsequences take time by the square; longer texts are cut to this."""


class RougeScorer(TextScorer):
    """F-measure of shared words (`rouge1`), word pairs (`rouge2`) or longest common order (`rougeL`).

    Settings: `variant` (`rougeL`), `words` (`ascii` as in the published scores: other letters part
    words; or `unicode`). No stemming. Equal to `rouge_score` 0.1.2.

    Source:
        Lin 2004, "ROUGE: A Package for Automatic Evaluation of Summaries".
    """

    def __init__(
        self, *, out_of_scope: str | None = None, variant: str = "rougeL", words: str = "ascii"
    ) -> None:
        super().__init__(out_of_scope=out_of_scope)
        check_choice("rouge", "variant", variant, ("rouge1", "rouge2", "rougeL"))
        check_choice("rouge", "words", words, ("ascii", "unicode"))
        self._n = {"rouge1": 1, "rouge2": 2, "rougeL": 0}[variant]
        self._apart = _ASCII if words == "ascii" else _UNICODE

    def compare(self, answer: str, right: str) -> float:
        """0 where either text has no word (or no word pair)."""
        said, wanted = self._words(answer), self._words(right)
        if self._n == 0:
            return _f_measure(common_subsequence(said, wanted), len(said), len(wanted))
        a, b = ngrams(said, self._n), ngrams(wanted, self._n)
        return _f_measure((a & b).total(), a.total(), b.total())

    def _words(self, text: str) -> list[str]:
        return self._apart.sub(" ", text.lower()).split()[:MOST_WORDS]


class ChrfScorer(TextScorer):
    """Character n-gram F-score, in 0-1, without regard to space: for translations and inflected words.

    Settings: `order` (longest n-gram, 6), `beta` (2: recall counts twice as much). Equal to the
    sentence score of `sacrebleu` 2.6 (chrF2) divided by 100.

    Source:
        Popović 2015, "chrF: character n-gram F-score for automatic MT evaluation".
    """

    def __init__(self, *, out_of_scope: str | None = None, order: int = 6, beta: float = 2.0) -> None:
        super().__init__(out_of_scope=out_of_scope)
        if not (isinstance(order, int) and 1 <= order <= 20):
            raise InvalidInput(f"order of scorer 'chrf' must be in 1-20, got {order}.")
        if not beta > 0:
            raise InvalidInput(f"beta of scorer 'chrf' must be above zero, got {beta}.")
        self._order, self._beta = order, beta

    def compare(self, answer: str, right: str) -> float:
        """Precision and recall averaged over the orders that both texts are long enough for."""
        said, wanted = "".join(answer.split()), "".join(right.split())
        orders = range(1, min(self._order, len(said), len(wanted)) + 1)
        if not orders:
            return 0.0
        precision = recall = 0.0
        for n in orders:
            a, b = ngrams(said, n), ngrams(wanted, n)
            n_common = (a & b).total()
            precision += n_common / a.total() / len(orders)
            recall += n_common / b.total() / len(orders)
        weight = self._beta**2
        if precision + recall == 0:
            return 0.0
        return (1 + weight) * precision * recall / (weight * precision + recall)


def ngrams(items: Sequence[str], n: int) -> Counter[Sequence[str]]:
    """How often each run of n items occurs."""
    if isinstance(items, str):
        return Counter(items[i : i + n] for i in range(len(items) - n + 1))
    return Counter(tuple(items[i : i + n]) for i in range(len(items) - n + 1))


def common_subsequence(a: Sequence[str], b: Sequence[str]) -> int:
    """Length of the longest common subsequence, a bit a word of `a`.

    Source:
        Hyyrö 2004, "Bit-parallel LCS-length computation revisited".
    """
    places: dict[str, int] = {}
    for i, word in enumerate(a):
        places[word] = places.get(word, 0) | 1 << i
    mask = (1 << len(a)) - 1
    row = mask
    for word in b:
        hit = row & places.get(word, 0)
        row = ((row + hit) | (row - hit)) & mask
    return len(a) - row.bit_count()


def _f_measure(n_common: int, n_said: int, n_wanted: int) -> float:
    return 2.0 * n_common / (n_said + n_wanted) if n_said and n_wanted else 0.0
