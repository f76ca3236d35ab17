"""Where a family of causal language models keeps its blocks, neurons and heads."""

from dataclasses import dataclass
from typing import Any

from jettison.errors import StepFailed


@dataclass(frozen=True, kw_only=True)
class CausalAnatomy:
    """The parts of a causal model that can be removed so that a stock class still loads it."""

    blocks: str
    """Path of the list of blocks in the model."""
    depth: str
    """Number of blocks, in the configuration."""
    width: str
    """Feed-forward neurons of each block, in the configuration."""
    ups: tuple[str, ...]
    """Paths, in a block, of the linear maps into the neurons."""
    down: str
    """Path, in a block, of the linear map out of them."""
    transposed: bool = False
    """Whether weights are stored (inputs, outputs), as GPT-2's `Conv1D` does."""
    attention: str | None = None
    """Path, in a block, of an attention with `q_proj`, `k_proj`, `v_proj` and `o_proj`; None where its
    heads cannot leave, because their size is hidden size / heads."""


_LLAMA = CausalAnatomy(
    blocks="model.layers",
    depth="num_hidden_layers",
    width="intermediate_size",
    ups=("mlp.gate_proj", "mlp.up_proj"),
    down="mlp.down_proj",
    attention="self_attn",
)
_GPT2 = CausalAnatomy(
    blocks="transformer.h",
    depth="n_layer",
    width="n_inner",
    ups=("mlp.c_fc",),
    down="mlp.c_proj",
    transposed=True,
)
FAMILIES = {
    **dict.fromkeys(
        ("llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "granite", "smollm3"), _LLAMA
    ),
    "gpt2": _GPT2,
}
_PER_BLOCK = ("layer_types", "no_rope_layers", "mlp_layer_types")
"""Lists in a configuration that hold one entry a block."""


def causal_anatomy(config: Any) -> CausalAnatomy:
    """The anatomy of a checkpoint's family.

    Raises:
        StepFailed: The family is not known.
    """
    family = str(config.model_type)
    if family not in FAMILIES:
        raise StepFailed(f"the model's family must be one of {sorted(FAMILIES)} to be cut, got {family!r}.")
    return FAMILIES[family]


def blocks_of(model: Any, anatomy: CausalAnatomy) -> Any:
    """The list of blocks, an `nn.ModuleList`."""
    return model.get_submodule(anatomy.blocks)


def keep_blocks(model: Any, anatomy: CausalAnatomy, kept: list[int]) -> None:
    """Leave only these blocks in the model, in place, and say so in its configuration."""
    import torch

    whole = blocks_of(model, anatomy)
    left = torch.nn.ModuleList([whole[i] for i in kept])
    parent, _, name = anatomy.blocks.rpartition(".")
    setattr(model.get_submodule(parent), name, left)
    for number, block in enumerate(left):
        for module in block.modules():
            if hasattr(module, "layer_idx"):
                module.layer_idx = number
    setattr(model.config, anatomy.depth, len(kept))
    for key in _PER_BLOCK:
        if getattr(model.config, key, None):
            setattr(model.config, key, [getattr(model.config, key)[i] for i in kept])


def keep_outputs(linear: Any, kept: Any, *, transposed: bool) -> None:
    """Leave only these outputs of a linear map, in place; `kept` is an int64 tensor of indices."""
    _cut(linear, kept, 1 if transposed else 0)
    if linear.bias is not None:
        _replace(linear, "bias", linear.bias[kept])
    if transposed:
        linear.nf = len(kept)
    else:
        linear.out_features = len(kept)


def keep_inputs(linear: Any, kept: Any, *, transposed: bool) -> None:
    """Leave only these inputs of a linear map, in place; `kept` is an int64 tensor of indices."""
    _cut(linear, kept, 0 if transposed else 1)
    if transposed:
        linear.nx = len(kept)
    else:
        linear.in_features = len(kept)


def _cut(linear: Any, kept: Any, axis: int) -> None:
    _replace(linear, "weight", linear.weight.index_select(axis, kept))


def _replace(linear: Any, name: str, tensor: Any) -> None:
    import torch

    setattr(linear, name, torch.nn.Parameter(tensor.detach().clone().contiguous()))
