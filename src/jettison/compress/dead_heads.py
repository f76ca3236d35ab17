"""Takes attention heads that give nothing out of a fused graph.

A stock checkpoint cannot lose a head, since the size of a head is hidden size over heads; its weights can
be zero. In the graph every attention node has its own number of heads, and such heads leave for good.
"""

from typing import Any

import numpy as np

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
        if after is None or not set(node.input[1:3]) <= set(tensors) or "qkv_hidden_sizes" in attributes:
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
