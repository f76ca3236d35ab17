import pytest

from jettison import registry
from jettison.evaluate import LabelScorer, OutOfScopeScorer, Scorer
from jettison.model import Output
from jettison.task import Example

IN = Example(id="1", input="a", expected="apple")
OUT = Example(id="2", input="b", expected="oos")
NOBODY = Example(id="3", input="c")


def output(label: str = "apple", **fields: object) -> Output:
    return Output(label=label, confidence=0.9, **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["label", "out_of_scope"])
def test_built_in_scorers_are_found_by_name(name):
    assert isinstance(registry.load("scorers", name)(out_of_scope="oos"), Scorer)


def test_label_scorer_wants_the_exact_label():
    assert LabelScorer().score(IN, output()).value == 1.0
    assert LabelScorer().score(IN, output("apples")).value == 0.0


def test_no_answer_is_a_wrong_answer():
    assert LabelScorer().score(IN, output(error="RuntimeError: no")).value == 0.0


def test_label_scorer_cannot_tell_without_an_expected_label():
    score = LabelScorer().score(NOBODY, output())
    assert (score.value, score.reason) == (None, "nobody has said what the right label is")


@pytest.mark.parametrize(
    ("example", "flagged", "value"),
    [(OUT, True, 1.0), (OUT, False, 0.0), (IN, True, 0.0), (IN, False, 1.0)],
)
def test_out_of_scope_scorer_judges_the_flag(example, flagged, value):
    scorer = OutOfScopeScorer(out_of_scope="oos")
    assert scorer.score(example, output(in_scope=0.5, flagged=flagged)).value == value


def test_out_of_scope_scorer_pays_no_heed_to_the_label():
    scorer = OutOfScopeScorer(out_of_scope="oos")
    assert scorer.score(OUT, output("oos", in_scope=0.5, flagged=False)).value == 0.0


def test_out_of_scope_scorer_says_why_it_cannot_tell():
    assert OutOfScopeScorer().score(IN, output()).reason == "the task has no out-of-scope label"
    scorer = OutOfScopeScorer(out_of_scope="oos")
    assert scorer.score(IN, output()).reason == "the candidate is not calibrated for scope"
    assert scorer.score(NOBODY, output(in_scope=0.5)).value is None
