"""Recipes: named strings of steps, and the rule that picks which are worth trying."""

from collections.abc import Sequence
from typing import Any

import msgspec

from jettison import registry
from jettison.candidate import CUT_NOTE, AppliedStep, Candidate, lineage_by_part
from jettison.compress.embedder_index import is_embedder
from jettison.compress.incumbent_language import LANGUAGE_BACKENDS
from jettison.compress.recipe_embedder import embedder_recipes
from jettison.compress.recipe_language import language_recipes
from jettison.compress.recipe_narrowed import has_neurons_to_spare, narrowed_recipes, watching_s
from jettison.compress.recipe_texts import counts_below, draw_where_short
from jettison.compress.recipe_types import Recipe as Recipe
from jettison.compress.recipe_types import Surroundings as Surroundings
from jettison.errors import InvalidInput, JettisonError
from jettison.task.unknown_keys import refuse_unknown_keys

EXTRAS = {
    "torch": ("torch", "transformers"),
    "onnx": ("onnxruntime", "onnx"),
    "openvino": ("openvino", "nncf"),
    "gguf": ("xllamacpp", "gguf", "ik_llama_cpp"),
    "genai": ("onnxruntime_genai",),
}
"""Extras to the main libraries that each brings."""
SHORT_BUDGET_S = 900
"""Budgets under it get a static student that is trained half as long, on half as many made-up texts."""
SHORT_TEXTS = 180_000
FULL_TEXTS_BUDGET_S = 600
"""Budgets under it show it fewer texts yet, so that it is tried at all."""
HEALING_TEXTS = 120_000
"""Texts that a pruned transformer is shown, repetitions included."""
STUDENT_TEXTS = 15_000
"""Texts that the fixed times of the students hold for."""
LINEAR_TEXT_S = 4e-4
"""CPU-seconds that each further text takes: of texts as of CLINC150 20,000 took 20 s, 60,000 took 31 s."""
STATIC_TEXTS = 360_000
"""Texts that the static student is shown in the time that is estimated; three passes may show more."""
READING_TEXT_S = 2e-5
"""CPU-seconds that `max_tokens = "data"` takes for a text."""
ANSWER_SHARE = {
    "free": 1.0,
    "quantized": 0.6,
    "trimmed": 0.6,
    "narrowed": 0.5,
    "pruned": 0.4,
    "student": 0.05,
    "encoder": 0.1,
}
"""Time of a family's answer in a batch over the incumbent's, on the safe side; 1 for any other."""


def auto_recipes(incumbent: Candidate, around: Surroundings) -> tuple[Recipe, ...]:
    """Recipes worth trying, those first that bring most for the time they take.

    Quantization and free settings take seconds. Students without a transformer answer most inputs of
    most released cascades, and come before what takes minutes: transformers with fewer neurons refitted
    in closed form, and pruned ones healed by distillation. Cascades are not recipes: the search builds
    them of what survives.
    """
    recipes = _all_recipes(incumbent, around)
    if around.making_s is not None:
        n_sharing = _n_sharing(recipes)
        fewer = {n: _all_recipes(incumbent, _drawn(around, n)) for n in counts_below(around.n_train)}
        recipes = draw_where_short(
            {around.n_train: recipes, **fewer},
            around.making_s,
            lambda recipe: _charged_s(recipe, n_sharing),
        )
    return by_worth(recipes)


def by_worth(recipes: Sequence[Recipe]) -> tuple[Recipe, ...]:
    """The most expected of a second first; time that several share is charged in equal parts."""
    n_sharing = _n_sharing(recipes)
    return tuple(sorted(recipes, key=lambda recipe: _charged_s(recipe, n_sharing) / recipe.worth))


def _n_sharing(recipes: Sequence[Recipe]) -> int:
    return max(1, sum(recipe.shared_s > 0 for recipe in recipes))


def _charged_s(recipe: Recipe, n_sharing: int) -> float:
    """Its estimate with an equal part of what several share."""
    return recipe.estimate_s - recipe.shared_s * (1 - 1 / n_sharing)


def _drawn(around: Surroundings, n_texts: int) -> Surroundings:
    return msgspec.structs.replace(around, n_train=n_texts, of_texts=around.of_texts or around.n_train)


def _all_recipes(incumbent: Candidate, around: Surroundings) -> list[Recipe]:
    """Every recipe that the rule knows, with what it takes to make it and to ask it dev."""
    if is_embedder(incumbent):
        recipes = embedder_recipes(incumbent, around)
    elif incumbent.backend in LANGUAGE_BACKENDS:
        recipes = [*language_recipes(incumbent, around), *_way_out(around)]
    else:
        recipes = [*_free(incumbent, around), *_quantized(incumbent, around)]
        recipes += _students(around, _short_training(around))
        recipes += [*narrowed_recipes(incumbent, around), *_pruned(incumbent, around)]
    return [
        msgspec.structs.replace(recipe, estimate_s=recipe.estimate_s + _around_making_s(recipe, around))
        for recipe in recipes
    ]


def _around_making_s(recipe: Recipe, around: Surroundings) -> float:
    """Seconds for what is not making it: asking it all of dev, and counting the data's tokens."""
    asking_s = around.n_dev * around.example_s * ANSWER_SHARE.get(recipe.family, 1.0) / around.n_workers
    counts = any(step.get("max_tokens") == "data" for step in recipe.steps)
    n_texts = (around.of_texts or around.n_train) + around.n_dev
    return asking_s + (READING_TEXT_S * n_texts if counts else 0.0)


def recipes_from(given: list[dict[str, Any]]) -> tuple[Recipe, ...]:
    """Recipes as a user wrote them in `jettison.toml`.

    Raises:
        InvalidInput: A recipe has no name or steps, or an unknown key, or two share a name.
        UnknownName: A step is not installed.
    """
    recipes = []
    for index, item in enumerate(given):
        refuse_unknown_keys(item, Recipe, where=f"recipes[{index}]")
        try:
            recipe = msgspec.convert(item, Recipe)
        except msgspec.ValidationError as error:
            raise InvalidInput(f"recipes[{index}]: {error}.") from error
        for step in recipe.steps:
            known = registry.names("steps")
            if step.get("step") not in known:
                raise InvalidInput(
                    f"recipes[{index}].steps must name steps among {list(known)}, got {step.get('step')!r}."
                )
        recipes.append(recipe)
    names = [recipe.name for recipe in recipes]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InvalidInput(f"recipes must have names of their own, got {twice!r} twice.")
    for recipe in recipes:
        if recipe.name in ("", "incumbent"):
            raise InvalidInput(f"a recipe must have a name of its own, got {recipe.name!r}.")
        if not recipe.steps:
            raise InvalidInput(
                f"a recipe must have at least one step, got none in {recipe.name!r}. "
                "The incumbent itself is compared in every run."
            )
    return tuple(recipes)


def installed_extras() -> frozenset[str]:
    """Extras whose main libraries can be imported here; nothing heavy is imported to find out."""
    from importlib.util import find_spec

    return frozenset(extra for extra, modules in EXTRAS.items() if all(find_spec(m) for m in modules))


def describe_step(step: dict[str, Any]) -> str:
    """A step in words, as reports show it."""
    settings = ", ".join(
        f"{key} {f'{value:.4g}' if isinstance(value, float) else value}"
        for key, value in step.items()
        if key != "step"
    )
    return f"{step['step'].replace('_', ' ')}" + (f" ({settings})" if settings else "")


def lineage_words(candidate: Candidate) -> tuple[str, ...]:
    """What was done to a candidate, step by step, with the settings that differ from nothing.

    Of a cascade all arms are told, each step with the arm's name.
    """
    return tuple(
        f"{one.part}: {_step_words(applied)}"
        if one.part not in ("", candidate.name)
        else _step_words(applied)
        for one in lineage_by_part(candidate)
        for applied in one.steps
    )


def _step_words(applied: AppliedStep) -> str:
    shown = {
        key: value
        for key, value in applied.settings.items()
        if isinstance(value, str | int | float | bool) and value not in ("", None)
    }
    is_cascade = applied.step == "cascade"
    first = {k: v for k, v in applied.notes.items() if is_cascade and k in ("lean", "fallback")}
    if "most_texts" in shown:  # what was left out of the lesson is told before its settings
        first["most_texts"] = shown.pop("most_texts")
    most = 7 if is_cascade else 4
    word = describe_step({"step": applied.step, **first, **dict(list(shown.items())[:most])})
    return f"{word}, cut short by the budget" if CUT_NOTE in applied.notes else word


def check_recipe_applies(recipe: Recipe) -> None:
    """Build each step once, so that a wrong setting is said before anything is trained.

    Raises:
        JettisonError: A step refuses its settings.
    """
    from jettison.compress.step import step_from

    for step in recipe.steps:
        try:
            step_from(step)
        except JettisonError as error:
            raise type(error)(f"recipe {recipe.name!r}: {error}") from error


def _free(incumbent: Candidate, around: Surroundings) -> list[Recipe]:
    found: list[Recipe] = []
    trim = {"step": "settings", "max_tokens": "data"}
    if incumbent.backend == "hf" and "onnx" in around.installed:
        found.append(
            Recipe(
                name="onnx-float32",
                steps=({"step": "export", "target": "onnx"}, trim),
                family="free",
                worth=0.4,
                estimate_s=20,
                why="the same weights in another runtime: the free gain that everything else has to beat",
            )
        )
    if incumbent.backend == "hf" and "openvino" in around.installed:
        found.append(
            Recipe(
                name="openvino-float32",
                steps=({"step": "export", "target": "openvino"}, trim),
                family="free",
                worth=0.2,
                estimate_s=35,
                why="the same weights in OpenVINO, precision pinned to float32",
            )
        )
        if around.has_bfloat16:
            found.append(
                Recipe(
                    name="openvino-bfloat16",
                    steps=(
                        {"step": "export", "target": "openvino"},
                        {"step": "settings", "max_tokens": "data", "precision": "bfloat16"},
                    ),
                    family="free",
                    worth=0.2,
                    estimate_s=36,
                    why="what OpenVINO does unasked on this CPU, said aloud",
                )
            )
    return found


def _quantized(incumbent: Candidate, around: Surroundings) -> list[Recipe]:
    if "onnx" not in around.installed or incumbent.backend not in ("hf", "onnx"):
        return []
    if incumbent.backend == "onnx" and not around.has_float_weights:
        return []
    to_onnx = ({"step": "export", "target": "onnx"},) if incumbent.backend == "hf" else ()
    trim = {"step": "settings", "max_tokens": "data"}
    found = [
        Recipe(
            name="onnx-int8",
            steps=(*to_onnx, {"step": "quantize", "method": "dynamic"}, trim),
            family="quantized",
            worth=0.8,
            estimate_s=10,
            why="dynamic int8: weights in 8 bits, activations quantized on the fly",
        ),
        Recipe(
            name="onnx-int8-trimmed",
            steps=({"step": "trim_vocabulary"}, *to_onnx, {"step": "quantize", "method": "dynamic"}, trim),
            family="trimmed",
            worth=0.3,
            estimate_s=30,
            why="int8 without the tokens that the data never uses: the smallest transformer on disk",
        ),
        Recipe(
            name="onnx-int8-mixed",
            steps=(*to_onnx, {"step": "mixed_precision"}, trim),
            family="quantized",
            worth=0.2,
            estimate_s=120 + 400 * around.example_s * 60,
            why="int8 but for the layers that a search found most sensitive",
        ),
    ]
    if incumbent.backend != "hf":
        found = [recipe for recipe in found if recipe.family != "trimmed"]
    if incumbent.backend == "hf" and "openvino" in around.installed:
        found.append(
            Recipe(
                name="openvino-int8",
                steps=(
                    {"step": "export", "target": "openvino"},
                    {"step": "quantize", "method": "nncf"},
                    trim,
                ),
                family="quantized",
                worth=0.2,
                estimate_s=90,
                why="static int8 by NNCF, calibrated on dev inputs",
            )
        )
    return found


def _way_out(around: Surroundings) -> list[Recipe]:
    """Students that take a language model's place in a task with labels: no language model at all."""
    if around.kind != "classify" or "torch" not in around.installed:
        return []
    if around.student is None:
        return _students(around)
    start = {"step": "encoder", "source": around.student}
    linear, static = _students(around)
    recipes = [linear, msgspec.structs.replace(static, steps=(start, *static.steps))]
    if "onnx" in around.installed:
        recipes.append(
            Recipe(
                name="encoder-int8",
                steps=(
                    start,
                    {"step": "distill", "epochs": 6, "train_embeddings": True, "label_weight": 1.0},
                    {"step": "export", "target": "onnx"},
                    {"step": "quantize", "method": "dynamic"},
                    {"step": "settings", "max_tokens": "data"},
                ),
                family="encoder",
                worth=0.7,
                estimate_s=90 + 0.05 * around.n_train,
                why="a small encoder, taught by the language model's answers and the known labels, in int8",
            )
        )
    return recipes


def _short_training(around: Surroundings) -> dict[str, Any]:
    """Settings of the static student where the budget is short; none where it is not.

    On the demo's sentences 7 passes gave what 13 did (75.3 % of dev against 74.7 %).
    """
    if around.budget_s is None or around.budget_s >= SHORT_BUDGET_S or not around.n_train:
        return {}
    made_up = max(0, min(around.n_train, 20_000 - around.n_train))
    shown = 2 * around.n_train + made_up if made_up else around.n_train
    texts = SHORT_TEXTS * min(1.0, around.budget_s / FULL_TEXTS_BUDGET_S)
    return {"augment": made_up, "epochs": min(30, max(3, round(texts / shown)))}


def _students(around: Surroundings, training: dict[str, Any] | None = None) -> list[Recipe]:
    if "torch" not in around.installed:
        return []
    # Teacher outputs are computed once, in large batches, in bfloat16 where the processor has it.
    teach_s = 0.4 * around.n_train * around.example_s
    return [
        Recipe(
            name="linear",
            steps=({"step": "distill_linear"},),
            family="student",
            worth=0.7,
            estimate_s=10 + _further_texts_s(around) + teach_s,
            shared_s=teach_s,
            why="hashed n-grams and one layer: the cheapest thing that could work",
        ),
        Recipe(
            name="static",
            steps=({"step": "distill_static", **(training or {})},),
            family="student",
            worth=0.7,
            estimate_s=_static_s(around, training) + teach_s,
            shared_s=teach_s,
            why="a table of token vectors and a small head, taught by the incumbent",
        ),
    ]


def _further_texts_s(around: Surroundings) -> float:
    return LINEAR_TEXT_S * max(0, around.n_train - STUDENT_TEXTS)


def _static_s(around: Surroundings, training: dict[str, Any] | None) -> float:
    """Seconds to train the static student and the linear one beside it, its lessons known."""
    beside_s = _further_texts_s(around)
    if not training:
        return 60.0 * max(1.0, 3 * around.n_train / STATIC_TEXTS) + beside_s
    texts = min(1.0, (around.budget_s or FULL_TEXTS_BUDGET_S) / FULL_TEXTS_BUDGET_S)
    shown = max(texts, int(training["epochs"]) * around.n_train / SHORT_TEXTS)
    return 15.0 + 15.0 * shown + beside_s


def healing_epochs(n_train: int) -> int:
    """Passes over `n_train` texts and as many made-up ones that show about 120,000: little data is shown
    more often."""
    return min(12, max(4, round(HEALING_TEXTS / (2 * max(1, n_train)))))


def _pruned(incumbent: Candidate, around: Surroundings) -> list[Recipe]:
    if incumbent.backend != "hf" or not {"torch", "onnx"} <= around.installed:
        return []
    if not around.can_be_cut or around.n_layers is None or around.n_layers < 3:
        return []
    half, third = max(1, around.n_layers // 2), max(1, around.n_layers // 3)
    shapes: list[tuple[str, dict[str, Any], float, str]] = [
        (f"pruned-{half}-int8", {"depth": half}, 1.0, "every neuron"),
    ]
    if has_neurons_to_spare(around):
        name = f"pruned-{half}-narrow-int8"
        shapes.append((name, {"depth": half, "width": 0.5}, 0.8, "half of the neurons"))
    if third != half:
        shapes.append((f"pruned-{third}-int8", {"depth": third}, 1.0, "every neuron"))
    pass_s = around.n_train * around.example_s
    epochs = healing_epochs(around.n_train)
    return [
        Recipe(
            name=name,
            steps=(
                {"step": "prune", **shape},
                {"step": "distill", "epochs": epochs},
                {"step": "export", "target": "onnx"},
                {"step": "quantize", "method": "dynamic"},
                {"step": "settings", "max_tokens": "data"},
            ),
            family="pruned",
            worth=0.3,
            estimate_s=40
            + 0.9 * epochs * pass_s * work * shape["depth"] / around.n_layers
            + watching_s(around, epochs, work * shape["depth"] / around.n_layers),
            why=f"{shape['depth']} of {around.n_layers} layers with {neurons}, healed by the incumbent's "
            "own answers, in int8",
        )
        for name, shape, work, neurons in shapes
    ]
