"""Takes work that cannot change the logits out of a fused encoder's graph.

Heads and neurons without weights leave. Positions and token types that nobody passes in are rows of
one constant table: the dozens of nodes that a trace spends on finding them are not needed. A classifier
that reads the first token alone needs no other after the last attention, most of that layer's work. And
a bias next to its product is added by the product itself once it is int8.
"""

from typing import Any

import numpy as np

from jettison.compress.dead_parts import drop_dead_heads, drop_dead_neurons
from jettison.registry import need

POSITIONS, TYPES = "position_embeddings.weight", "token_type_embeddings.weight"
PLAIN_POSITIONS = frozenset({"bert", "electra"})
"""`model_type`s that count positions from 0, whatever is padded."""
BY_TOKEN = frozenset(
    {"MatMul", "Add", "BiasGelu", "FastGelu", "Gelu", "LayerNormalization", "SkipLayerNormalization"}
)
"""Operators that make each token's output of that token's input and of constants (see `_is_by_token`)."""
_FIRST_CONSTANT = {"SkipLayerNormalization": 2}


def slim(model: Any, model_type: str) -> dict[str, Any]:
    """Rewrite an ONNX model in place; say what was done.

    Args:
        model: Of a text encoder with the inputs `input_ids` and `attention_mask`, (batch, tokens).
        model_type: Of its `config.json`.
    """
    graph = model.graph
    cut = {"heads_left": drop_dead_heads(graph), "neurons_left": drop_dead_neurons(graph)}
    notes: dict[str, Any] = {
        "fixed_positions": model_type in PLAIN_POSITIONS and _fix_positions(graph),
        "first_token_nodes": _keep_first_token(graph),
    }
    _part_residuals(graph)
    _drop_unused(graph)
    return notes | {name: left for name, left in cut.items() if left}


def _fix_positions(graph: Any) -> bool:
    """Add positions and token type 0 as a slice of one table; False where they are not found."""
    onnx = need("onnx", "onnx")
    makers = {name: node for node in graph.node for name in node.output}
    tables = {tensor.name: tensor for tensor in graph.initializer}
    for last in graph.node:
        first = next((makers[name] for name in last.input if _makes(makers.get(name), "Add")), None)
        if last.op_type != "Add" or first is None:
            continue
        looked_up = {
            name: makers[name].input[0]
            for name in [*last.input, *first.input]
            if _makes(makers.get(name), "Gather")
        }
        words = [name for name, table in looked_up.items() if not table.endswith((POSITIONS, TYPES))]
        positions = [table for table in looked_up.values() if table.endswith(POSITIONS)]
        types = [table for table in looked_up.values() if table.endswith(TYPES)]
        if not (len(words) == len(positions) == len(types) == 1):
            continue
        read = onnx.numpy_helper.to_array
        table = read(tables[positions[0]]) + read(tables[types[0]])[0]
        name = f"type_0.{positions[0]}"
        graph.initializer.append(onnx.numpy_helper.from_array(table, name))
        graph.initializer.append(onnx.numpy_helper.from_array(np.zeros(1, np.int64), f"{name}_start"))
        at = list(graph.node).index(last)
        make = onnx.helper.make_node
        graph.node.insert(at, make("Shape", ["input_ids"], [f"{name}_n"], name=f"{name}_n", start=1, end=2))
        slice_inputs = [name, f"{name}_start", f"{name}_n", f"{name}_start"]
        graph.node.insert(at + 1, make("Slice", slice_inputs, [f"{name}_rows"], name=f"{name}_rows"))
        last.input[:] = [words[0], f"{name}_rows"]
        return True
    return False


def _keep_first_token(graph: Any) -> int:
    """Pick token 0 before, and no longer after, what works token by token; how many nodes that is."""
    constants = _constants(graph)
    makers = {name: node for node in graph.node for name in node.output}
    for pick in list(graph.node):
        if not _picks_first(pick, constants):
            continue
        moved = _only_for(graph, pick, constants, makers)
        if not moved:
            continue
        _pick_before(graph, moved, constants, makers)
        moved[pick.input[0]].output[0] = pick.output[0]
        graph.node.remove(pick)
        return len(moved)
    return 0


def _only_for(graph: Any, pick: Any, constants: dict[str, Any], makers: dict[str, Any]) -> dict[str, Any]:
    """Nodes before the pick that work token by token and that nothing else reads, by name of output."""
    users: dict[str, set[str]] = {value.name: {""} for value in graph.output}
    for node in graph.node:
        for name in node.input:
            users.setdefault(name, set()).add(node.output[0])
    moved: dict[str, Any] = {}
    left = [pick.input[0]]
    while left:
        name = left.pop()
        node = makers.get(name)
        if name in moved or not users[name] <= {pick.output[0], *moved}:
            continue
        if node is not None and _is_by_token(node, constants):
            moved[name] = node
            left += [given for given in node.input if given not in constants]
    return moved


def _pick_before(
    graph: Any, moved: dict[str, Any], constants: dict[str, Any], makers: dict[str, Any]
) -> None:
    """Give the moved nodes the first token of what they read from others."""
    onnx = need("onnx", "onnx")
    index = "first_token"
    graph.initializer.append(onnx.numpy_helper.from_array(np.int64(0), index))
    picked: set[str] = set()
    for node in [node for node in graph.node if node.output[0] in moved]:
        for i, name in enumerate(node.input):
            if name in moved or name in constants:
                continue
            first = f"{name}_first"
            if name not in picked:
                picked.add(name)
                made = onnx.helper.make_node("Gather", [name, index], [first], name=first, axis=1)
                graph.node.insert(list(graph.node).index(node), made)
            node.input[i] = first


def _part_residuals(graph: Any) -> None:
    """Write `SkipLayerNormalization` out again: bias, residual, layer norm.

    ONNX Runtime's kernel of it takes longer than its parts on a CPU: three int8 layers of width 384
    took 0.89 of the time without it. It would put an `Add` back into the node when it opens the file;
    a `Sum` it leaves alone.
    """
    make = need("onnx", "onnx").helper.make_node
    for node in [node for node in graph.node if node.op_type == "SkipLayerNormalization"]:
        name = node.output[0]
        left, right, scale, shift, bias = [*node.input, ""][:5]
        parts = []
        if bias:
            parts.append(make("Add", [left, bias], [f"{name}_biased"], name=f"{name}_biased"))
            left = f"{name}_biased"
        parts.append(make("Sum", [left, right], [f"{name}_residual"], name=f"{name}_residual"))
        norm = [f"{name}_residual", scale, shift]
        epsilon = next((a.f for a in node.attribute if a.name == "epsilon"), 1e-5)
        parts.append(make("LayerNormalization", norm, [name], name=f"{name}_norm", epsilon=epsilon))
        at = list(graph.node).index(node)
        graph.node.remove(node)
        for offset, part in enumerate(parts):
            graph.node.insert(at + offset, part)


def _picks_first(node: Any, constants: dict[str, Any]) -> bool:
    if node.op_type != "Gather" or _attribute(node, "axis", 0) != 1:
        return False
    index = constants.get(node.input[1])
    return index is not None and index.ndim == 0 and int(index) == 0


def _is_by_token(node: Any, constants: dict[str, Any]) -> bool:
    """Whether each token's output comes of that token alone, whatever the number of dimensions before."""
    if node.op_type not in BY_TOKEN or sum(bool(name) for name in node.output) != 1:
        return False
    if node.op_type == "LayerNormalization" and _attribute(node, "axis", -1) != -1:
        return False
    first = _FIRST_CONSTANT.get(node.op_type, 1)
    given = [constants.get(name) for name in node.input if name]
    largest = 2 if node.op_type == "MatMul" else 1
    return all(c is None for c in given[:first]) and all(
        c is not None and c.ndim <= largest for c in given[first:]
    )


def _constants(graph: Any) -> dict[str, Any]:
    """Arrays that do not depend on the inputs, by name; the empty name stands for a missing input."""
    read = need("onnx", "onnx").numpy_helper.to_array
    found = {tensor.name: read(tensor) for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            found[node.output[0]] = read(node.attribute[0].t)
    return found


def _drop_unused(graph: Any) -> None:
    """Remove nodes and constants that no output depends on."""
    wanted = {value.name for value in graph.output}
    for node in reversed(list(graph.node)):
        if wanted.isdisjoint(node.output):
            graph.node.remove(node)
        else:
            wanted.update(node.input)
    for tensor in [tensor for tensor in graph.initializer if tensor.name not in wanted]:
        graph.initializer.remove(tensor)


def _makes(node: Any, kind: str) -> bool:
    return node is not None and node.op_type == kind


def _attribute(node: Any, name: str, default: int) -> int:
    return next((int(a.i) for a in node.attribute if a.name == name), default)
