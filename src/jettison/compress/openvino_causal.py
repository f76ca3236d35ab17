"""Writes a causal checkpoint as one OpenVINO graph that reads past keys and values and gives new ones."""

import warnings
from pathlib import Path
from typing import Any

from jettison.backends.openvino import import_openvino
from jettison.errors import StepFailed
from jettison.registry import need

TRACED_PAST, TRACED_TOKENS = 3, 5


def write_graph(model: Any, target: Path) -> None:
    """Trace a model once, with some tokens in its past, and save it in float32.

    Args:
        model: A `transformers` causal model in float32 and eval mode, whose every layer attends to all
            that came before.
        target: `model.xml` to write, its weights beside it. Inputs: ids, shape (1, n), then keys and values
            of each layer, shape (1, n_heads, n_past, width). Outputs: logits, shape (1, n, n_vocabulary),
            then keys and values with the new ones.

    Raises:
        StepFailed: A layer keeps something else, or the graph cannot be traced or converted.
        MissingExtra: openvino or torch is not installed.
    """
    torch = need("torch", "torch")
    openvino = import_openvino()
    ids = torch.arange(TRACED_TOKENS)[None]
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        past = _some_past(model)
        try:
            traced = torch.jit.trace(_WithPast(model), (ids, *past), check_trace=False)
            shapes = [([1, -1], openvino.Type.i64)]
            shapes += [([1, one.shape[1], -1, one.shape[3]], openvino.Type.f32) for one in past]
            graph = openvino.convert_model(traced, example_input=(ids, *past), input=shapes)
        except Exception as error:  # OpenVINO and torch.jit raise many kinds; the message is passed on
            reason = " ".join(str(error).split())[:200]
            raise StepFailed(
                f"the model must be one that OpenVINO converts, got {type(error).__name__}: {reason}"
            ) from error
    openvino.save_model(graph, str(target), compress_to_fp16=False)


def _some_past(model: Any) -> list[Any]:
    """Keys and values of a few tokens, by layer."""
    torch = need("torch", "torch")
    cache_utils = need("transformers.cache_utils", "torch")
    ids = torch.arange(TRACED_PAST)[None]
    cache = model(input_ids=ids, use_cache=True).past_key_values
    strange = {
        type(layer).__name__ for layer in cache.layers if type(layer) is not cache_utils.DynamicLayer
    }
    if strange:
        raise StepFailed(
            f"every layer must attend to all that came before, got one that keeps a {sorted(strange)[0]}. "
            "Leave this model to another runtime."
        )
    return [tensor for layer in cache.layers for tensor in (layer.keys, layer.values)]


def _WithPast(model: Any) -> Any:  # noqa: N802 - a class that torch must be there for
    torch = need("torch", "torch")
    cache_utils = need("transformers.cache_utils", "torch")

    class WithPast(torch.nn.Module):  # type: ignore[name-defined, misc]
        """The model as a function of tokens and plain tensors of what came before."""

        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, ids: Any, *past: Any) -> Any:
            cache = cache_utils.DynamicCache()
            cache.layers = []
            for keys, values in zip(past[::2], past[1::2], strict=True):
                layer = cache_utils.DynamicLayer()
                layer.lazy_initialization(keys, values)
                layer.keys, layer.values = keys, values
                cache.layers.append(layer)
            n_past, n_new = past[0].shape[2], ids.shape[1]
            places = torch.arange(n_new)[None] + n_past
            seen = torch.arange(n_past + n_new)[None, :] <= places[0][:, None]
            hidden = torch.where(seen, 0.0, torch.finfo(torch.float32).min)[None, None]
            made = self.model(
                input_ids=ids,
                attention_mask=hidden,
                position_ids=places,
                past_key_values=cache,
                use_cache=True,
            )
            return (made.logits, *(t for layer in cache.layers for t in (layer.keys, layer.values)))

    return WithPast().eval()
