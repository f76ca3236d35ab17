"""Scorer of an answer that only has to begin well: what lm-eval's `loglikelihood` calls greedy."""

from jettison.evaluate.score_text import TextScorer


class BeginsWithScorer(TextScorer):
    """1 when the answer begins with a right one; what follows, and space before it, does not count."""

    def compare(self, answer: str, right: str) -> float:
        """Letter by letter."""
        return float(answer.lstrip().startswith(right.strip()))
