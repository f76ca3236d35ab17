"""Where a language model computes, and in what precision: a GPU in bfloat16 where there is one."""

import sys
from collections.abc import Mapping
from typing import Any, NamedTuple

from jettison.errors import InvalidInput
from jettison.registry import need

DTYPES = ("auto", "float32", "bfloat16")
DEVICES = ("auto", "cpu", "cuda")


class Placed(NamedTuple):
    """What the settings `device` and `dtype` came to."""

    device: str
    """`cpu` or `cuda`."""
    dtype: str
    """`float32` or `bfloat16`."""


def placed(settings: Mapping[str, Any], *, backend: str) -> Placed:
    """The same on this machine.

    Raises:
        InvalidInput: A setting is none of those there are, or names a GPU that is not there.
        MissingExtra: torch is not installed.
    """
    torch = need("torch", "torch")
    has_gpu = bool(torch.cuda.is_available())
    return placed_on(
        settings,
        backend=backend,
        has_gpu=has_gpu,
        has_bfloat16=has_gpu and bool(torch.cuda.is_bf16_supported()),
    )


def placed_on(settings: Mapping[str, Any], *, backend: str, has_gpu: bool, has_bfloat16: bool) -> Placed:
    """The same on a machine with or without a GPU, and one that computes in bfloat16.

    `auto` takes a GPU where there is one, and bfloat16 there: half the bytes to read for each token. On a
    CPU it is float32, whose answers are the reference.
    """
    device, dtype = settings.get("device", "auto"), settings.get("dtype", "auto")
    if dtype not in DTYPES:
        raise InvalidInput(f"dtype of backend {backend!r} must be one of {list(DTYPES)}, got {dtype!r}.")
    if device not in DEVICES:
        raise InvalidInput(f"device of backend {backend!r} must be one of {list(DEVICES)}, got {device!r}.")
    if device == "cuda" and not has_gpu:
        raise InvalidInput(
            f"device of backend {backend!r} must be there, got 'cuda' where torch sees no GPU. "
            "Leave it out, or install a torch that is built for the GPU."
        )
    on_gpu = has_gpu if device == "auto" else device == "cuda"
    if dtype == "auto":
        dtype = "bfloat16" if on_gpu and has_bfloat16 else "float32"
    return Placed("cuda" if on_gpu else "cpu", dtype)


def cast(model: Any, dtype: str) -> Any:
    """A `transformers` model with its weights in a precision, changed in place.

    Tables that the model computes for itself stay as they are, as when it is loaded in that precision:
    `model.to(torch.bfloat16)` would round the frequencies of rotary positions to eight bits, which turns
    the 300th token by half a radian.
    """
    torch = need("torch", "torch")
    wanted = getattr(torch, dtype)
    kept = set(getattr(model, "_keep_in_fp32_modules_strict", None) or ())
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.is_floating_point() and not kept.intersection(name.split(".")):
                parameter.data = parameter.data.to(wanted)
    return model


def is_on_gpu() -> bool:
    """Whether torch has begun to use a GPU in this process; does not import it."""
    torch = sys.modules.get("torch")
    return torch is not None and bool(torch.cuda.is_initialized())
