"""An HTTP/1.1 client for load: a request is on the wire in the moment it is due, at 50 µs of CPU each.

No task, no lock and no timer a request: what the client needs itself would be counted as the target's.
Connections are kept alive, requests are written whole, `httptools` reads the answers. No redirect is
followed and no proxy is used. See `design/load-client.md`.
"""

import asyncio
import socket
import ssl
from collections import deque
from collections.abc import Mapping
from typing import Any, Protocol
from urllib.parse import urlsplit

from jettison.cost.tcp_info import WireCounter
from jettison.registry import need

MOST_HEAD_BYTES = 64 * 2**10
"""Of one answer's status line and headers."""
TIMED_OUT = "no whole answer in time"


class Answered(Protocol):
    """Is told what becomes of one request; called at most once with `ended` or `failed`."""

    def began(self, status: int, is_stream: bool) -> None:
        """The head of the answer is there."""

    def received(self, part: bytes) -> None:
        """More of its body. Raises ValueError, with the reason, to break the request off."""

    def ended(self) -> None:
        """All of it is there."""

    def failed(self, why: str, *, is_lost: bool) -> None:
        """It broke off; `is_lost`: because there was no connection."""


class HttpClient:
    """Sends requests to one address over as many connections as are needed at once.

    Raises:
        MissingExtra: httptools is not installed.
    """

    def __init__(
        self,
        url: str,
        headers: Mapping[str, str],
        *,
        timeout_s: float,
        wire: WireCounter,
    ) -> None:
        parts = urlsplit(url)
        self._httptools = need("httptools", "load")
        self._host = parts.hostname or ""
        self._port = parts.port or (443 if parts.scheme == "https" else 80)
        self._tls = ssl.create_default_context() if parts.scheme == "https" else None
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        fields = {"Host": parts.netloc, "Accept": "*/*", **headers}
        lines = [f"POST {target} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items())]
        self._head = "\r\n".join(lines).encode()
        self._timeout_s, self._wire = timeout_s, wire
        self.loop = asyncio.new_event_loop()
        self._idle: list[_Connection] = []
        self._all: set[_Connection] = set()
        self._under_way: deque[_Exchange] = deque()
        self._addresses: list[Any] = []
        self._timer: asyncio.TimerHandle | None = None

    def request(self, body: bytes) -> bytes:
        """A whole request, ready to be sent any number of times."""
        return b"%s\r\nContent-Length: %d\r\n\r\n%s" % (self._head, len(body), body)

    def send(self, request: bytes, asker: Answered) -> None:
        """Write a request at once, over a connection that is free or one that is opened for it."""
        exchange = _Exchange(asker, request, self.loop.time() + self._timeout_s)
        while self._under_way and self._under_way[0].is_over:
            self._under_way.popleft()
        self._under_way.append(exchange)
        if self._timer is None:
            self._timer = self.loop.call_at(exchange.deadline, self._expire)
        while self._idle:
            connection = self._idle.pop()
            if connection.is_open:
                connection.begin(exchange)
                return
        exchange.opening = self.loop.create_task(self._open_for(exchange))

    def close(self) -> None:
        """Close every connection and the loop; nothing must run in it."""
        if self._timer is not None:
            self._timer.cancel()
        self.loop.run_until_complete(self._drop_all())
        self.loop.close()

    async def _drop_all(self) -> None:
        for connection in list(self._all):
            connection.abort()
        while self._all:
            await asyncio.sleep(0)

    async def _open_for(self, exchange: "_Exchange") -> None:
        try:
            connection = await self._connect()
        except (OSError, ssl.SSLError) as error:
            exchange.fail(f"no connection: {str(error) or type(error).__name__}", is_lost=True)
            return
        connection.begin(exchange)

    async def _connect(self) -> "_Connection":
        if not self._addresses:
            kind = socket.SOCK_STREAM
            self._addresses = await self.loop.getaddrinfo(self._host, self._port, type=kind)
        problem: OSError | None = None
        for address in self._addresses:
            made = self._wire.make_socket(address)
            try:
                await self.loop.sock_connect(made, address[4])
                _, connection = await self.loop.create_connection(
                    lambda: _Connection(self),
                    sock=made,
                    ssl=self._tls,
                    server_hostname=self._host if self._tls else None,
                )
            except BaseException as error:  # a cancelled call too must not leave its socket open
                made.close()
                if not isinstance(error, OSError):
                    raise
                problem = error
            else:
                return connection
        raise problem or OSError("its name has no address")

    def _expire(self) -> None:
        """Give up what is over its time, oldest first: all have the same time."""
        now = self.loop.time()
        while self._under_way and (self._under_way[0].is_over or self._under_way[0].deadline <= now):
            self._under_way.popleft().time_out()
        left = self._under_way[0] if self._under_way else None
        self._timer = self.loop.call_at(left.deadline, self._expire) if left else None


class _Exchange:
    """One request and who waits for its answer."""

    __slots__ = ("asker", "connection", "deadline", "is_over", "opening", "request")

    def __init__(self, asker: Answered, request: bytes, deadline: float) -> None:
        self.asker, self.request, self.deadline = asker, request, deadline
        self.is_over = False
        self.connection: _Connection | None = None
        self.opening: asyncio.Task[None] | None = None

    def end(self) -> None:
        self.is_over, self.connection = True, None
        self.asker.ended()

    def fail(self, why: str, *, is_lost: bool = False) -> None:
        if not self.is_over:
            self.is_over = True
            self.asker.failed(why, is_lost=is_lost)

    def time_out(self) -> None:
        if self.is_over:
            return
        self.fail(TIMED_OUT)
        if self.connection is not None:
            self.connection.abort()
        elif self.opening is not None:
            self.opening.cancel()


class _Connection(asyncio.Protocol):
    """One connection; one request at a time. The `on_` methods are called by the parser."""

    def __init__(self, client: HttpClient) -> None:
        self._client = client
        self._parser = client._httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport | None = None
        self._exchange: _Exchange | None = None
        self._n_head = 0
        self._start_over()

    @property
    def is_open(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    def begin(self, exchange: _Exchange) -> None:
        if exchange.is_over or self._transport is None:
            self._client._idle.append(self)
            return
        self._exchange, exchange.connection = exchange, self
        self._transport.write(exchange.request)

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._client._all.add(self)

    def data_received(self, data: bytes) -> None:
        if self._exchange is None:
            self.abort()  # nothing was asked
            return
        self._n_head += 0 if self._has_head else len(data)
        tools = self._client._httptools
        try:
            self._parser.feed_data(data)
        except (tools.HttpParserError, tools.HttpParserUpgrade) as error:
            # What was raised in a callback comes wrapped.
            why = error.__context__
            self._break_off(str(why) if isinstance(why, ValueError) else "its answer is no HTTP/1.1")
        else:
            if self._is_done:
                self._end(is_kept=self._is_kept)
            elif not self._has_head and self._n_head > MOST_HEAD_BYTES:
                self._break_off(f"its headers are over {MOST_HEAD_BYTES // 2**10} kB")

    def connection_lost(self, error: Exception | None) -> None:
        self._client._all.discard(self)
        if self._exchange is None:
            return
        if self._has_head and not self._has_length and error is None:
            self._end(is_kept=False)  # a body without a length lasts until the connection ends
            return
        words = str(error) if error else "the server closed it"
        why = f"its answer broke off: {words}" if self._has_head else f"no connection: {words}"
        self._take().fail(why, is_lost=not self._has_head)

    def on_header(self, name: bytes, value: bytes) -> None:
        key = name.lower()
        if key in (b"content-length", b"transfer-encoding"):
            self._has_length = True
        elif key == b"content-type":
            self._is_stream = value.strip().lower().startswith(b"text/event-stream")

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if status >= 200 and self._exchange is not None:
            self._has_head = True
            self._exchange.asker.began(status, self._is_stream)

    def on_body(self, part: bytes) -> None:
        if self._exchange is not None:
            self._exchange.asker.received(part)

    def on_message_complete(self) -> None:
        # A 100 (continue) is followed by the answer.
        self._is_done = self._parser.get_status_code() >= 200
        self._is_kept = self._parser.should_keep_alive()  # told here alone

    def _start_over(self) -> None:
        self._is_done = self._has_head = self._has_length = self._is_stream = self._is_kept = False
        self._n_head = 0

    def _take(self) -> _Exchange:
        exchange, self._exchange = self._exchange, None
        assert exchange is not None
        exchange.connection = None
        return exchange

    def _end(self, *, is_kept: bool) -> None:
        exchange = self._take()
        self._start_over()
        if is_kept:
            self._client._idle.append(self)
        elif self._transport is not None:
            self._transport.close()
        if not exchange.is_over:
            exchange.end()

    def _break_off(self, why: str) -> None:
        exchange = self._take()
        self.abort()
        exchange.fail(why)
