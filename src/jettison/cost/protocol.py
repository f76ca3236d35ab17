"""How a measuring process is talked to: JSON messages, each after its length in four bytes."""

import struct
from pathlib import Path
from typing import IO, Any

import msgspec

from jettison.candidate import Candidate

_LENGTH = struct.Struct(">I")


def send_message(stream: IO[bytes], message: Any) -> None:
    """Write one message and flush it."""
    body = msgspec.json.encode(message)
    stream.write(_LENGTH.pack(len(body)) + body)
    stream.flush()


def receive_message(stream: IO[bytes]) -> Any:
    """Read one message.

    Raises:
        EOFError: The other side has gone.
    """
    (length,) = _LENGTH.unpack(_exactly(stream, _LENGTH.size))
    return msgspec.json.decode(_exactly(stream, length))


def candidate_message(candidate: Candidate) -> dict[str, Any]:
    """A candidate as a message, its place and settings with it: not every one has a manifest on disk."""
    found: dict[str, Any] = msgspec.to_builtins(candidate, enc_hook=str)
    return found


def candidate_from(message: dict[str, Any]) -> Candidate:
    """What `candidate_message` wrote."""
    return msgspec.convert(message, Candidate, dec_hook=lambda kind, text: Path(text))


def _exactly(stream: IO[bytes], n_bytes: int) -> bytes:
    found = stream.read(n_bytes)
    if len(found) < n_bytes:
        raise EOFError
    return found
