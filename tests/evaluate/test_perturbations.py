"""Perturbations change the text, keep the answer, and depend on seed and example alone."""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jettison.errors import UnknownName
from jettison.evaluate.suites.perturbations import PERTURBATIONS, list_order, numbers, slip
from jettison.evaluate.suites.perturbed import perturbed
from jettison.task import Example

NONE = frozenset()


def rng(seed=0):
    return np.random.default_rng(seed)


@pytest.mark.parametrize(
    ("kind", "text", "changed"),
    [
        ("contractions", "I do not know what is due", "I don't know what's due"),
        ("contractions", "don't book it", "do not book it"),
        ("numbers", "a table for 4 at 12000 Main", "a table for 4 at 12,000 Main"),
        ("numbers", "a table for 4", "a table for four"),
        ("numbers", "two tickets", "2 tickets"),
        ("numbers", "on 2024-03-05", "on March 5, 2024"),
        ("list_order", "add eggs, milk and bread", "add milk, eggs and bread"),
        ("truncation", " ".join(["word"] * 20), " ".join(["word"] * 18)),
    ],
)
def test_a_known_text_becomes_a_known_text(kind, text, changed):
    assert PERTURBATIONS[kind](text, rng(), NONE) == changed


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("contractions", "my boss's car"),
        ("numbers", "version 1.5 at 10:30, -3 degrees, $5 and 25%"),
        ("numbers", "the one I want"),
        ("numbers", "on 2024-13-45"),
        ("list_order", "salt and pepper"),
        ("truncation", "a short text"),
        ("typos", "a an to"),
    ],
)
def test_what_a_perturbation_does_not_fit_is_left_alone(kind, text):
    assert PERTURBATIONS[kind](text, rng(), NONE) is None


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(sorted(PERTURBATIONS)), st.text(max_size=80), st.integers(0, 99))
def test_any_text_gives_a_changed_text_or_none_and_the_same_again(kind, text, seed):
    made = PERTURBATIONS[kind](text, rng(seed), NONE)
    assert made is None or isinstance(made, str)
    assert PERTURBATIONS[kind](text, rng(seed), NONE) == made


@settings(max_examples=60, deadline=None)
@given(st.from_regex(r"[a-z]{4,12}", fullmatch=True), st.integers(0, 999))
def test_a_slip_changes_a_word_by_one_edit_and_keeps_its_first_letter(word, seed):
    made = slip(word, rng(seed))
    assert made != word
    assert made[0] == word[0]
    assert abs(len(made) - len(word)) <= 1


def test_words_of_an_answer_that_is_copied_out_stay():
    text = "The treaty was signed in Vienna by two ministers in 1815 after long talks"
    example = Example(id="1", input=text, expected="two ministers", references=("Vienna",))
    for seed in range(30):
        for made in perturbed([example], per_example=11, copied_answers=True, seed=seed):
            words = re.findall(r"\w+", made.input.casefold())
            assert {"two", "ministers", "vienna"} <= set(words), made.source


def test_copies_keep_answer_and_group_and_say_what_they_are():
    example = Example(id="1", input="what is my balance", expected="balance", slices={"lang": "en"})
    one, other = perturbed([example], seed=3)
    assert {one.expected, other.expected} == {"balance"}
    assert {one.group, other.group} == {"1"}
    assert one.slices["tier"] == "perturbed"
    assert "lang" not in one.slices
    assert one.source == f"1 with {one.slices['perturbation']}, seed 3"


def test_copies_do_not_depend_on_the_other_examples():
    examples = [Example(id=str(i), input=f"please show me order number {i}") for i in range(5)]
    assert perturbed(examples)[4:6] == perturbed(examples[2:3])
    assert perturbed(examples, seed=1) != perturbed(examples)


def test_an_unknown_perturbation_is_named():
    with pytest.raises(UnknownName, match=r"must be one of .*typos.*, got 'typo'"):
        perturbed([], kinds=("typo",))


def test_functions_are_the_named_ones():
    assert PERTURBATIONS["numbers"] is numbers
    assert PERTURBATIONS["list_order"] is list_order


@pytest.mark.parametrize("word", ["date", "tires", "long", "card", "form", "country"])
def test_a_slip_makes_no_other_common_word(word):
    others = {"dare", "tries", "log", "cad", "care", "cars", "from", "county", "lung", "firm", "farm"}
    assert not {slip(word, rng(seed)) for seed in range(400)} & others
