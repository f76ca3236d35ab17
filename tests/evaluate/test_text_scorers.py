import json
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import ndcg_score

from jettison import registry
from jettison.errors import InvalidInput
from jettison.evaluate.score_numeric import NumericScorer, last_number
from jettison.evaluate.score_overlap import ChrfScorer, RougeScorer, common_subsequence
from jettison.evaluate.score_pattern import RegexScorer
from jettison.evaluate.score_rank import NdcgScorer, RecallScorer, ReciprocalRankScorer
from jettison.evaluate.score_text import ExactScorer, F1Scorer, NormalizedExactScorer, TextScorer
from jettison.evaluate.scorers import Scorer, check_right_answers, open_scorers
from jettison.model import Output
from jettison.task import Example

SHARED = Path(os.environ.get("JETTISON_SHARED", Path(__file__).resolve().parents[3] / "shared"))
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="the shared data is not beside the checkout")
PLAIN = ("exact", "normalized_exact", "numeric", "f1", "rouge", "chrf")
TEXT = [ExactScorer(), NormalizedExactScorer(), F1Scorer(), RougeScorer(), ChrfScorer()]


def example(expected: str | None = "apple", *references: str, **fields: object) -> Example:
    return Example(id="1", input="?", expected=expected, references=references, **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "name", ["exact", "normalized_exact", "f1", "rouge", "chrf", "numeric", "field_f1"]
)
def test_unit_tests_are_no_answer_to_compare_with(name: str) -> None:
    program = '{"a": 1}' if name == "field_f1" else "assert f() == 1"
    scorers = open_scorers([name])
    tested = Example(id="1", input="?", tests=(program,))
    said = Output(label=program, confidence=1.0)
    assert scorers[name].score(tested, said).value is None
    with pytest.raises(InvalidInput, match=f"scorer '{name}' must have right answers .* unit tests alone"):
        check_right_answers(scorers, [tested])
    solved = Example(id="2", input="?", expected=program, tests=("assert False",))
    check_right_answers(scorers, [tested, solved])
    assert scorers[name].score(solved, said).value == pytest.approx(1)


def test_a_pattern_without_a_group_needs_no_right_answer() -> None:
    tested = [Example(id="1", input="?", tests=("assert f()",))]
    check_right_answers(open_scorers({"regex": {"pattern": "def f"}}), tested)
    with pytest.raises(InvalidInput, match="'regex' must have right answers"):
        check_right_answers(open_scorers({"regex": {"pattern": "def (f)"}}), tested)


def output(label: str, error: str | None = None) -> Output:
    return Output(label=label, confidence=0.5, error=error)


def value(scorer: Scorer, answer: str, *rights: str) -> float | None:
    return scorer.score(example(*rights), output(answer)).value


@pytest.mark.parametrize("name", PLAIN)
def test_a_scorer_of_texts_takes_the_best_right_answer_and_none_for_no_answer(name):
    (scorer,) = open_scorers([name]).values()
    assert isinstance(scorer, Scorer)
    assert scorer.score(example("7 pears", "8 apples"), output("8 apples")).value == pytest.approx(1)
    assert scorer.score(example(None, "8 apples"), output("8 apples")).value == pytest.approx(1)
    assert scorer.score(example("8 apples"), output("", error="no")).value == 0.0
    assert scorer.score(example(None), output("8 apples")).value is None


@given(st.text(max_size=40), st.text(max_size=40))
def test_scores_of_texts_lie_in_0_1_and_a_text_equals_itself(a, b):
    for scorer in TEXT:
        assert 0 <= scorer.compare(a, b) <= 1
    for scorer in TEXT[:3]:
        assert scorer.compare(a, a) == 1
    assert TEXT[2].compare(a, b) == TEXT[2].compare(b, a)


def test_exact_wants_every_letter():
    assert value(ExactScorer(), " Apple\n", "Apple") == 1
    assert value(ExactScorer(), "apple", "Apple") == 0
    assert value(ExactScorer(), "cafe\u0301", "caf\u00e9") == 1  # one accent, encoded in two ways


def test_normalized_exact_pays_no_heed_to_case_articles_punctuation():
    assert value(NormalizedExactScorer(), "The  U.S.A.!", "an usa") == 1
    assert value(NormalizedExactScorer(), "theatre", "atre") == 0


def test_f1_by_hand():
    # {broncos, of, denver} and {denver, broncos}: 2 common, precision 2/3, recall 1: F1 = 0.8
    assert value(F1Scorer(), "the Broncos of Denver", "Denver Broncos.") == pytest.approx(0.8)
    # A word twice counts twice: 1 common of 2 and 1.
    assert value(F1Scorer(), "no no", "no") == pytest.approx(2 / 3)
    assert value(F1Scorer(), "", "the") == 1  # both empty after normalisation, as in SQuAD
    assert value(F1Scorer(), "", "x") == 0


@pytest.mark.shared
@needs_shared
def test_f1_on_xquad_known_answers():
    rows = [json.loads(x) for x in (SHARED / "data/xquad/xquad_en.jsonl").read_text().splitlines()]
    scorer = F1Scorer()
    right = [scorer.score(example(*row["answers"]), output(row["answers"][-1])).value for row in rows]
    assert (len(right), set(right)) == (1190, {1.0})
    # "308", and "gave up just 308 points": 1 common of 1 and 5, so F1 = 2 / 6
    assert rows[0]["answers"] == ["308"]
    assert value(scorer, "gave up just 308 points", "308") == pytest.approx(1 / 3)
    # A right answer with as many foreign words again: precision 1/2, recall 1, so F1 = 2/3 each.
    padded = [" ".join([a, *["zzz"] * len(norm(a))]) for a in (row["answers"][0] for row in rows)]
    scores = [value(scorer, p, row["answers"][0]) for p, row in zip(padded, rows, strict=True)]
    assert np.allclose(scores, 2 / 3)


def norm(text: str) -> list[str]:
    from jettison.evaluate.score_text import squad_normalize

    return squad_normalize(text).split()


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("It is 12 apples and 13.", 13),
        ("$1,234,567.50 in all", 1234567.5),
        ("-5", -5),
        ("minus sign −4", -4),
        ("10-3", 3),
        ("x = 5 - 2", 2),
        ("3/4 of it", 0.75),
        ("1 1/2 cups", 1.5),
        ("1.5e3", 1500),
        ("costs .5", 0.5),
        ("1 000 000", 1000000),
        ("50 %", 50),
        ("none", None),
        ("1/0", 0),
        ("9" * 5000, None),
    ],
)
def test_the_last_number_of_a_text(text, number):
    found = last_number(text)
    if text.startswith("999"):
        assert found is None or found[0] > 1e100
    else:
        assert (None if found is None else found[0]) == number


def test_numbers_within_their_tolerance():
    assert value(NumericScorer(), "So 18 eggs.\n#### 18\nDone in 3 steps", "#### 18") == 1
    assert value(NumericScorer(), "50%", "0.5") == value(NumericScorer(), "50%", "50") == 1
    assert value(NumericScorer(), "3.14", "3.14159") == 0
    assert value(NumericScorer(absolute=0.01), "3.14", "3.14159") == 1
    assert value(NumericScorer(decimal=","), "1.234,5 Euro", "1234,5") == 1
    assert value(NumericScorer(), "no idea", "no number either") == 0
    with pytest.raises(InvalidInput, match="relative of scorer 'numeric' must be zero or more, got -1"):
        NumericScorer(relative=-1)


@pytest.mark.shared
@needs_shared
def test_numeric_agrees_with_the_recorded_verdicts_of_gsm8k():
    tests = [json.loads(x) for x in (SHARED / "data/gsm8k/test.jsonl").read_text().splitlines()]
    gold = {row["question"]: row["answer"] for row in tests}
    scorer, agree = NumericScorer(), []
    for line in (SHARED / "data/gsm8k/model_solutions.jsonl").read_text().splitlines()[::4]:
        row = json.loads(line)
        for said in row["models"].values():
            judged = scorer.score(example(gold[row["question"]]), output(said["solution"]))
            agree.append(judged.value == float(said["is_correct"]))
    assert len(agree) == 1320
    assert all(agree)  # over every line: 5,276 of 5,276


def test_rouge_and_chrf_equal_the_libraries():
    rows = json.loads(Path(__file__).with_name("overlap_scores.json").read_text(encoding="utf-8"))
    scorers = {name: RougeScorer(variant=name) for name in ("rouge1", "rouge2", "rougeL")}
    for row in rows:
        for name, scorer in {**scorers, "chrf": ChrfScorer()}.items():
            assert scorer.compare(row["answer"], row["right"]) == pytest.approx(row[name], abs=1e-9), row


def test_rouge_reads_other_letters_where_asked_to():
    assert (
        RougeScorer(variant="rouge1").compare("über", "ber") == 1
    )  # as published: other letters part words
    assert RougeScorer(variant="rouge1", words="unicode").compare("über", "ber") == 0


@given(st.text("abc", max_size=12), st.text("abc", max_size=12))
def test_the_longest_common_subsequence_is_that_of_the_table(a, b):
    table = np.zeros((len(a) + 1, len(b) + 1), int)
    for i, x in enumerate(a, 1):
        for j, y in enumerate(b, 1):
            table[i, j] = table[i - 1, j - 1] + 1 if x == y else max(table[i - 1, j], table[i, j - 1])
    assert common_subsequence(a, b) == table[-1, -1]


def test_a_pattern_with_a_group_takes_the_answer_out():
    scorer = RegexScorer(pattern=r"Answer: (\w+)")
    assert value(scorer, "Answer: pear. No: Answer: APPLE", "apple") == 1
    assert value(RegexScorer(pattern=r"Answer: (\w+)", take="first"), "Answer: pear Answer: a", "a") == 0
    assert scorer.score(example(None), output("Answer: apple")).value is None
    assert value(RegexScorer(pattern=r"^\d{4}-\d{2}$"), "2024-05", "whatever") == 1
    with pytest.raises(InvalidInput, match="must be a regular expression, got '\\('"):
        RegexScorer(pattern="(")


@pytest.mark.parametrize("k", [None, 1, 3, 20])
def test_ndcg_equals_scikit_learn(k):
    rng = np.random.default_rng(0)
    for _ in range(40):
        n = int(rng.integers(2, 12))
        relevance = rng.integers(0, 4, n).astype(float)
        if not relevance.any():
            continue
        order = rng.permutation(n)
        scores = np.empty(n)
        scores[order] = np.arange(n, 0, -1)
        ours = NdcgScorer(k=k).score(
            example(None, relevance=tuple(relevance)), output(json.dumps(order.tolist()))
        )
        assert ours.value == pytest.approx(ndcg_score([relevance], [scores], k=k), abs=1e-12)


def test_ranks_by_hand():
    asked = example(None, relevance=(0.0, 2.0, 0.0, 1.0))
    assert RecallScorer(k=2).score(asked, output("[0, 3, 1, 2]")).value == 0.5
    assert ReciprocalRankScorer().score(asked, output("[0, 3, 1, 2]")).value == 0.5
    assert ReciprocalRankScorer(k=1).score(asked, output("[0, 3, 1, 2]")).value == 0
    # best choice at place 2: 2 / log2(3), against 2 + 1 / log2(3)
    wanted = (2 / np.log2(3)) / (2 + 1 / np.log2(3))
    assert NdcgScorer().score(asked, output("[0, 1, 1]")).value == pytest.approx(wanted)
    assert NdcgScorer().score(asked, output("[0, 9]")).value == 0
    assert NdcgScorer().score(asked, output("the first")).value == 0
    chosen = example("b", choices=("a", "b"))
    assert ReciprocalRankScorer().score(chosen, output("[0,1]")).value == 0.5
    assert NdcgScorer().score(example(None, relevance=(0.0, 0.0)), output("[0,1]")).value is None
    with pytest.raises(InvalidInput, match="k of a scorer of ranks must be 1 or more, got 0"):
        RecallScorer(k=0)


def test_settings_are_checked_by_name_and_kind():
    opened = open_scorers({"phone": {"scorer": "regex", "pattern": r"\d+"}, "f1": {}})
    assert list(opened) == ["phone", "f1"]
    assert isinstance(opened["phone"], RegexScorer)
    with pytest.raises(
        InvalidInput, match=r"must be one of \['pattern', 'ignore_case', 'take'\], got 'patern'"
    ):
        open_scorers({"regex": {"patern": "x"}})
    with pytest.raises(InvalidInput, match="scorer 'regex' must be given 'pattern'"):
        open_scorers({"regex": {}})
    with pytest.raises(InvalidInput, match="of the wrong kind"):
        open_scorers({"numeric": {"absolute": "a lot"}})


def test_every_declared_scorer_loads():
    for name in registry.names("scorers"):
        assert callable(registry.load("scorers", name)), name
    assert issubclass(registry.load("scorers", "exact"), TextScorer)
