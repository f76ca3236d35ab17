"""Quantization of OpenVINO models by NNCF."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jettison.backends.openvino import import_openvino
from jettison.registry import need


def quantize(
    source: Path,
    target: Path,
    *,
    method: str,
    feeds: Sequence[Mapping[str, np.ndarray]],
    exclude: Sequence[str] = (),
    embeddings: bool = True,
    block_size: int = 32,
    reduce_range: bool = False,
) -> None:
    """Write a model with int8 weights and activations (`nncf`), or with 8- or 4-bit weights.

    Args:
        source: `model.xml` or `model.onnx`.
        target: `model.xml` to write, its weights beside it.
        method: `nncf`, `weights8` or `weights4`.
        feeds: Calibration inputs, by input name; `nncf` alone reads them.
        exclude: Names of nodes to leave in float.
        embeddings: Whether `weights4` may take the token table below 8 bits.
        block_size: Weights that share a scale in `weights4`.
        reduce_range: Keep int8 weights of `nncf` to 7 bits.

    Raises:
        MissingExtra: openvino or nncf is not installed.
    """
    openvino = import_openvino()
    nncf = need("nncf", "openvino")
    graph = openvino.Core().read_model(str(source))
    ignored = nncf.IgnoredScope(patterns=[_as_pattern(rule) for rule in exclude]) if exclude else None
    if method == "nncf":
        made = _calibrated(nncf, graph, feeds, ignored, reduce_range)
    elif method == "weights8":
        made = nncf.compress_weights(graph, mode=nncf.CompressWeightsMode.INT8_ASYM, ignored_scope=ignored)
    else:
        made = nncf.compress_weights(
            graph,
            mode=nncf.CompressWeightsMode.INT4_ASYM,
            group_size=block_size,
            ratio=1.0,
            all_layers=embeddings,
            ignored_scope=ignored,
            advanced_parameters=nncf.AdvancedCompressionParameters(
                group_size_fallback_mode=nncf.GroupSizeFallbackMode.ADJUST
            ),
        )
    openvino.save_model(made, str(target), compress_to_fp16=False)


def _calibrated(
    nncf: Any, graph: Any, feeds: Sequence[Mapping[str, np.ndarray]], ignored: Any, reduce_range: bool
) -> Any:
    names = [next(iter(sorted(port.names))) for port in graph.inputs]
    given = [{name: feed[name] for name in names} for feed in feeds]
    return nncf.quantize(
        graph,
        nncf.Dataset(given),
        model_type=nncf.ModelType.TRANSFORMER,
        subset_size=len(given),
        ignored_scope=ignored,
        advanced_parameters=advanced(nncf, reduce_range=reduce_range),
    )


def advanced(nncf: Any, *, reduce_range: bool) -> Any:
    """NNCF's setting for weights of 7 or of 8 bits in every layer.

    By itself it spares the first layer alone, and sums in all others saturate where VNNI lacks.
    """
    fix = nncf.OverflowFix.ENABLE if reduce_range else nncf.OverflowFix.DISABLE
    return nncf.AdvancedQuantizationParameters(overflow_fix=fix)


def _as_pattern(rule: str) -> str:
    """A node name with `*` as a regular expression."""
    import re

    return ".*".join(re.escape(part) for part in rule.split("*"))
