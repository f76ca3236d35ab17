"""How much an encoder needs each layer and each feed-forward neuron, measured on examples."""

from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np

from jettison.compress.anatomy import Anatomy, Heads, layers_of, set_layers
from jettison.compress.passes import Passes
from jettison.compress.training import Rows, pad_rows, predict_rows
from jettison.model import softmax


class LayerRemoval(msgspec.Struct, frozen=True, kw_only=True):
    """One layer taken out, and what that cost."""

    layer: int
    """Its number in the whole model."""
    divergence: float
    """Mean Kullback-Leibler divergence, in nats, of the answers from the whole model's."""


def layers_to_keep(
    module: Any,
    anatomy: Anatomy,
    depth: int,
    rows: Rows,
    pad_id: int,
    progress: Callable[[str, float | None], None],
) -> tuple[list[int], list[LayerRemoval]]:
    """Take out the least needed layer, again and again, until `depth` are left.

    Args:
        module: As of `load_torch`, in eval mode; left as it was.
        anatomy: Of its family.
        depth: Layers to keep.
        rows: Examples to answer; labels are not read.
        pad_id: Token that fills short rows.
        progress: Called with a phrase and the share done.

    Returns:
        Numbers of the layers kept, ascending, and the removals, first one first.
    """
    import torch

    whole = layers_of(module, anatomy)
    kept = list(range(len(whole)))
    reference = predict_rows(module, rows.ids, pad_id)
    n_trials, done = sum(range(depth + 1, len(kept) + 1)), 0
    removals: list[LayerRemoval] = []
    try:
        while len(kept) > depth:
            costs: dict[int, float] = {}
            for layer in kept[1:] if anatomy.first_layer_differs else kept:
                rest = [whole[i] for i in kept if i != layer]
                set_layers(module, anatomy, torch.nn.ModuleList(rest))
                costs[layer] = divergence(reference, predict_rows(module, rows.ids, pad_id))
                done += 1
                progress("measuring how much each layer is needed", done / n_trials)
            least = min(costs, key=lambda i: costs[i])
            kept.remove(least)
            removals.append(LayerRemoval(layer=least, divergence=costs[least]))
    finally:
        set_layers(module, anatomy, whole)
    return kept, removals


def divergence(reference: np.ndarray, logits: np.ndarray) -> float:
    """Mean KL(reference || other) of two sets of logits, shape (n, n_labels), in nats."""
    p, q = softmax(reference), softmax(logits)
    tiny = 1e-12
    return float((p * (np.log(p + tiny) - np.log(q + tiny))).sum(axis=1).mean())


def neuron_importance(module: Any, anatomy: Anatomy, rows: Rows, pad_id: int) -> list[np.ndarray]:
    """How much the loss would change without each feed-forward neuron, to first order.

    Args:
        module: As of `load_torch`, in eval mode.
        anatomy: Of its family.
        rows: Labelled examples.
        pad_id: Token that fills short rows.

    Returns:
        For each layer, shape (n_neurons,): mean over examples of |sum over tokens of
        activation x gradient|.

    Source:
        Molchanov et al. 2019, "Importance Estimation for Neural Network Pruning", eq. 8.
    """
    return _importance(module, anatomy, anatomy.down, rows, pad_id, size=1)


def head_importance(
    module: Any, anatomy: Anatomy, heads: Heads, rows: Rows, pad_id: int
) -> list[np.ndarray]:
    """The same of each attention head, what it gives taken together; shape (n_heads,) for each layer.

    Source:
        Michel et al. 2019, "Are Sixteen Heads Really Better than One?", eq. 2.
    """
    out = layers_of(module, anatomy)[0].get_submodule(heads.out)
    size = out.in_features // int(getattr(module.config, heads.count))
    return _importance(module, anatomy, heads.out, rows, pad_id, size=size)


def _importance(
    module: Any, anatomy: Anatomy, path: str, rows: Rows, pad_id: int, *, size: int
) -> list[np.ndarray]:
    """Of what the linear map at `path` reads in each layer, `size` values together."""
    import torch

    readers = [layer.get_submodule(path) for layer in layers_of(module, anatomy)]
    seen: dict[int, Any] = {}
    passes = Passes(module)
    handles = [
        reader.register_forward_pre_hook(lambda _, inputs, i=i: seen.__setitem__(i, inputs[0]))
        for i, reader in enumerate(readers)
    ]
    totals = [np.zeros(reader.in_features // size) for reader in readers]
    try:
        batches = (rows.take(np.arange(i, min(i + 32, len(rows)))) for i in range(0, len(rows), 32))
        for batch in (part for whole in batches for part in passes.parts(whole)):
            ids, mask = pad_rows(batch.ids, pad_id)
            loss = torch.nn.functional.cross_entropy(
                module(ids, mask), torch.from_numpy(batch.targets), ignore_index=-1, reduction="sum"
            )
            activations = [seen[i] for i in range(len(readers))]
            gradients = torch.autograd.grad(loss, activations)
            for i, (activation, gradient) in enumerate(zip(activations, gradients, strict=True)):
                change = (activation * gradient).reshape(len(batch), -1, activation.shape[-1]).sum(1)
                together = change.reshape(len(batch), -1, size).sum(-1)
                totals[i] += together.abs().sum(0).detach().numpy()
    finally:
        for handle in handles:
            handle.remove()
    return [total / max(1, len(rows)) for total in totals]
