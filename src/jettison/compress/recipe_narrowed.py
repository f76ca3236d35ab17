"""Recipes that make a transformer narrower, refitted in closed form."""

from typing import Any

from jettison.candidate import Candidate
from jettison.compress.narrow import Narrow
from jettison.compress.prune import MULTIPLE
from jettison.compress.recipe_types import Recipe, Surroundings

REFINING_TEXTS = 40_000
"""Texts that a narrowed one is shown: refitted, it is right nearly as often as the whole already."""
IMPORTANCE_PASSES = 5
"""What an example costs that importance is measured on, gradients and both checks included, in answers."""
REFIT_PASSES = 6
"""The same of a refit: both models are passed to see what layers are given, for each look, and to go on."""
HEADS_SHARE = 0.5
"""Time that heads take beside neurons, over the time for neurons."""
WIDTHS = (("two-thirds", "two thirds", 2 / 3), ("half", "half", 0.5), ("third", "a third", 1 / 3))
FEW_HEADS = (("third", "a third", 1 / 3), ("sixth", "a sixth", 1 / 6))
"""Shares of the neurons that half of the heads are left with."""
TO_INT8: tuple[dict[str, Any], ...] = (
    {"step": "export", "target": "onnx"},
    {"step": "quantize", "method": "dynamic"},
    {"step": "settings", "max_tokens": "data"},
)


def narrowed_recipes(incumbent: Candidate, around: Surroundings) -> list[Recipe]:
    """Fewer neurons, fewer heads too where an export takes them out, and a third of the neurons healed."""
    if incumbent.backend != "hf" or not {"torch", "onnx"} <= around.installed or not around.n_layers:
        return []
    if not around.can_be_cut or not has_neurons_to_spare(around):
        return []
    narrowing_s = _narrowing_s(around)
    uneven = {"uneven": True} if around.loses_parts else {}
    found = [
        Recipe(
            name=f"narrow-{word}-int8",
            steps=({"step": "narrow", "width": width, **uneven}, *TO_INT8),
            family="narrowed",
            worth=0.3,
            estimate_s=40 + narrowing_s,
            why=f"{share} of the feed-forward neurons, refitted without training to give what all "
            "gave, in int8",
        )
        for word, share, width in WIDTHS
    ]
    if around.loses_parts and around.n_heads != 1:
        found += [
            Recipe(
                name=f"narrow-{word}-half-heads-int8",
                steps=({"step": "narrow", "width": width, "heads": 0.5, **uneven}, *TO_INT8),
                family="narrowed",
                worth=0.5,
                estimate_s=40 + (1 + HEADS_SHARE) * narrowing_s,
                why=f"half of the attention heads and {share} of the feed-forward neurons, refitted "
                "without training to give what all gave, in int8",
            )
            for word, share, width in FEW_HEADS
        ]
    return [*found, _narrowed_and_healed(around, narrowing_s, uneven)]


def has_neurons_to_spare(around: Surroundings) -> bool:
    """Whether a layer has more neurons than the fewest that it keeps."""
    return around.n_neurons is None or around.n_neurons > MULTIPLE


def _narrowing_s(around: Surroundings) -> float:
    """Seconds to choose neurons and refit what is left: the step takes a number of tokens, not of texts."""
    step = Narrow()
    n_texts = min(around.of_texts or around.n_train, step.n_tokens / max(1.0, around.tokens_per_text))
    return n_texts * (REFIT_PASSES + IMPORTANCE_PASSES) * around.example_s


def watching_s(around: Surroundings, epochs: int, share: float) -> float:
    """Seconds for early stopping to ask half of dev after each epoch, of a model of a share of the work."""
    return 0.5 * epochs * around.n_dev * around.example_s * share


def _narrowed_and_healed(around: Surroundings, narrowing_s: float, uneven: dict[str, Any]) -> Recipe:
    """A third of the neurons, then trained gently: more or bolder training only moves it away again."""
    pass_s = around.n_train * around.example_s
    epochs = refining_epochs(around.n_train)
    healing = {
        "step": "distill",
        "epochs": epochs,
        "learning_rate": 5e-5,
        "hidden_weight": 1.0,
        "label_weight": 0.0,
    }
    return Recipe(
        name="narrow-third-healed-int8",
        steps=({"step": "narrow", "width": 1 / 3, **uneven}, healing, *TO_INT8),
        family="narrowed",
        worth=0.4,
        # Half of the products of the whole model are left, and the teacher is asked at every batch.
        estimate_s=80 + narrowing_s + 1.2 * epochs * pass_s + watching_s(around, epochs, 0.6),
        why="a third of the feed-forward neurons, refitted, then taught the incumbent's answers and hidden "
        "states, in int8",
    )


def refining_epochs(n_train: int) -> int:
    """Passes over `n_train` texts and as many made-up ones that show about 40,000."""
    return min(4, max(1, round(REFINING_TEXTS / (2 * max(1, n_train)))))
