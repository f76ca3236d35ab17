"""Quantization of `model.onnx` files by ONNX Runtime's and NNCF's own tools."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from jettison.backends.machine import has_vnni
from jettison.backends.openvino import import_openvino
from jettison.compress import quantize_openvino
from jettison.errors import InvalidInput, StepFailed
from jettison.registry import need

EMBEDDING_OPS = ("Gather", "EmbedLayerNormalization")
DYNAMIC_OPS = ("MatMul", "Attention")
STATIC_OPS = ("MatMul", "Gemm")
QUANTIZED_OPS = frozenset(
    {
        *("MatMulInteger", "QAttention", "QGemm", "QLinearMatMul", "DynamicQuantizeMatMul", "MatMulNBits"),
        *("QEmbedLayerNormalization", "DequantizeLinear"),
    }
)
"""Operators of a graph whose weights are not float any more."""
_WEIGHT_INPUT = {"MatMul": 1, "Gemm": 1, "Attention": 1, "Gather": 0, "EmbedLayerNormalization": 2}

Feeds = Sequence[Mapping[str, np.ndarray]]


ONE_BY_ONE = {"batch_size": 1}
"""Settings of what `quantize_dynamic` makes. The runtime finds one range for a whole batch, so that an
answer would depend on what else is asked: 1.3 to 1.9 % of a sentiment task's labels were others in batches
of 32 than alone, which cost 1.3 times as much."""


@dataclass(frozen=True, kw_only=True)
class Int8:
    """What to make int8, and how."""

    per_channel: bool = True
    reduce_range: bool = False
    embeddings: bool = True
    exclude: tuple[str, ...] = ()
    """Names of nodes."""


@dataclass(frozen=True, kw_only=True)
class WeightNode:
    """A node of the graph that multiplies with, or looks up in, a constant matrix."""

    name: str
    op: str
    n_weights: int


def needs_reduced_range() -> bool:
    """Whether full-range int8 weights can saturate on this processor."""
    return not has_vnni()


def reduces_range(setting: Literal["auto"] | bool) -> bool:
    """A `reduce_range` setting as it is on this processor."""
    return needs_reduced_range() if setting == "auto" else setting


def quantize_dynamic(source: Path, target: Path, plan: Int8) -> dict[str, Any]:
    """Int8 weights; the runtime finds the range of activations anew for each input.

    Returns:
        Notes: how many nodes run in int8.

    Raises:
        MissingExtra: onnxruntime or onnx is not installed.
        StepFailed: Nothing in the graph could be quantized.
    """
    onnx = need("onnx", "onnx")
    tools = need("onnxruntime.quantization", "onnx")
    kinds = {"MatMulInteger", "QAttention", "QEmbedLayerNormalization", "DequantizeLinear"}
    n_before = _n_nodes(source, kinds)
    tools.quantize_dynamic(
        source,
        target,
        op_types_to_quantize=[*DYNAMIC_OPS, *(EMBEDDING_OPS if plan.embeddings else ())],
        per_channel=plan.per_channel,
        reduce_range=plan.reduce_range,
        weight_type=tools.QuantType.QInt8,
        nodes_to_exclude=_with_gemm_names([*plan.exclude, *_small_tables(source)]),
        # Shapes behind fused nodes are not inferred, and the quantizer asks for their types.
        extra_options={"DefaultTensorType": onnx.TensorProto.FLOAT},
    )
    n_int8 = _count(target, kinds)
    if n_int8 <= n_before:
        raise StepFailed(f"quantization must make nodes int8, got the {n_before} that were already int8.")
    return {"n_int8_nodes": n_int8}


def quantize_static(source: Path, target: Path, plan: Int8, feeds: Feeds) -> None:
    """Int8 weights and activations, with ranges of activations fixed by the calibration inputs.

    Raises:
        MissingExtra: onnxruntime or onnx is not installed.
        StepFailed: Nothing in the graph could be quantized.
    """
    onnx = need("onnx", "onnx")
    tools = need("onnxruntime.quantization", "onnx")
    names = _input_names(source)

    tools.quantize_static(
        source,
        target,
        _Reader([{name: feed[name] for name in names} for feed in feeds]),
        quant_format=tools.QuantFormat.QDQ,
        op_types_to_quantize=[*STATIC_OPS, *(("Gather",) if plan.embeddings else ())],
        per_channel=plan.per_channel,
        reduce_range=plan.reduce_range,
        activation_type=tools.QuantType.QUInt8,
        weight_type=tools.QuantType.QInt8,
        nodes_to_exclude=[*plan.exclude, *_small_tables(source)],
        # Products of two activations (attention scores) lose the most and gain the least.
        extra_options={"DefaultTensorType": onnx.TensorProto.FLOAT, "MatMulConstBOnly": True},
    )
    _count(target, {"QuantizeLinear"})


def quantize_nncf(
    source: Path, target: Path, feeds: Feeds, *, exclude: Sequence[str] = (), reduce_range: bool = False
) -> None:
    """Int8 by NNCF: SmoothQuant, calibrated ranges, fast bias correction.

    Raises:
        MissingExtra: nncf or onnx is not installed.
    """
    import_openvino()
    onnx = need("onnx", "onnx")
    nncf = need("nncf", "openvino")
    names = _input_names(source)
    given = [{name: feed[name] for name in names} for feed in feeds]
    quantized = nncf.quantize(
        onnx.load(str(source)),
        nncf.Dataset(given),
        model_type=nncf.ModelType.TRANSFORMER,
        subset_size=len(given),
        ignored_scope=nncf.IgnoredScope(names=list(exclude)) if exclude else None,
        advanced_parameters=quantize_openvino.advanced(nncf, reduce_range=reduce_range),
    )
    onnx.save(quantized, str(target))


def compress_weights(
    source: Path,
    target: Path,
    *,
    bits: int,
    block_size: int,
    exclude: Sequence[str] = (),
    embeddings: bool = True,
) -> None:
    """Weights alone in 8 or 4 bits, in blocks with a scale each (`MatMulNBits`).

    Raises:
        MissingExtra: onnxruntime or onnx is not installed.
        StepFailed: Nothing in the graph could be quantized.
    """
    onnx = need("onnx", "onnx")
    module = need("onnxruntime.quantization.matmul_nbits_quantizer", "onnx")
    # The look-up has a blocked form in 4 bits alone.
    tables = embeddings and bits == 4
    model = onnx.load(str(source))
    quantizer = module.MatMulNBitsQuantizer(
        model,
        bits=bits,
        block_size=block_size,
        is_symmetric=False,
        accuracy_level=4,  # int8 products; without it weights are widened to float32 first
        nodes_to_exclude=[*exclude, *_integer_lookups(source)],
        op_types_to_quantize=("MatMul", "Gather") if tables else ("MatMul",),
        quant_axes=(("MatMul", 0), ("Gather", 1)),
    )
    quantizer.process()
    quantizer.model.save_model_to_file(str(target), False)
    _count(target, {"MatMulNBits"})


def check_plain(source: Path, method: str) -> None:
    """Refuse a graph with fused nodes, which calibrated quantization cannot look into.

    Raises:
        InvalidInput: There is such a node.
    """
    onnx = need("onnx", "onnx")
    for node in onnx.load(str(source), load_external_data=False).graph.node:
        if node.domain == "com.microsoft":
            raise InvalidInput(
                f"method {method!r} must start from standard operators, got {node.op_type}. "
                "Export with method 'plain', or quantize the checkpoint itself."
            )


def weight_nodes(source: Path) -> tuple[WeightNode, ...]:
    """Nodes with a constant float matrix, in the graph's order."""
    onnx = need("onnx", "onnx")
    graph = onnx.load(str(source), load_external_data=False).graph
    sizes = {
        t.name: int(np.prod(t.dims)) for t in graph.initializer if len(t.dims) >= 2 and t.data_type == 1
    }
    found = []
    for node in graph.node:
        index = _WEIGHT_INPUT.get(node.op_type)
        if index is not None and len(node.input) > index and node.input[index] in sizes:
            found.append(WeightNode(name=node.name, op=node.op_type, n_weights=sizes[node.input[index]]))
    return tuple(found)


def why_not_quantized(source: Path) -> str:
    """Why no weights of a graph can be made int8, as a rule and what came; empty where some may be.

    A graph in int8 keeps tables of positions in float, which are no reason to quantize it again.
    """
    onnx = need("onnx", "onnx")
    graph = onnx.load(str(source), load_external_data=False).graph
    if any(node.op not in EMBEDDING_OPS for node in weight_nodes(source)):
        return ""
    if any(node.op_type in QUANTIZED_OPS for node in graph.node):
        return "weights must be float32 to be quantized, got a graph that is already int8 (or int4)"
    sizes: dict[int, int] = {}
    for tensor in graph.initializer:
        if len(tensor.dims) >= 2:
            sizes[tensor.data_type] = sizes.get(tensor.data_type, 0) + int(np.prod(tensor.dims))
    largest = max(sizes, key=lambda kind: sizes[kind], default=onnx.TensorProto.FLOAT)
    if largest == onnx.TensorProto.FLOAT:
        return ""
    name = onnx.TensorProto.DataType.Name(largest).lower()
    return f"weights must be float32 to be quantized, got {name}"


def check_weights(source: Path) -> None:
    """Refuse a graph without float32 weights.

    Raises:
        StepFailed: They are in int8 already, or in another precision.
    """
    if reason := why_not_quantized(source):
        raise StepFailed(f"{reason}. Start from the float32 export of the model.")


def node_names(source: Path) -> tuple[str, ...]:
    """Names of all nodes, in the graph's order."""
    onnx = need("onnx", "onnx")
    return tuple(node.name for node in onnx.load(str(source), load_external_data=False).graph.node)


class _Reader:
    """Hands out the calibration inputs one by one."""

    def __init__(self, feeds: Feeds) -> None:
        self._left = iter(feeds)

    def get_next(self) -> Mapping[str, np.ndarray] | None:
        """The next one; None when there is none left."""
        return next(self._left, None)


def token_table(source: Path) -> str | None:
    """Name of the node that looks up in the largest table: that of the tokens."""
    tables = [node for node in weight_nodes(source) if node.op in EMBEDDING_OPS]
    return max(tables, key=lambda node: node.n_weights).name if tables else None


def _small_tables(source: Path) -> list[str]:
    """Every look-up but the token table's. Positions and token types in int8 save next to no bytes
    and cost more of the answers than all the rest: they are added to every token of every text."""
    onnx = need("onnx", "onnx")
    kept = token_table(source)
    graph = onnx.load(str(source), load_external_data=False).graph
    return [node.name for node in graph.node if node.op_type in EMBEDDING_OPS and node.name != kept]


def _with_gemm_names(names: Sequence[str]) -> list[str]:
    """The quantizer turns a `Gemm` into a `MatMul` of another name before it looks at names."""
    return [*names, *(f"{name}_MatMul" for name in names)]


def _input_names(source: Path) -> list[str]:
    onnx = need("onnx", "onnx")
    return [value.name for value in onnx.load(str(source), load_external_data=False).graph.input]


def _integer_lookups(source: Path) -> list[str]:
    """`Gather`s that look up in anything but a float matrix: positions, shapes."""
    onnx = need("onnx", "onnx")
    tables = {node.name for node in weight_nodes(source)}
    graph = onnx.load(str(source), load_external_data=False).graph
    return [node.name for node in graph.node if node.op_type == "Gather" and node.name not in tables]


def _count(path: Path, kinds: set[str]) -> int:
    n = _n_nodes(path, kinds)
    if n == 0:
        raise StepFailed(f"the graph must have nodes that quantization knows, got none of {sorted(kinds)}.")
    return n


def _n_nodes(path: Path, kinds: set[str]) -> int:
    onnx = need("onnx", "onnx")
    graph = onnx.load(str(path), load_external_data=False).graph
    return sum(node.op_type in kinds for node in graph.node)
