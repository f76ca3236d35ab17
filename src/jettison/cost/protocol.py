"""How a measuring process is talked to: JSON messages, each after its length in four bytes."""

import struct
from typing import IO, Any

import msgspec

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


def _exactly(stream: IO[bytes], n_bytes: int) -> bytes:
    found = stream.read(n_bytes)
    if len(found) < n_bytes:
        raise EOFError
    return found
