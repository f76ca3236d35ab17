"""Where a budget has no time for all texts, a recipe learns from a draw; estimates follow what is done."""

from pathlib import Path

import msgspec
import pytest

from jettison.candidate import Candidate, write_candidate
from jettison.compress.recipe import Recipe, Surroundings, auto_recipes, check_recipe_applies
from jettison.compress.recipe_texts import counts_below, draw_words, texts_to_learn
from jettison.compress.recipe_types import work_of

MANY = Surroundings(
    installed=frozenset({"torch", "onnx"}), n_train=511_400, n_layers=6, example_s=0.004, budget_s=600.0
)


@pytest.fixture
def incumbent(tmp_path: Path) -> Candidate:
    return write_candidate(tmp_path, name="incumbent", backend="hf", labels=("a", "b"))


def recipes(incumbent: Candidate, **changed: object) -> dict[str, Recipe]:
    return {one.name: one for one in auto_recipes(incumbent, msgspec.structs.replace(MANY, **changed))}


def test_draws_have_few_sizes() -> None:
    assert counts_below(100_000) == (80_000, 60_000, 40_000, 30_000, 20_000)
    assert counts_below(25_000) == (20_000,)
    assert counts_below(20_000) == counts_below(0) == ()


@pytest.mark.parametrize(
    ("time_s", "n"), [(None, 100_000), (110, 100_000), (109, 80_000), (75, 60_000), (5, 20_000)]
)
def test_as_many_texts_are_learned_from_as_the_time_has_room_for(time_s: float | None, n: int) -> None:
    """Ten seconds and one for each thousand: 110, 90, 70, 50, 40 and 30 s."""
    assert texts_to_learn(lambda count: 10 + count / 1000, 100_000, time_s) == n


def test_few_texts_are_never_drawn_from() -> None:
    assert texts_to_learn(lambda count: 1e9, 15_000, 1.0) == 15_000


def test_a_short_budget_draws_and_both_students_learn_from_as_many_texts(incumbent: Candidate) -> None:
    """A quarter of 275 s is 68.75 s. The teacher takes 1.6 ms a text, half of it charged to each.

    Static: 30 s, 0.4 ms for each text above 15,000 and half of the teacher. 40,000 texts: 30 + 10 + 32 s;
    30,000 texts: 30 + 6 + 24 s. Linear has 20 s less and would have room for 40,000.
    """
    found = recipes(incumbent, making_s=275.0)
    for name in ("linear", "static"):
        assert (found[name].most_texts, found[name].of_texts) == (30_000, 511_400)
        assert found[name].steps[0]["most_texts"] == 30_000
        assert [one.most_texts for one in found[name].fewer] == [20_000]
        assert found[name].fewer[0].estimate_s < found[name].estimate_s
        assert draw_words(found[name]) == "learned from 30,000 of 511,400 texts, since the budget is short"
        check_recipe_applies(found[name])
    assert found["static"].steps[0]["epochs"] == 6  # 180,000 shown
    healed = found["pruned-3-int8"].steps
    assert [step.get("most_texts") for step in healed] == [None, 20_000, None, None, None]
    assert found["onnx-int8"].most_texts is None
    assert draw_words(found["onnx-int8"]) == ""


def test_where_all_texts_fit_nothing_changes(incumbent: Candidate) -> None:
    def made(**changed: object) -> list[tuple[str, tuple[dict[str, object], ...], float]]:
        found = recipes(incumbent, **changed).values()
        assert all(one.most_texts is None for one in found)
        return [(one.name, one.steps, one.estimate_s) for one in found]

    assert made(making_s=1e6) == made()
    assert made(making_s=1.0, n_train=15_000) == made(n_train=15_000)


def test_an_estimate_counts_that_dev_is_asked(incumbent: Candidate) -> None:
    """10,000 of 10 ms: 100 s of the same weights, 60 s in int8, 5 s of a student, on four cores a quarter.

    Where the data's tokens are counted, 20 microseconds for each dev text come on top.
    """

    def more_s(name: str, **changed: object) -> float:
        none, asked = (recipes(incumbent, example_s=0.01, n_dev=n, **changed) for n in (0, 10_000))
        return asked[name].estimate_s - none[name].estimate_s

    assert more_s("onnx-float32") == pytest.approx(100.2)
    assert more_s("onnx-int8") == pytest.approx(60.2)
    assert more_s("linear") == pytest.approx(5.0)
    assert more_s("onnx-float32", n_workers=4) == pytest.approx(25.2)
    # Three of six layers in four epochs: half of dev each time, of half of the work, and 0.4 in the end.
    assert more_s("pruned-3-int8") == pytest.approx(4 * 0.5 * 100 * 0.5 + 40.2)


def test_narrowing_takes_as_long_as_its_tokens(incumbent: Candidate) -> None:
    """40,000 tokens of 25 are 1,600 texts, of 200 they are 200, and each counts 6 times for the refit and
    5 times for its importance. At 1 ms: 40 + 9.6 + 8 and 40 + 1.2 + 1 s, and 2 s to count the tokens of
    100,000 texts.
    """

    def narrow_s(tokens: float) -> float:
        found = recipes(incumbent, n_train=100_000, example_s=0.001, tokens_per_text=tokens)
        return found["narrow-half-int8"].estimate_s

    assert narrow_s(25.0) == pytest.approx(59.6)
    assert narrow_s(200.0) == pytest.approx(44.2)


def test_kinds_of_work_are_told_apart(incumbent: Candidate) -> None:
    kinds = {name: work_of(one) for name, one in recipes(incumbent).items()}
    assert kinds["onnx-int8"] == kinds["onnx-float32"] == "conversion"
    assert kinds["linear"] == kinds["static"] == "student"
    assert kinds["pruned-3-int8"] == kinds["narrow-half-int8"] == "transformer"
