"""Reads what a GGUF file says of itself and checks that it keeps to it, before native code opens it.

Nothing is run and no weight is read: sizes and counts are held against the file's own length, so that
a damaged file is told in Python and never reaches llama.cpp.

Source: ggml, `docs/gguf.md` (layout), `ggml-common.h` (sizes of blocks).
"""

import math
import mmap
import struct
from pathlib import Path
from typing import Any

import msgspec

from jettison.errors import BrokenArtifact

MAGIC = b"GGUF"
VERSIONS = (2, 3)
ALIGNMENT = 32
"""Bytes that tensors begin at multiples of, where the file does not say."""
MAX_DIMENSIONS = 4
NO_WRITERS = ("clip", "bert", "nomic-bert", "jina-bert", "modern-bert", "neo-bert", "eurobert", "t5encoder")
"""Beginnings of the names of architectures that read and do not write."""
BLOCKS = {
    0: (1, 4),
    1: (1, 2),
    30: (1, 2),
    24: (1, 1),
    25: (1, 2),
    26: (1, 4),
    27: (1, 8),
    28: (1, 8),
    2: (32, 18),
    3: (32, 20),
    6: (32, 22),
    7: (32, 24),
    8: (32, 34),
    9: (32, 40),
    10: (256, 84),
    11: (256, 110),
    12: (256, 144),
    13: (256, 176),
    14: (256, 210),
    15: (256, 292),
    16: (256, 66),
    17: (256, 74),
    18: (256, 98),
    19: (256, 50),
    20: (32, 18),
    21: (256, 110),
    22: (256, 82),
    23: (256, 136),
    29: (256, 56),
    34: (256, 54),
    35: (256, 66),
    39: (32, 17),
}
"""Number of a tensor's format → weights in a block, bytes of a block. Newer ones are left to llama.cpp."""

_NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9


class GgufFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What a GGUF file says of itself."""

    architecture: str
    """As llama.cpp names it: `llama`, `qwen2`, …"""
    metadata: dict[str, Any]
    """Key → number, truth value or text. Lists (the tokenizer's) are left out."""
    n_tensors: int
    n_parameters: int

    @property
    def chat_template(self) -> str | None:
        """Template in the file, as text; None where it has none of its own."""
        found = self.metadata.get("tokenizer.chat_template")
        return found if isinstance(found, str) and found else None

    @property
    def n_context_tokens(self) -> int | None:
        """Longest input the model was made for; None where the file does not say."""
        found = self.metadata.get(f"{self.architecture}.context_length")
        return found if isinstance(found, int) and not isinstance(found, bool) else None


def read_gguf_facts(path: Path) -> GgufFacts:
    """Read a file's header and check it.

    Raises:
        BrokenArtifact: It is no GGUF file, of another version or byte order, its counts or tensors
            reach over its end, two tensors overlap or share a name, it is one part of several, or it
            holds no language model with a tokenizer.
    """
    if path.stat().st_size < 24:
        raise _broken(path, "a GGUF file", f"{path.stat().st_size} bytes")
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        reader = _Reader(path, content)
        n_tensors, n_keys = reader.begin()
        metadata = reader.metadata(n_keys)
        tensors = [reader.tensor() for _ in range(n_tensors)]
        _check_places(path, tensors, reader.at, len(content), metadata)
    return GgufFacts(
        architecture=_architecture(path, metadata),
        metadata=metadata,
        n_tensors=n_tensors,
        n_parameters=sum(tensor.n_weights for tensor in tensors),
    )


class _Tensor(msgspec.Struct, frozen=True):
    name: str
    n_weights: int
    n_bytes: int
    """0 for a format that is not known here."""
    offset: int


class _Reader:
    """Takes one thing after another, never past the end."""

    def __init__(self, path: Path, content: Any) -> None:
        self._path, self._content, self.at = path, content, 0

    def begin(self) -> tuple[int, int]:
        """Numbers of tensors and of keys."""
        magic = self._take(4)
        if magic != MAGIC:
            raise _broken(self._path, "a GGUF file", f"one that begins with {magic!r}")
        version = self._number("I")
        if version not in VERSIONS:
            little = int.from_bytes(int(version).to_bytes(4, "little"), "big") not in VERSIONS
            said = f"version {version}" if little else "one in big-endian byte order"
            raise _broken(self._path, "of GGUF version 2 or 3", said)
        n_tensors, n_keys = int(self._number("Q")), int(self._number("Q"))
        # The least that a tensor or a key takes: lengths and types alone.
        self._check_room(n_tensors * 24 + n_keys * 13, f"{n_tensors} tensors and {n_keys} keys")
        return n_tensors, n_keys

    def metadata(self, n_keys: int) -> dict[str, Any]:
        """Keys with their values; lists are stepped over."""
        found: dict[str, Any] = {}
        for _ in range(n_keys):
            name = self._text()
            value = self._value(int(self._number("I")), name)
            if name in found:
                raise _broken(self._path, "one with every key once", f"{name[:60]!r} twice")
            found[name] = value
        return {name: value for name, value in found.items() if value is not None}

    def tensor(self) -> _Tensor:
        """Name, size and place of the next tensor."""
        name = self._text()
        n_dimensions = int(self._number("I"))
        if not 0 < n_dimensions <= MAX_DIMENSIONS:
            raise _broken(
                self._path,
                f"one of tensors of 1 to {MAX_DIMENSIONS} dimensions",
                f"{n_dimensions} of {name[:60]!r}",
            )
        shape = [int(self._number("Q")) for _ in range(n_dimensions)]
        kind, offset = int(self._number("I")), int(self._number("Q"))
        n = math.prod(shape)
        in_block, n_bytes = BLOCKS.get(kind, (1, 0))
        if n < 1 or shape[0] % in_block:
            raise _broken(
                self._path,
                f"one whose rows are whole blocks of {in_block} weights",
                f"{shape} of {name[:60]!r}",
            )
        return _Tensor(name, n, n // in_block * n_bytes, offset)

    def _value(self, kind: int, name: str) -> Any:
        if kind == _STRING:
            return self._text()
        if kind in _NUMBERS:
            return self._number(_NUMBERS[kind])
        if kind != _ARRAY:
            raise _broken(self._path, "one with values of known types", f"type {kind} of {name[:60]!r}")
        of, n = int(self._number("I")), int(self._number("Q"))
        if of == _STRING:
            self._check_room(n * 8, f"{n} texts in {name[:60]!r}")
            for _ in range(n):
                self._skip(int(self._number("Q")))
        elif of in _NUMBERS:
            self._skip(n * struct.calcsize(_NUMBERS[of]))
        else:
            raise _broken(self._path, "one with lists of numbers or texts", f"type {of} of {name[:60]!r}")
        return None

    def _text(self) -> str:
        return bytes(self._take(int(self._number("Q")))).decode("utf-8", "replace")

    def _number(self, kind: str) -> Any:
        return struct.unpack(f"<{kind}", self._take(struct.calcsize(kind)))[0]

    def _take(self, n: int) -> bytes:
        start = self.at
        self._skip(n)
        return bytes(self._content[start : self.at])

    def _skip(self, n: int) -> None:
        self._check_room(n, f"{n} bytes at byte {self.at}")
        self.at += n

    def _check_room(self, n: int, what: str) -> None:
        if n > len(self._content) - self.at:
            raise _broken(self._path, "whole", f"{what} in a file of {len(self._content)} bytes")


def _check_places(
    path: Path, tensors: list[_Tensor], header_end: int, size: int, metadata: dict[str, Any]
) -> None:
    """Every tensor lies in the file, at a multiple of the alignment, and over no other."""
    alignment = metadata.get("general.alignment", ALIGNMENT)
    if not isinstance(alignment, int) or alignment < 1 or alignment & (alignment - 1):
        raise _broken(path, "one with an alignment that is a power of 2", repr(alignment))
    if len({tensor.name for tensor in tensors}) < len(tensors):
        raise _broken(path, "one with every tensor once", "a name twice")
    start = -(-header_end // alignment) * alignment
    end, before = 0, ""
    for tensor in sorted(tensors, key=lambda one: one.offset):
        name = tensor.name[:60]
        if tensor.offset % alignment:
            raise _broken(
                path, f"one of tensors at multiples of {alignment}", f"{tensor.offset} of {name!r}"
            )
        if tensor.offset < end:
            raise _broken(path, "one of tensors side by side", f"{name!r} over {before!r}")
        end, before = tensor.offset + tensor.n_bytes, name
        if start + end > size:
            raise _broken(
                path, "whole", f"tensor {name!r} up to byte {start + end} in a file of {size} bytes"
            )


def _architecture(path: Path, metadata: dict[str, Any]) -> str:
    parts = metadata.get("split.count", 1)
    if isinstance(parts, int) and parts > 1:
        raise _broken(
            path, "one file with all weights", f"a part of {parts}. Join them by llama-gguf-split"
        )
    found = metadata.get("general.architecture")
    if not isinstance(found, str) or not found:
        raise _broken(path, "one that names its architecture", "none")
    if found.startswith(NO_WRITERS):
        raise _broken(path, "a language model", f"architecture {found!r}, which writes no text")
    if not isinstance(metadata.get("tokenizer.ggml.model"), str):
        raise _broken(path, "one with its tokenizer inside", "none")
    return found


def _broken(path: Path, rule: str, value: str) -> BrokenArtifact:
    return BrokenArtifact(f"{path} must be {rule}, got {value}.")
