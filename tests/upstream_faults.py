"""Every fault an upstream can have, as what it says or does to one client; `FaultUpstream` plays them."""

import contextlib
import gzip
import json
import re
import socket
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any

ANSWER = "The answer is forty-two and nothing else."
WORDS = tuple(re.findall(r"\S+\s*", ANSWER))
USAGE = {"prompt_tokens": 11, "completion_tokens": 8, "total_tokens": 19}
HUGE_BYTES = 64 * 1024 * 1024
_JSON = "application/json"
_SSE = "text/event-stream"


@dataclass
class Seen:
    """One request, as it came."""

    method: str
    path: str
    headers: dict[str, str]
    """Names in lower case; of one that came twice, the last."""
    body: Any
    """Parsed JSON, or the bytes where it is none."""
    fault: str | None
    at: float = field(default_factory=time.monotonic)

    @property
    def streams(self) -> bool:
        return isinstance(self.body, dict) and bool(self.body.get("stream"))


class Client:
    """The connection a fault plays on."""

    def __init__(self, sock: socket.socket, seen: Seen, closing: threading.Event) -> None:
        self.sock, self.seen, self.closing = sock, seen, closing

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def head(
        self, status: str = "200 OK", kind: str = _JSON, *more: str, length: int | None = None
    ) -> None:
        """Status line and headers; without a length the body is chunked."""
        size = "transfer-encoding: chunked" if length is None else f"content-length: {length}"
        lines = (f"HTTP/1.1 {status}", f"content-type: {kind}", size, *more)
        self.send("\r\n".join((*lines, "", "")).encode())

    def chunk(self, data: bytes) -> None:
        """One chunk of a chunked body; an empty one ends it."""
        self.send(b"%x\r\n%s\r\n" % (len(data), data))

    def whole(self, body: bytes | Any, status: str = "200 OK", kind: str = _JSON, *more: str) -> None:
        """A reply at once."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.head(status, kind, *more, length=len(data))
        self.send(data)

    def event(self, content: Any) -> None:
        """One event of a stream."""
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.chunk(b"data: " + data + b"\n\n")

    def begin_stream(self, n_words: int = 3) -> None:
        """Headers and the first words of a stream, or half of a whole reply."""
        if self.seen.streams:
            self.head(kind=_SSE)
            for piece in pieces()[:n_words]:
                self.event(piece)
            return
        body = json.dumps(completion()).encode()
        self.head(length=len(body))
        self.send(body[: len(body) // 2])

    def hang(self, limit_s: float = 120.0) -> None:
        """Say nothing until the client goes, the server closes, or the limit."""
        self.sock.settimeout(0.05)
        until = time.monotonic() + limit_s
        while time.monotonic() < until and not self.closing.is_set():
            with contextlib.suppress(TimeoutError):
                if not self.sock.recv(65536):
                    return

    def reset(self) -> None:
        """Close with a RST instead of a FIN."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()


def completion(**more: Any) -> dict[str, Any]:
    """A healthy whole reply to a chat request."""
    choice = {"index": 0, "message": {"role": "assistant", "content": ANSWER}, "finish_reason": "stop"}
    return {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "big",
            "choices": [choice], "usage": USAGE, **more}  # fmt: skip


def pieces(*, usage: bool = False) -> list[dict[str, Any]]:
    """The chunks of a healthy stream, `[DONE]` left out."""
    deltas: list[tuple[dict[str, str], str | None]] = [({"role": "assistant", "content": ""}, None)]
    deltas += [({"content": word}, None) for word in WORDS]
    deltas.append(({}, "stop"))
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "big"}
    found = [
        {**head, "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}
        for delta, finish in deltas
    ]
    return [*found, {**head, "choices": [], "usage": USAGE}] if usage else found


def healthy(client: Client) -> None:
    """The right answer."""
    seen = client.seen
    body = seen.body if isinstance(seen.body, dict) else {}
    if seen.path.endswith("/models"):
        client.whole({"object": "list", "data": [{"id": "big", "object": "model"}]})
    elif seen.path.endswith("/embeddings"):
        client.whole({"object": "list", "model": "big", "usage": USAGE,
                      "data": [{"object": "embedding", "index": 0, "embedding": [0.1, 0.2]}]})  # fmt: skip
    elif seen.streams:
        client.head(kind=_SSE)
        for piece in pieces(usage=bool((body.get("stream_options") or {}).get("include_usage"))):
            client.event(piece)
        client.event(b"[DONE]")
        client.chunk(b"")
    elif seen.path.endswith("/chat/completions"):
        client.whole(completion())
    else:
        choice = {"index": 0, "text": ANSWER, "finish_reason": "stop", "logprobs": None}
        client.whole({**completion(), "object": "text_completion", "choices": [choice]})


def hang_before_headers(client: Client) -> None:
    """Takes the request and never says a word."""
    client.hang()


def hang_after_headers(client: Client) -> None:
    """Headers of a reply, and no body."""
    client.head(kind=_SSE if client.seen.streams else _JSON)
    client.hang()


def hang_mid_stream(client: Client) -> None:
    """Some words, then silence; the connection stays open."""
    client.begin_stream()
    client.hang()


def drip(client: Client) -> None:
    """The right reply, one byte every 20 ms: some ten seconds for all of it."""
    _dripped(client, 0.02)


def slow_headers(client: Client) -> None:
    """Headers one byte at a time and without end."""
    client.send(b"HTTP/1.1 200 OK\r\nx-slow: ")
    while not client.closing.wait(0.02):
        client.send(b"a")


def reset_before_headers(client: Client) -> None:
    """RST instead of a reply."""
    client.reset()


def close_before_headers(client: Client) -> None:
    """FIN instead of a reply, as a keep-alive connection that has timed out gives."""
    client.sock.close()


def reset_mid_stream(client: Client) -> None:
    """Some words, then RST."""
    client.begin_stream()
    time.sleep(0.05)  # else the words may be thrown away with the connection
    client.reset()


def close_mid_stream(client: Client) -> None:
    """Some words, then FIN, in the middle of a chunked body."""
    client.begin_stream()
    client.sock.close()


def no_done(client: Client) -> None:
    """A stream whose body ends well, but without a finish reason or `[DONE]`."""
    client.begin_stream()
    if client.seen.streams:
        client.chunk(b"")


def error_in_stream(client: Client) -> None:
    """Some words, then an error event, as OpenAI sends one."""
    client.begin_stream()
    client.event({"error": {"message": "The server had an error", "type": "server_error", "code": None}})
    client.chunk(b"")


def bad_event(client: Client) -> None:
    """Some words, then an event that is no JSON, then the end."""
    client.begin_stream()
    client.event(b'{"choices": [{"delta": {"content": "hal')
    client.event(b"[DONE]")
    client.chunk(b"")


def bad_utf8(client: Client) -> None:
    """Bytes that are no UTF-8, in a whole reply or an event."""
    broken = json.dumps(completion() if not client.seen.streams else pieces()[1]).encode()
    broken = broken.replace(b"The", b"Th\xff\xfe")
    if client.seen.streams:
        client.head(kind=_SSE)
        client.event(broken)
        client.event(b"[DONE]")
        client.chunk(b"")
    else:
        client.whole(broken)


def status_400(client: Client) -> None:
    """400: the request's own fault; not to be tried again."""
    _failed(client, "400 Bad Request", "invalid_request_error")


def status_401(client: Client) -> None:
    """401: a wrong key."""
    _failed(client, "401 Unauthorized", "authentication_error")


def status_429(client: Client) -> None:
    """429 with `retry-after: 1`."""
    _failed(client, "429 Too Many Requests", "rate_limit_error", "retry-after: 1")


def status_500(client: Client) -> None:
    """500 with an error body."""
    _failed(client, "500 Internal Server Error", "server_error")


def status_503(client: Client) -> None:
    """503 with a body that is plain text."""
    client.whole(b"upstream connect error or disconnect", "503 Service Unavailable", "text/plain")


def redirect(client: Client) -> None:
    """307 to a place outside."""
    client.whole(b"", "307 Temporary Redirect", "text/plain", "location: http://elsewhere.invalid/v1")


def html_with_200(client: Client) -> None:
    """200 with a page of HTML, as a captive portal or a proxy sends."""
    client.whole(b"<html><body><h1>Sign in</h1></body></html>", kind="text/html")


def html_as_json(client: Client) -> None:
    """The same page, called JSON."""
    client.whole(b"<html><body><h1>Sign in</h1></body></html>")


def empty_body(client: Client) -> None:
    """200 and nothing."""
    client.whole(b"")


def bad_json(client: Client) -> None:
    """A whole reply that breaks off, its length as announced."""
    client.whole(json.dumps(completion()).encode()[:80])


def other_json(client: Client) -> None:
    """JSON that is no reply: a list."""
    client.whole([1, 2, 3])


def no_choices(client: Client) -> None:
    """A reply without a choice."""
    client.whole(completion(choices=[]))


def null_content(client: Client) -> None:
    """A reply whose message says nothing."""
    choice = {"index": 0, "message": {"role": "assistant", "content": None}, "finish_reason": "stop"}
    client.whole(completion(choices=[choice]))


def wrong_usage(client: Client) -> None:
    """The right answer with token counts that are none."""
    wrong = {"prompt_tokens": "many", "completion_tokens": -5, "total_tokens": None}
    if not client.seen.streams:
        client.whole(completion(usage=wrong))
        return
    client.head(kind=_SSE)
    for piece in pieces(usage=True):
        client.event({**piece, "usage": wrong} if "usage" in piece else piece)
    client.event(b"[DONE]")
    client.chunk(b"")


def no_usage(client: Client) -> None:
    """The right answer without token counts."""
    client.whole({name: value for name, value in completion().items() if name != "usage"})


def gzip_garbage(client: Client) -> None:
    """Called gzip, and it is not."""
    client.whole(b"\x1f\x8b" + b"garbage" * 40, "200 OK", _JSON, "content-encoding: gzip")


def gzip_bomb(client: Client) -> None:
    """64 KiB that unpack to 64 MiB."""
    client.whole(_bomb(), "200 OK", _JSON, "content-encoding: gzip")


@cache
def _bomb() -> bytes:
    return gzip.compress(b'{"choices": "' + b" " * HUGE_BYTES + b'"}', 9)


def huge_body(client: Client) -> None:
    """64 MiB of JSON, or of one event."""
    client.head(kind=_SSE if client.seen.streams else _JSON)
    client.chunk(b'data: {"a": "' if client.seen.streams else b'{"a": "')
    block = b"x" * 65536
    for _ in range(HUGE_BYTES // len(block)):
        client.chunk(block)
    client.chunk(b'"}\n\n')
    client.chunk(b"")


def endless_stream(client: Client) -> None:
    """Words without end."""
    client.head(kind=_SSE)
    while not client.closing.is_set():
        client.event(pieces()[1])
        time.sleep(0.001)


def huge_header(client: Client) -> None:
    """A header of one mebibyte."""
    client.whole(completion(), "200 OK", _JSON, "x-huge: " + "h" * 1024 * 1024)


def short_body(client: Client) -> None:
    """Less than the content-length says, then FIN."""
    client.head(length=100_000)
    client.send(json.dumps(completion()).encode())
    client.sock.close()


def bad_chunk(client: Client) -> None:
    """A chunk whose length is no number."""
    client.head(kind=_SSE if client.seen.streams else _JSON)
    client.send(b"zz\r\nhello\r\n")


def bad_status_line(client: Client) -> None:
    """No HTTP at all."""
    client.send(b"SSH-2.0-OpenSSH_9.2\r\n")
    client.sock.close()


def two_lengths(client: Client) -> None:
    """Two content-lengths that differ, as in request smuggling."""
    client.send(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 50\r\n\r\nhello")
    client.hang(5)


def _failed(client: Client, status: str, kind: str, *more: str) -> None:
    error = {"message": f"{status}, on purpose", "type": kind, "param": None, "code": None}
    client.whole({"error": error}, status, _JSON, *more)


def _dripped(client: Client, pause_s: float) -> None:
    body = json.dumps(completion()).encode()
    if client.seen.streams:
        events = [b"data: " + json.dumps(piece).encode() + b"\n\n" for piece in pieces()]
        body = b"".join((*events, b"data: [DONE]\n\n"))
    client.head(kind=_SSE if client.seen.streams else _JSON, length=len(body))
    for at in range(len(body)):
        if client.closing.wait(pause_s):
            return
        client.send(body[at : at + 1])


REFUSE = "refuse"
_PLAYED: tuple[Callable[[Client], None], ...] = (
    hang_before_headers, hang_after_headers, hang_mid_stream, drip, slow_headers, reset_before_headers,
    close_before_headers, reset_mid_stream, close_mid_stream, no_done, error_in_stream, bad_event,
    bad_utf8, status_400, status_401, status_429, status_500, status_503, redirect, html_with_200,
    html_as_json, empty_body, bad_json, other_json, no_choices, null_content, wrong_usage, no_usage,
    gzip_garbage, gzip_bomb, huge_body, endless_stream, huge_header, short_body, bad_chunk,
    bad_status_line, two_lengths,
)  # fmt: skip
BY_NAME = {play.__name__: play for play in _PLAYED}
FAULTS: dict[str, str] = {
    REFUSE: "Nobody listens: the connection is refused.",
    **{name: (play.__doc__ or "").strip() for name, play in BY_NAME.items()},
}
