"""What `recipes = "auto"` tries: honest baselines first, nothing taken for granted."""

from pathlib import Path

import msgspec
import pytest

from jettison.candidate import AppliedStep, Candidate, write_candidate
from jettison.compress.checkpoint_facts import can_be_cut, parts_of_a_layer
from jettison.compress.recipe import (
    Recipe,
    Surroundings,
    auto_recipes,
    by_worth,
    check_recipe_applies,
    lineage_words,
)

EVERYTHING = frozenset({"torch", "onnx", "openvino"})
AROUND = Surroundings(installed=EVERYTHING, n_train=1000, n_layers=6, example_s=0.001, has_bfloat16=True)


@pytest.fixture
def incumbent(tmp_path: Path) -> Candidate:
    return write_candidate(tmp_path, name="incumbent", backend="hf", labels=("a", "b"))


def methods(incumbent: Candidate, around: Surroundings) -> dict[str, list[dict[str, object]]]:
    return {recipe.name: list(recipe.steps) for recipe in auto_recipes(incumbent, around)}


def test_every_recipe_can_be_built_and_names_are_all_different(incumbent: Candidate) -> None:
    recipes = auto_recipes(incumbent, AROUND)
    for recipe in recipes:
        check_recipe_applies(recipe)
    assert len({recipe.name for recipe in recipes}) == len(recipes) > 10
    assert all(recipe.why and recipe.estimate_s > 0 for recipe in recipes)


def test_what_openvino_does_unasked_is_a_candidate_beside_pinned_float32(incumbent: Candidate) -> None:
    found = methods(incumbent, AROUND)
    assert found["openvino-bfloat16"][-1]["precision"] == "bfloat16"
    # Float32 is what the backend pins where nothing else is asked.
    assert "precision" not in found["openvino-float32"][-1]
    without = methods(incumbent, msgspec.structs.replace(AROUND, has_bfloat16=False))
    assert "openvino-bfloat16" not in without
    assert "openvino-float32" in without


def test_wherever_static_int8_is_tried_dynamic_is_too(incumbent: Candidate) -> None:
    """Which of them loses less depends on the model: dev decides, not the recipe."""
    for extras in (EVERYTHING, frozenset({"torch", "onnx"}), frozenset({"torch", "openvino"})):
        found = methods(incumbent, msgspec.structs.replace(AROUND, installed=extras))
        tried = {s.get("method") for steps in found.values() for s in steps if s["step"] == "quantize"}
        assert "dynamic" in tried or not tried & {"static", "nncf"}
        assert extras != EVERYTHING or {"dynamic", "nncf"} <= tried


def test_free_settings_are_tried_before_any_weight_changes(incumbent: Candidate) -> None:
    free = [recipe for recipe in auto_recipes(incumbent, AROUND) if recipe.family == "free"]
    assert {recipe.name for recipe in free} >= {"onnx-float32", "openvino-float32"}
    for recipe in free:
        assert {step["step"] for step in recipe.steps} <= {"export", "settings"}
        assert recipe.steps[-1]["max_tokens"] == "data"


def test_a_format_is_tried_only_where_its_library_is(incumbent: Candidate) -> None:
    assert methods(incumbent, msgspec.structs.replace(AROUND, installed=frozenset())) == {}
    torch_alone = methods(incumbent, msgspec.structs.replace(AROUND, installed=frozenset({"torch"})))
    assert set(torch_alone) == {"linear", "static"}


def test_a_short_budget_trains_the_static_student_half_as_long(incumbent: Candidate) -> None:
    def static(**changed: object) -> dict[str, object]:
        return methods(incumbent, msgspec.structs.replace(AROUND, **changed))["static"][0]

    assert static() == static(budget_s=3600.0) == {"step": "distill_static"}
    # 7,000 known texts, twice as they weigh as much again, and as many made-up ones: 9 passes show 189,000.
    assert static(budget_s=600.0, n_train=7000) == {"step": "distill_static", "augment": 7000, "epochs": 9}
    assert static(budget_s=600.0, n_train=30_000)["augment"] == 0
    # In three tenths of that time three passes show 3 x 21,000.
    assert static(budget_s=180.0, n_train=7000) == {"step": "distill_static", "augment": 7000, "epochs": 3}


@pytest.mark.parametrize(("n_train", "example_s"), [(300, 0.004), (7000, 0.005), (15_000, 0.01)])
def test_what_is_cheap_and_likely_to_be_released_is_tried_before_what_takes_long(
    incumbent: Candidate, n_train: int, example_s: float
) -> None:
    """With few texts, healing a pruned model takes no longer than a student."""
    for budget_s in (180.0, None):
        around = msgspec.structs.replace(AROUND, n_train=n_train, example_s=example_s, budget_s=budget_s)
        names = [recipe.name for recipe in auto_recipes(incumbent, around)]
        quick = [names.index(name) for name in ("onnx-int8", "linear", "static")]
        slow = [i for i, name in enumerate(names) if name.startswith(("pruned", "narrow", "openvino"))]
        assert max(quick) < min(slow)


def test_time_that_two_recipes_share_is_charged_in_halves() -> None:
    def recipe(name: str, own_s: float, shared_s: float = 0.0, worth: float = 0.5) -> Recipe:
        return Recipe(name=name, steps=(), estimate_s=own_s + shared_s, shared_s=shared_s, worth=worth)

    # 10 + 50 and 20 + 50 seconds for a chance of a half each, 65 for a half, 20 for a tenth.
    given = [recipe("rare", 20, worth=0.1), recipe("b", 20, 100), recipe("alone", 65), recipe("a", 10, 100)]
    assert [found.name for found in by_worth(given)] == ["a", "alone", "b", "rare"]


def test_a_narrowed_one_is_healed_by_fewer_texts_than_a_pruned_one(incumbent: Candidate) -> None:
    for n_train in (300, 10_000, 200_000):
        found = methods(incumbent, msgspec.structs.replace(AROUND, n_train=n_train))
        narrowed, pruned = found["narrow-third-healed-int8"], found["pruned-3-int8"]
        assert [step["step"] for step in narrowed] == [
            "narrow",
            "distill",
            "export",
            "quantize",
            "settings",
        ]
        assert narrowed[0] == found["narrow-third-int8"][0]
        assert 1 <= narrowed[1]["epochs"] < pruned[1]["epochs"]  # type: ignore[operator]


def test_a_cascade_says_who_answers_in_it_and_its_threshold_without_a_dozen_digits(tmp_path: Path) -> None:
    joined = AppliedStep(
        step="cascade",
        settings={"epsilon": 0.01, "threshold": 0.8487455883557038},
        seed=0,
        versions={},
        parents=(),
        notes={"lean": "static", "fallback": "onnx-int8", "accepted_share": 0.4},
    )
    cascade = write_candidate(
        tmp_path, name="static→onnx-int8", backend="fake", labels=("a", "b"), lineage=(joined,)
    )
    assert lineage_words(cascade) == (
        "cascade (lean static, fallback onnx-int8, epsilon 0.01, threshold 0.8487)",
    )


def test_heads_and_layers_of_their_own_width_are_tried_where_an_export_takes_them_out(
    incumbent: Candidate,
) -> None:
    even = methods(incumbent, AROUND)
    assert not any("half-heads" in name for name in even)
    assert even["narrow-third-int8"][0] == {"step": "narrow", "width": 1 / 3}
    uneven = methods(incumbent, msgspec.structs.replace(AROUND, loses_parts=True))
    assert set(uneven) - set(even) == {"narrow-third-half-heads-int8", "narrow-sixth-half-heads-int8"}
    for name in (name for name in uneven if name.startswith("narrow-")):
        assert uneven[name][0]["uneven"] is True
        assert uneven[name][0].get("heads") == (0.5 if "half-heads" in name else None)


def test_what_no_step_knows_how_to_cut_is_offered_no_cut(tmp_path: Path) -> None:
    """ALBERT has layers and an export, and its layers share their weights."""
    (tmp_path / "config.json").write_text('{"model_type": "albert"}')
    albert = write_candidate(tmp_path, name="albert", backend="hf", labels=("a", "b"))
    assert not can_be_cut(albert)
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    assert can_be_cut(albert)
    whole = methods(albert, AROUND)
    left = methods(albert, msgspec.structs.replace(AROUND, can_be_cut=False))
    assert set(left) < set(whole)
    assert all(name.startswith(("pruned-", "narrow-")) for name in set(whole) - set(left))
    assert not any(step["step"] in ("prune", "narrow") for steps in left.values() for step in steps)


def test_nothing_is_cut_where_there_is_nothing_to_spare(tmp_path: Path) -> None:
    """A layer keeps 32 neurons and one head at least."""
    facts = '{"model_type": "distilbert", "hidden_dim": 32, "n_heads": 1}'
    (tmp_path / "config.json").write_text(facts)
    small = write_candidate(tmp_path, name="small", backend="hf", labels=("a", "b"))
    assert parts_of_a_layer(small) == {"n_neurons": 32, "n_heads": 1}
    loses = msgspec.structs.replace(AROUND, loses_parts=True)
    whole, few_heads, few = (
        set(methods(small, msgspec.structs.replace(loses, **changed)))
        for changed in ({"n_neurons": 64, "n_heads": 2}, {"n_heads": 1}, {"n_neurons": 32, "n_heads": 2})
    )
    assert whole - few_heads == {"narrow-third-half-heads-int8", "narrow-sixth-half-heads-int8"}
    assert whole - few == {n for n in whole if n.startswith("narrow-")} | {"pruned-3-narrow-int8"}


def test_a_graph_without_float_weights_is_not_quantized(tmp_path: Path) -> None:
    graph = write_candidate(tmp_path, name="graph", backend="onnx", labels=("a", "b"))
    assert {"onnx-int8", "onnx-int8-mixed"} <= set(methods(graph, AROUND))
    found = methods(graph, msgspec.structs.replace(AROUND, has_float_weights=False))
    assert "linear" in found
    assert not any(step["step"] in ("quantize", "mixed_precision") for s in found.values() for step in s)
