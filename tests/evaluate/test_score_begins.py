"""An answer that only has to begin well."""

from jettison.evaluate.score_begins import BeginsWithScorer
from jettison.model import Output
from jettison.task import Example


def score(answer: str, *right: str) -> float | None:
    example = Example(id="1", input="x", expected=right[0], references=right[1:])
    return BeginsWithScorer().score(example, Output(label=answer, confidence=0.0)).value


def test_what_follows_the_right_answer_and_space_before_it_do_not_count() -> None:
    assert score(" word. And more", " word") == 1.0
    assert score("words", "word") == 1.0
    assert score("a word", "word") == 0.0
    assert score("Word", "word") == 0.0
    assert score("second", "first", "second") == 1.0
