"""Whether a file is a whole ONNX model, by walking its fields: no weight is read and nothing is run.

Source: the wire format of Protocol Buffers, and `onnx.proto` for the numbers of the fields.
"""

import mmap
import os
from collections.abc import Iterator
from pathlib import Path

from jettison.errors import BrokenArtifact

_GRAPH, _INITIALIZER, _EXTERNAL_DATA, _KEY, _VALUE = 7, 5, 13, 1, 2
_FIXED = {1: 8, 5: 4}
"""Wire type → bytes of values of fixed length."""

Span = tuple[int, int]


def check_onnx_file(path: Path) -> None:
    """Check that a file is an ONNX model to its end, and that its weights lie beside it.

    Raises:
        BrokenArtifact: It is empty, cut short or something else, or its weights lie elsewhere.
    """
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            graphs = _fields(content, (0, len(content)), _GRAPH)
            if not graphs:
                raise ValueError("no graph in it")
            tensors = [span for graph in graphs for span in _fields(content, graph, _INITIALIZER)]
            places = {place for tensor in tensors for place in _places(content, tensor)}
    except OSError as error:
        raise BrokenArtifact(f"{path} must be a readable file, got {error.strerror}.") from error
    except ValueError as error:  # an empty file cannot be mapped
        raise BrokenArtifact(
            f"{path} must be a whole ONNX model, got {error} in a file of {path.stat().st_size:,} bytes. "
            "Fetch it again (of a git repository, with `git lfs pull`), or export it again."
        ) from error
    for place in sorted(places):
        beside = path.parent / place
        # By its name alone: in a hub's cache each file beside it is a link to elsewhere.
        if os.path.isabs(place) or os.path.normpath(place).split(os.sep)[0] == os.pardir:
            raise BrokenArtifact(f"{path} must have its weights in its own folder, got {place!r}.")
        if not beside.is_file():
            raise BrokenArtifact(f"{path} must have its weights beside it, got no {place!r} there.")


def _places(content: mmap.mmap, tensor: Span) -> Iterator[str]:
    """Files that a tensor's numbers lie in, where they are not in the model's own."""
    for entry in _fields(content, tensor, _EXTERNAL_DATA):
        for key, value in zip(_fields(content, entry, _KEY), _fields(content, entry, _VALUE), strict=False):
            if content[slice(*key)] == b"location":
                yield content[slice(*value)].decode("utf-8")


def _fields(content: mmap.mmap, within: Span, wanted: int) -> list[Span]:
    """Where the values of one field lie in a message, which is walked to its end."""
    found = []
    at, end = within
    while at < end:
        key, at = _varint(content, at, end)
        number, wire = key >> 3, key & 7
        length = _FIXED.get(wire, 0)
        if wire == 0:
            _, at = _varint(content, at, end)
        elif wire == 2:
            length, at = _varint(content, at, end)
        elif wire not in _FIXED or not number:
            raise ValueError("other bytes")
        if at + length > end:
            raise ValueError(f"an end after {end:,} bytes instead of {at + length:,}")
        if number == wanted and wire == 2:
            found.append((at, at + length))
        at += length
    return found


def _varint(content: mmap.mmap, at: int, end: int) -> tuple[int, int]:
    """A number, and where the next thing begins."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= end:
            raise ValueError(f"an end after {end:,} bytes in the middle of a number")
        byte = content[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
    raise ValueError("other bytes")
