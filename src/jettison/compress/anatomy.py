"""Where an encoder family keeps its layers and feed-forward neurons, in modules and configuration."""

from dataclasses import dataclass
from typing import Any

from jettison.errors import StepFailed


@dataclass(frozen=True, kw_only=True)
class Heads:
    """Where a layer keeps its attention heads. None can leave a stock checkpoint alone: there the size of a
    head is hidden size / heads. One without weights leaves with the export."""

    count: str
    """Heads of each layer, in the configuration."""
    reads: tuple[str, ...]
    """Paths, in a layer, of the linear maps into queries, keys and values."""
    out: str
    """Path, in a layer, of the linear map out of the heads."""
    after: str
    """Path, in a layer, of the norm that reads the sum of `out` and what goes around the heads."""


@dataclass(frozen=True, kw_only=True)
class Anatomy:
    """The parts of an encoder that can be removed so that a stock class still loads it."""

    layers: str
    """Path of the list of layers in the body."""
    depth: str
    """Number of layers, in the configuration."""
    width: str
    """Feed-forward neurons of each layer, in the configuration."""
    up: str
    """Path, in a layer, of the linear map into the neurons."""
    down: str
    """Path, in a layer, of the linear map out of them."""
    after: str = "output.LayerNorm"
    """Path, in a layer, of the norm that reads the sum of `down` and what goes around the neurons;
    empty where that sum is what the layer gives."""
    gated: bool = False
    """Whether `up` holds two rows per neuron, values first and then gates."""
    first_layer_differs: bool = False
    """Whether layer 0 is built unlike the others, and so must stay."""
    adapted: tuple[str, ...] = ("query", "value")
    """Names of the linear maps that LoRA adapts."""
    activation: str = "hidden_act"
    """Function between the linear maps of the neurons, in the configuration."""
    heads: Heads | None = None
    """None where no export takes heads and neurons without weights out."""


_BERT = Anatomy(
    layers="encoder.layer",
    depth="num_hidden_layers",
    width="intermediate_size",
    up="intermediate.dense",
    down="output.dense",
    heads=Heads(
        count="num_attention_heads",
        reads=("attention.self.query", "attention.self.key", "attention.self.value"),
        out="attention.output.dense",
        after="attention.output.LayerNorm",
    ),
)
_DISTILBERT = Anatomy(
    layers="transformer.layer",
    depth="n_layers",
    width="hidden_dim",
    up="ffn.lin1",
    down="ffn.lin2",
    after="output_layer_norm",
    activation="activation",
    adapted=("q_lin", "v_lin"),
    heads=Heads(
        count="n_heads",
        reads=("attention.q_lin", "attention.k_lin", "attention.v_lin"),
        out="attention.out_lin",
        after="sa_layer_norm",
    ),
)
_MODERNBERT = Anatomy(
    layers="layers",
    depth="num_hidden_layers",
    width="intermediate_size",
    up="mlp.Wi",
    down="mlp.Wo",
    after="",
    gated=True,
    first_layer_differs=True,
    adapted=("Wqkv",),
)
FAMILIES = {
    **dict.fromkeys(("bert", "roberta", "xlm-roberta", "camembert", "electra"), _BERT),
    "mpnet": Anatomy(
        layers=_BERT.layers,
        depth=_BERT.depth,
        width=_BERT.width,
        up=_BERT.up,
        down=_BERT.down,
        adapted=("q", "v"),
    ),
    "deberta-v2": Anatomy(
        layers=_BERT.layers,
        depth=_BERT.depth,
        width=_BERT.width,
        up=_BERT.up,
        down=_BERT.down,
        adapted=("query_proj", "value_proj"),
    ),
    "distilbert": _DISTILBERT,
    "modernbert": _MODERNBERT,
}


NEURONS_LEAVE = frozenset(
    ("gelu", "gelu_fast", "gelu_new", "gelu_pytorch_tanh", "quick_gelu", "relu", "silu", "swish", "tanh")
)
"""Activations past which an export finds neurons without weights (`dead_parts`)."""


def loses_neurons(known: Anatomy, activation: object) -> bool:
    """Whether an export of a family with this activation leaves out neurons without weights."""
    return known.heads is not None and activation in NEURONS_LEAVE


def anatomy_of(config: Any) -> Anatomy:
    """The anatomy of a checkpoint's family.

    Raises:
        StepFailed: The family is not known, or the configuration has no layer.
    """
    family = str(config.model_type)
    if family not in FAMILIES:
        raise StepFailed(f"the model's family must be one of {sorted(FAMILIES)} to be cut, got {family!r}.")
    found = FAMILIES[family]
    n_layers = int(getattr(config, found.depth))
    if n_layers < 1:
        raise StepFailed(f"{found.depth} of the model must be at least 1 for it to be cut, got {n_layers}.")
    return found


def layers_of(module: Any, anatomy: Anatomy) -> Any:
    """The list of layers (`nn.ModuleList`) of a module of `load_torch`."""
    return module.body.get_submodule(anatomy.layers)


def set_layers(module: Any, anatomy: Anatomy, layers: Any) -> None:
    """Put another list of layers in the body."""
    parent, _, name = anatomy.layers.rpartition(".")
    setattr(module.body.get_submodule(parent), name, layers)
