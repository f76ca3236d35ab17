"""A recipe, and what the choice of recipes depends on."""

from typing import Any

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
    worth: float = 0.5
    """Rough chance that a release will hold it, alone or in a cascade; weighed against `estimate_s`."""
    why: str = ""
    """What it is expected to bring, in one sentence for the report."""


class Surroundings(msgspec.Struct, frozen=True, kw_only=True):
    """What the choice of recipes depends on besides the incumbent."""

    installed: frozenset[str]
    """Extras whose libraries import: `torch`, `onnx`, `openvino`."""
    n_train: int
    """Inputs a student may learn from, unlabelled ones included."""
    n_layers: int | None
    """Transformer layers of the incumbent, when it is a transformer with weights at hand."""
    example_s: float
    """CPU time of the incumbent for one input in a batch."""
    has_bfloat16: bool = False
    kind: str = "classify"
    """Of the task; see `jettison.task.TaskKind`."""
    student: str | None = None
    """Encoder that students start from where the incumbent is none."""
    budget_s: float | None = None
    """Time that the run may take; None is as long as it needs."""
