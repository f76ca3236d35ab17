"""Server-sent events: cut into whole frames, looked into just enough to log and to guard."""

from typing import Any

import msgspec

from jettison.serve.api_error import ApiError

MOST_FRAME_BYTES = 4 * 2**20
DONE = b"[DONE]"


class Frames:
    """Cuts bytes into events; a frame may come in any number of pieces."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[bytes]:
        """Whole frames, each with its blank line; comments and empty ones are left out.

        Raises:
            ApiError: One frame is beyond all bounds.
        """
        buffer = self._rest + data
        if b"\r" in buffer:
            buffer = buffer.replace(b"\r\n", b"\n")
        *whole, self._rest = buffer.split(b"\n\n")
        if len(self._rest) > MOST_FRAME_BYTES:
            raise ApiError(502, "bad_upstream_reply", "the upstream sent an event beyond all bounds.")
        return [frame + b"\n\n" for one in whole if (frame := _without_comments(one))]

    def rest(self) -> bytes:
        """What was left without an end."""
        return self._rest.strip()


def _without_comments(frame: bytes) -> bytes:
    """The frame without its comments; data may follow one at once, without a blank line between."""
    if not frame.startswith(b":") and b"\n:" not in frame:
        return frame
    return b"\n".join(line for line in frame.split(b"\n") if not line.startswith(b":"))


class Delta(msgspec.Struct, frozen=True):
    """`choices[].delta`."""

    content: str | None = None
    refusal: str | None = None
    tool_calls: Any = None
    reasoning_content: str | None = None


class ChunkChoice(msgspec.Struct, frozen=True):
    """One choice of a chunk, of chats or of completions."""

    index: int = 0
    delta: Delta | None = None
    text: str | None = None
    finish_reason: str | None = None


class Chunk(msgspec.Struct, frozen=True):
    """What is read of a chunk."""

    choices: list[ChunkChoice] = []
    usage: Any = None
    error: Any = None


_decode = msgspec.json.Decoder(Chunk).decode


def data_of(frame: bytes) -> bytes:
    """Payload of a frame; of several `data:` lines, their lines."""
    if frame.startswith(b"data: ") and frame.count(b"\n") == 2:
        return frame[6:-2]
    lines = [line[5:].removeprefix(b" ") for line in frame.split(b"\n") if line.startswith(b"data:")]
    return b"\n".join(lines)


def read_chunk(data: bytes) -> Chunk | None:
    """A chunk; None where the payload is no JSON of that shape."""
    try:
        return _decode(data)
    except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError, RecursionError):
        return None


def is_garbled(data: bytes) -> bool:
    """Whether a payload is no JSON that can be read: spoilt on the way. One that is empty is not."""
    if not data:
        return False
    try:
        msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return True
    return False


def has_content(chunk: Chunk) -> bool:
    """Whether the client would have something of the answer in hand after this chunk."""
    for choice in chunk.choices:
        delta = choice.delta
        if choice.text or choice.finish_reason is not None:
            return True
        if delta and (delta.content or delta.refusal or delta.tool_calls or delta.reasoning_content):
            return True
    return False


def text_in(chunk: Chunk) -> str:
    """Text that the chunk adds to the first choice."""
    for choice in chunk.choices:
        if choice.index == 0:
            return (choice.delta.content if choice.delta else choice.text) or ""
    return ""
