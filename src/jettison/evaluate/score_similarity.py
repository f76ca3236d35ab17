"""Scorer of how near an answer is to a right one in an embedding."""

from collections.abc import Sequence
from pathlib import Path

from jettison.backends.embedder import Embedder, check_embedder, open_embedder
from jettison.errors import InvalidInput
from jettison.evaluate.score_text import right_answers
from jettison.evaluate.scorers import Score
from jettison.model import Output
from jettison.task import Example


class SimilarityScorer:
    """Cosine of the answer's vector and the nearest right answer's, at least 0.

    Settings: `embedder` (folder: a model2vec table, a static student, or an encoder's checkpoint),
    `least` (None; a cosine from which on the score is 1, and 0 below).
    """

    needs_right_answer = True

    def __init__(
        self, *, out_of_scope: str | None = None, embedder: str, least: float | None = None
    ) -> None:
        del out_of_scope
        if least is not None and not 0 < least <= 1:
            raise InvalidInput(f"least of scorer 'similarity' must be in (0, 1], got {least}.")
        self._folder, self._least = Path(embedder), least
        self._embedder: Embedder | None = None
        check_embedder(self._folder, what="embedder of scorer 'similarity'")

    def score(self, example: Example, output: Output) -> Score:
        """Judge one answer; None where no right answer is known."""
        return self.score_all([(example, output)])[0]

    def score_all(self, pairs: Sequence[tuple[Example, Output]]) -> list[Score]:
        """The same for many; each text is embedded once."""
        if self._embedder is None:
            self._embedder = open_embedder(self._folder)
        texts = {output.label for _, output in pairs if output.error is None}
        texts |= {right for example, _ in pairs for right in right_answers(example)}
        place = {text: i for i, text in enumerate(sorted(texts))}
        vectors = self._embedder.embed(list(place))
        found = []
        for example, output in pairs:
            rights = [place[right] for right in right_answers(example)]
            if not rights:
                found.append(Score(value=None, reason="nobody has said what the right answer is"))
            elif output.error is not None:
                found.append(Score(value=0.0, reason="no answer"))
            else:
                cosine = float((vectors[rights] @ vectors[place[output.label]]).max())
                value = min(max(cosine, 0.0), 1.0)
                found.append(Score(value=value if self._least is None else float(value >= self._least)))
        return found
