"""Requests in and replies out over raw ASGI: bounded, timed, and without a framework in between."""

import asyncio
import os
import random
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import msgspec

from jettison.serve.api_error import ApiError
from jettison.serve.config import LimitsConfig

Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]
JSON = (b"content-type", b"application/json")
MOST_HEADERS = 256
EVENTS = (b"content-type", b"text/event-stream; charset=utf-8")


class ClientGone(Exception):
    """Nobody is there to answer."""


# Seeded by the system once: asking it for every id would cost more than parsing the request.
_draw = random.Random(int.from_bytes(os.urandom(32))).getrandbits


def new_request_id() -> str:
    """Different for every request, and no secret; begins with the time, so that ids sort as they came."""
    return f"req_{int(time.time()):08x}{_draw(64):016x}"


def read_headers(scope: Any, limits: LimitsConfig) -> dict[bytes, bytes]:
    """Headers by lower-case name; of one that comes twice, the first.

    Raises:
        ApiError: They are too long, or say two lengths.
    """
    found: dict[bytes, bytes] = {}
    size = 0
    for name, value in scope["headers"]:
        size += len(name) + len(value)
        if name in found:
            if name in (b"authorization", b"content-length"):
                raise ApiError(
                    400, "duplicate_header", f"{name.decode()} must come once.", should_retry=False
                )
            continue
        found[name] = value
    if size > limits.header_bytes or len(scope["headers"]) > MOST_HEADERS:
        raise ApiError(431, "headers_too_long", f"headers must be at most {limits.header_bytes} bytes.")
    return found


async def read_body(receive: Receive, headers: dict[bytes, bytes], limits: LimitsConfig) -> bytes:
    """The whole body.

    Raises:
        ApiError: It is too long, or comes too slowly.
        ClientGone: The client went away.
    """
    length = headers.get(b"content-length")
    if length is not None and length.isdigit() and int(length) > limits.body_bytes:
        raise _too_long(limits)
    cycle = getattr(receive, "__self__", None)
    if cycle is not None and getattr(cycle, "more_body", True) is False:
        message = await receive()  # uvicorn has all of it already: nothing to wait for
        if message["type"] == "http.disconnect":
            raise ClientGone
    else:
        message = await _next(receive, limits.body_s)
    body: bytes = message.get("body", b"")
    if not message.get("more_body"):
        if len(body) > limits.body_bytes:
            raise _too_long(limits)
        return body
    parts, size = [body], len(body)
    deadline = time.monotonic() + limits.body_s
    while message.get("more_body"):
        message = await _next(receive, deadline - time.monotonic())
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > limits.body_bytes:
            raise _too_long(limits)
    return b"".join(parts)


async def _next(receive: Receive, within_s: float) -> Any:
    try:
        async with asyncio.timeout(max(0.0, within_s)):
            message = await receive()
    except TimeoutError as error:
        raise ApiError(408, "body_too_slow", "the body came too slowly.", should_retry=False) from error
    if message["type"] == "http.disconnect":
        raise ClientGone
    return message


def _too_long(limits: LimitsConfig) -> ApiError:
    return ApiError(
        413, "body_too_long", f"the body must be at most {limits.body_bytes} bytes.", should_retry=False
    )


async def send_body(send: Send, status: int, headers: Headers, body: bytes) -> None:
    """One whole reply."""
    length = (b"content-length", str(len(body)).encode())
    await send({"type": "http.response.start", "status": status, "headers": [*headers, length]})
    await send({"type": "http.response.body", "body": body})


async def send_json(
    send: Send, status: int, value: Any, headers: Iterable[tuple[bytes, bytes]] = ()
) -> None:
    """One whole reply of JSON."""
    await send_body(send, status, [JSON, *headers], msgspec.json.encode(value))
