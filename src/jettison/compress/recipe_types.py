"""A recipe, and what the choice of recipes depends on."""

from typing import Any, Literal

import msgspec


class Recipe(msgspec.Struct, frozen=True, kw_only=True):
    """Ordered steps from the incumbent to one candidate."""

    name: str
    steps: tuple[dict[str, Any], ...]
    """Each `{"step": name, setting: value, ...}`."""
    family: str = "given"
    """Recipes of one family compete for its full training; only the best on dev get it."""
    estimate_s: float = 30.0
    """Rough time to make it, for planning inside the budget."""
    shared_s: float = 0.0
    """The part of it that is spent once: the first recipe with such a part has the incumbent answer train,
    for all of them."""
    most_texts: int | None = None
    """Texts it learns from where the budget has no time for all; None is all."""
    of_texts: int | None = None
    """How many there are of which `most_texts` are drawn."""
    fewer: tuple["Recipe", ...] = ()
    """The same from ever fewer texts, for when there is less time than was planned."""
    worth: float = 0.5
    """Rough chance that a release will hold it, alone or in a cascade; weighed against `estimate_s`."""
    why: str = ""
    """What it is expected to bring, in one sentence for the report."""


Work = Literal["transformer", "student", "conversion"]
"""Kinds of work whose estimates are wrong by factors of their own."""

_ON_TRANSFORMERS = frozenset(
    {
        *("distill", "finetune", "narrow", "prune"),
        *("distill_language", "finetune_language", "prune_language", "distill_answers"),
    }
)
_ON_STUDENTS = frozenset(("distill_linear", "distill_static", "distill_embedder"))


def work_of(recipe: Recipe) -> Work:
    """What making a candidate by the recipe is, for the most part."""
    steps = {step["step"] for step in recipe.steps}
    if steps & _ON_TRANSFORMERS:
        return "transformer"
    return "student" if steps & _ON_STUDENTS else "conversion"


class Surroundings(msgspec.Struct, frozen=True, kw_only=True):
    """What the choice of recipes depends on besides the incumbent."""

    installed: frozenset[str]
    """Extras whose libraries import: `torch`, `onnx`, `openvino`."""
    n_train: int
    """Inputs a student may learn from, unlabelled ones included."""
    of_texts: int | None = None
    """How many there are where `n_train` of them are drawn; None: no more than `n_train`."""
    n_dev: int = 0
    """Dev examples, which each candidate is asked."""
    tokens_per_text: float = 25.0
    """Mean of the incumbent's tokens, as it cuts texts."""
    n_layers: int | None
    """Transformer layers of the incumbent, when it is a transformer with weights at hand."""
    can_be_cut: bool = True
    """Whether `prune` and `narrow` know where the incumbent's family keeps its layers and neurons."""
    n_neurons: int | None = None
    """Feed-forward neurons of a layer of the incumbent, where that is known."""
    n_heads: int | None = None
    """Attention heads of a layer of the incumbent, where that is known."""
    loses_parts: bool = False
    """Whether an export of the incumbent leaves out attention heads and neurons without weights."""
    example_s: float
    """CPU time of the incumbent for one input in a batch."""
    has_float_weights: bool = True
    """Whether the incumbent, where it is an ONNX graph, has weights that can be made int8."""
    has_bfloat16: bool = False
    kind: str = "classify"
    """Of the task; see `jettison.task.TaskKind`."""
    student: str | None = None
    """Encoder that students start from where the incumbent is none."""
    budget_s: float | None = None
    """Time that the run may take; None is as long as it needs."""
    making_s: float | None = None
    """The part of it that is there for making candidates; None is as long as they need."""
    n_workers: int = 1
    """Cores that ask dev side by side."""
