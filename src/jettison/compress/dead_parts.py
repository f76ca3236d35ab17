"""Takes attention heads and neurons that give nothing out of a fused graph.

A stock checkpoint cannot lose a head, since the size of a head is hidden size over heads, and all of its
layers have as many neurons; but weights can be zero. In the graph every layer has numbers of its own, and
what has no weights leaves for good.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from jettison.compress.anatomy import FAMILIES, layers_of
from jettison.registry import need


def drop_dead_heads(graph: Any) -> list[int]:
    """Cut, in place, what cannot reach any output; how many heads each attention node is left with.

    Args:
        graph: Of an ONNX model with `Attention` nodes of ONNX Runtime, in float32.

    Returns:
        Heads of each node that was cut, in the graph's order; empty where none was.
    """
    helper = need("onnx", "onnx").numpy_helper
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    left = []
    for node in [node for node in graph.node if node.op_type == "Attention"]:
        after = _only_product_after(graph, node, tensors)
        attributes = {attribute.name: attribute for attribute in node.attribute}
        # What is given for each head (a bias of the scores, a past) would have to be cut, too.
        if after is None or "qkv_hidden_sizes" in attributes or any(node.input[4:]):
            continue
        if not set(node.input[1:3]) <= set(tensors):
            continue
        weight, bias, out = (helper.to_array(tensors[name]) for name in (*node.input[1:3], after.input[1]))
        n_heads = int(attributes["num_heads"].i)
        live = _live_heads(weight, bias, out, n_heads)
        if len(live) == n_heads:
            continue
        size = out.shape[0] // n_heads
        columns = np.concatenate([np.arange(head * size, (head + 1) * size) for head in live])
        parts = np.concatenate([part * out.shape[0] + columns for part in range(3)])
        for name, array in (
            (node.input[1], weight[:, parts]),
            (node.input[2], bias[parts]),
            (after.input[1], out[columns]),
        ):
            tensors[name].CopyFrom(helper.from_array(np.ascontiguousarray(array), name))
        attributes["num_heads"].i = len(live)
        left.append(len(live))
    return left


OF_ZERO_ZERO = frozenset({"Add", "BiasGelu", "FastGelu", "Gelu", "QuickGelu", "Relu", "Tanh"})
"""Operators between the products of a feed-forward block that, with no bias, make nothing of nothing.
A product with its own sigmoid, which is SiLU, does too (see `_gated`)."""


def drop_dead_neurons(graph: Any) -> list[int]:
    """Cut, in place, neurons that read nothing or that nothing reads; how many each cut block is left with.

    Args:
        graph: Of an ONNX model in float32.

    Returns:
        Neurons of each feed-forward block that was cut, in the graph's order; empty where none was.
    """
    helper = need("onnx", "onnx").numpy_helper
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    left = []
    for down, between, up in _feed_forward_blocks(graph, tensors):
        biases = [name for node in between for name in node.input if name in tensors]
        read, out = (helper.to_array(tensors[node.input[1]]) for node in (up, down))
        given = [helper.to_array(tensors[name]) for name in biases]
        lives = np.any([read.any(axis=0), *(bias != 0 for bias in given)], axis=0) & out.any(axis=1)
        live = np.flatnonzero(lives) if lives.any() else np.array([0])
        if len(live) == len(out):
            continue
        cut = [(up.input[1], read[:, live]), (down.input[1], out[live])]
        cut += [(name, bias[live]) for name, bias in zip(biases, given, strict=True)]
        for name, array in cut:
            tensors[name].CopyFrom(helper.from_array(np.ascontiguousarray(array), name))
        left.append(len(live))
    return left


def kept_without_weights(module: Any, left: dict[str, Any]) -> dict[str, int]:
    """How many heads and neurons without weights an export could not take out; empty where none stayed.

    Args:
        module: What was exported, of `load_torch`.
        left: Notes of the export, with `heads_left` and `neurons_left` of the layers that lost some.
    """
    anatomy = FAMILIES.get(str(module.config.model_type))
    if anatomy is None or anatomy.heads is None:
        return {}
    n_heads, n_neurons = (
        int(getattr(module.config, name)) for name in (anatomy.heads.count, anatomy.width)
    )
    silent = dead = 0
    for layer in layers_of(module, anatomy):
        up, down = layer.get_submodule(anatomy.up), layer.get_submodule(anatomy.down)
        dead += int((_unread(up) | (down.weight == 0).all(dim=0)).sum())
        values, out = layer.get_submodule(anatomy.heads.reads[2]), layer.get_submodule(anatomy.heads.out)
        silent += int(
            (
                _unread(values).reshape(n_heads, -1).all(dim=1)
                | (out.weight == 0).all(dim=0).reshape(n_heads, -1).all(dim=1)
            ).sum()
        )
    kept = {
        "heads": silent - sum(n_heads - n for n in left.get("heads_left", ())),
        "neurons": dead - sum(n_neurons - n for n in left.get("neurons_left", ())),
    }
    return {name: n for name, n in kept.items() if n > 0}


def _unread(linear: Any) -> Any:
    """Which outputs of a linear map have no weights, shape (n_out,), booleans."""
    without = (linear.weight == 0).all(dim=1)
    return without if linear.bias is None else without & (linear.bias == 0)


def _feed_forward_blocks(graph: Any, tensors: dict[str, Any]) -> Iterator[tuple[Any, list[Any], Any]]:
    """The product out of neurons, what is between, and the product into them, none of it read elsewhere."""
    makers = {name: node for node in graph.node for name in node.output}
    n_readers: dict[str, int] = {value.name: 1 for value in graph.output}
    for node in graph.node:
        for name in node.input:
            n_readers[name] = n_readers.get(name, 0) + 1
    for down in graph.node:
        if not _is_own_product(down, tensors, n_readers):
            continue
        n_neurons, name = tensors[down.input[1]].dims[0], down.input[0]
        between: list[Any] = []
        while n_readers[name] == 1 and (node := makers.get(name)) is not None:
            if (gated := _gated(node, makers, n_readers)) is not None:
                # Read twice, by the product and its sigmoid, of which no other knows.
                node = makers[gated]
            if _is_own_product(node, tensors, n_readers):
                if between:
                    yield down, between, node
                break
            varying = [given for given in node.input if given not in tensors]
            constant = [given for given in node.input if given in tensors]
            fits = all(list(tensors[c].dims) == [n_neurons] and n_readers[c] == 1 for c in constant)
            if node.op_type not in OF_ZERO_ZERO or len(varying) != 1 or not fits:
                break
            between.append(node)
            name = varying[0]


def _gated(node: Any, makers: dict[str, Any], n_readers: dict[str, int]) -> str | None:
    """What a node multiplies with its own sigmoid, where that is all that reads either; else None."""
    if node.op_type != "Mul":
        return None
    for name, other in (tuple(node.input), tuple(reversed(node.input))):
        sigmoid = makers.get(other)
        if sigmoid is None or sigmoid.op_type != "Sigmoid" or sigmoid.input[0] != name:
            continue
        if n_readers[other] == 1 and n_readers[name] == 2 and name in makers:
            return str(name)
    return None


def _is_own_product(node: Any, tensors: dict[str, Any], n_readers: dict[str, int]) -> bool:
    """Whether a node multiplies with a constant matrix that no other node reads."""
    if node.op_type != "MatMul" or node.input[1] not in tensors:
        return False
    return len(tensors[node.input[1]].dims) == 2 and n_readers[node.input[1]] == 1


def _only_product_after(graph: Any, node: Any, tensors: dict[str, Any]) -> Any | None:
    """The product with a constant that alone reads what a node gives, or None."""
    readers = [other for other in graph.node if node.output[0] in other.input]
    if len(readers) != 1 or readers[0].op_type != "MatMul" or readers[0].input[1] not in tensors:
        return None
    shared = [other for other in graph.node if readers[0].input[1] in other.input]
    return readers[0] if len(shared) == 1 else None


def _live_heads(weight: np.ndarray, bias: np.ndarray, out: np.ndarray, n_heads: int) -> list[int]:
    """Heads whose values are not all zero and are read; at least one.

    Args:
        weight: Of queries, keys and values side by side, shape (n_in, 3 * n_heads * size).
        bias: Likewise, shape (3 * n_heads * size,).
        out: Reads the values, shape (n_heads * size, n_out).
        n_heads: How many there are.
    """
    size = out.shape[0] // n_heads
    values = np.concatenate([weight, bias[None]])[:, 2 * out.shape[0] :]
    live = []
    for head in range(n_heads):
        part = slice(head * size, (head + 1) * size)
        if values[:, part].any() and out[part].any():
            live.append(head)
    return live or [0]
