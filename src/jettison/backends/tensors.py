"""Reads a safetensors file without copying it: arrays are windows on the mapped file."""

import json
from pathlib import Path

import numpy as np

from jettison.errors import BrokenArtifact

_DTYPES = {
    "F32": np.float32,
    "F16": np.float16,
    "I8": np.int8,
    "U8": np.uint8,
    "I32": np.int32,
    "U32": np.uint32,
    "I64": np.int64,
}


def map_tensors(path: Path, *names: str) -> dict[str, np.ndarray]:
    """Arrays of a safetensors file by name, read-only, loaded page by page as they are touched.

    Args:
        path: The file.
        names: Arrays that must be in it.

    Raises:
        BrokenArtifact: The file is missing, cut short or not safetensors, or lacks a name.

    Source: the safetensors format: 8 bytes of header length, a JSON header, raw row-major data.
    """
    try:
        raw = np.memmap(path, np.uint8, mode="r").view(np.ndarray)
        start = 8 + int.from_bytes(raw[:8].tobytes(), "little")
        header = json.loads(raw[8:start].tobytes())
        found = {
            name: _window(raw[start:], entry) for name, entry in header.items() if name != "__metadata__"
        }
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BrokenArtifact(f"{path} must be a whole safetensors file: {error}.") from error
    for name in names:
        if name not in found:
            raise BrokenArtifact(f"{path} must hold the array {name!r}, got {sorted(found)}.")
    return found


def _window(data: np.ndarray, entry: dict[str, list[int] | str]) -> np.ndarray:
    begin, end = (int(offset) for offset in entry["data_offsets"])
    if end > len(data):
        raise ValueError(f"it ends {end - len(data)} bytes too early")
    window: np.ndarray = data[begin:end].view(_DTYPES[str(entry["dtype"])])
    return window.reshape([int(size) for size in entry["shape"]])
