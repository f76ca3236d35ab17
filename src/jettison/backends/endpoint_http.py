"""One HTTP exchange: bounded in time and bytes, over connections that are kept alive.

The standard library's client. No redirect is followed and no proxy is used, so that a key goes to
the named host alone; certificates are verified.
"""

import contextlib
import http.client
import io
import socket
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Literal
from urllib.parse import urlsplit

import msgspec

MOST_BYTES = 32 * 2**20
"""Of one answer, that are read."""


class Timeouts(msgspec.Struct, frozen=True, kw_only=True):
    """How long one exchange may take, in seconds."""

    connect_s: float = 10.0
    first_byte_s: float = 120.0
    """From sending to the first byte of the answer."""
    total_s: float = 300.0
    """From sending to the last byte, however slowly they drip."""


class RawReply(msgspec.Struct, frozen=True, kw_only=True):
    """An answer as it came."""

    status: int
    headers: dict[str, str]
    """By name in lower case."""
    body: bytes
    """Empty where the lines went to `on_line`."""
    wire_bytes: int
    """Bodies sent and received."""


class Fault(Exception):
    """An exchange that came to nothing.

    `kind` is "away" (the server cannot be reached, or is too busy), "failed" (it got the request and
    made no answer of it), or "final" (the same, and asking again would not help).
    """

    def __init__(
        self, message: str, kind: Literal["away", "failed", "final"], *, wait_s: float | None = None
    ) -> None:
        super().__init__(message)
        self.kind = kind
        self.wait_s = wait_s
        """How long the server asks to be left alone."""


class Connections:
    """Connections to one server, used by many threads, one exchange at a time on each."""

    def __init__(self, url: str, timeouts: Timeouts) -> None:
        parts = urlsplit(url)
        self._host, self._port, self._base = parts.hostname or "", parts.port, parts.path.rstrip("/")
        self._tls = ssl.create_default_context() if parts.scheme == "https" else None
        self._timeouts = timeouts
        self._lock = threading.Lock()
        self._idle: list[http.client.HTTPConnection] = []
        self._busy: set[http.client.HTTPConnection] = set()
        self._closed = False

    def exchange(
        self,
        method: str,
        path: str,
        content: bytes | None,
        headers: Mapping[str, str],
        *,
        on_line: Callable[[bytes], None] | None = None,
    ) -> RawReply:
        """Send one request and read the answer.

        Args:
            method: GET or POST.
            path: Below the base address, as `/models`.
            content: Body of the request.
            headers: Of the request.
            on_line: Gets each line of a stream of events as it comes.

        Raises:
            Fault: There was no whole answer in time.
        """
        while True:
            connection, reused = self._take()
            try:
                response = self._send(connection, method, path, content, headers)
            except (OSError, http.client.HTTPException) as error:
                self._drop(connection)
                if reused and isinstance(error, ConnectionError):
                    continue  # the server had closed it while it lay idle
                raise Fault(_words(error), "failed") from error
            return self._receive(connection, response, len(content or b""), on_line)

    def close(self) -> None:
        """Close every connection; an exchange under way ends with a fault. May be called twice."""
        with self._lock:
            self._closed = True
            idle, busy = self._idle, list(self._busy)
            self._idle = []
        for connection in idle:
            connection.close()
        for connection in busy:
            _shut(connection)  # its own thread closes it

    def _take(self) -> tuple[http.client.HTTPConnection, bool]:
        with self._lock:
            if self._closed:
                raise Fault("it was closed here", "final")
            if self._idle:
                connection = self._idle.pop()
                self._busy.add(connection)
                return connection, True
        connection = self._connect()
        with self._lock:
            self._busy.add(connection)
        return connection, False

    def _connect(self) -> http.client.HTTPConnection:
        timeout = self._timeouts.connect_s
        connection: http.client.HTTPConnection
        if self._tls is None:
            connection = http.client.HTTPConnection(self._host, self._port, timeout=timeout)
        else:
            connection = http.client.HTTPSConnection(
                self._host, self._port, timeout=timeout, context=self._tls
            )
        try:
            connection.connect()
        except ssl.SSLCertVerificationError as error:
            connection.close()
            reason = f"its certificate is not to be trusted: {error.verify_message}"
            raise Fault(reason, "final") from error
        except OSError as error:
            connection.close()
            raise Fault(f"no connection: {_words(error)}", "away") from error
        connection.sock = _TimedSocket(connection.sock, self._timeouts)
        return connection

    def _send(
        self,
        connection: http.client.HTTPConnection,
        method: str,
        path: str,
        content: bytes | None,
        headers: Mapping[str, str],
    ) -> http.client.HTTPResponse:
        timed: Any = connection.sock
        timed.start()
        connection.request(method, f"{self._base}{path}", content, dict(headers))
        return connection.getresponse()

    def _receive(
        self,
        connection: http.client.HTTPConnection,
        response: http.client.HTTPResponse,
        n_sent: int,
        on_line: Callable[[bytes], None] | None,
    ) -> RawReply:
        try:
            streams = "text/event-stream" in (response.getheader("Content-Type") or "")
            if on_line is not None and response.status == 200 and streams:
                body, n_read = b"", _read_lines(response, on_line)
            else:
                body = _read_whole(response)
                n_read = len(body)
        except BaseException as error:  # half an answer is in it: Ctrl-C too must not leave it to the next
            self._drop(connection)
            if isinstance(error, OSError | http.client.HTTPException):
                raise Fault(_words(error), "failed") from error
            raise
        finally:
            # `http.client` takes no further request before; and one that is not kept holds its socket.
            response.close()
        self._give_back(connection, keep=not response.will_close)
        return RawReply(
            status=response.status,
            headers={name.lower(): value for name, value in response.getheaders()},
            body=body,
            wire_bytes=n_sent + n_read,
        )

    def _give_back(self, connection: http.client.HTTPConnection, *, keep: bool) -> None:
        with self._lock:
            self._busy.discard(connection)
            if keep and not self._closed:
                self._idle.append(connection)
                return
        connection.close()

    def _drop(self, connection: http.client.HTTPConnection) -> None:
        with self._lock:
            self._busy.discard(connection)
        connection.close()


class _TimedSocket:
    """What `http.client` needs of a socket, with every wait cut to what is left of the exchange's time."""

    def __init__(self, sock: socket.socket, timeouts: Timeouts) -> None:
        self._sock = sock
        self._timeouts = timeouts
        self._started_s = time.monotonic()
        self._has_answered = False

    def start(self) -> None:
        self._started_s = time.monotonic()
        self._has_answered = False

    def sendall(self, data: bytes) -> None:
        self._sock.settimeout(self._left_s())
        self._sock.sendall(data)

    def receive(self, file: Any, buffer: Any) -> int | None:
        self._sock.settimeout(self._left_s())
        n_read: int | None = file.readinto(buffer)
        self._has_answered = True
        return n_read

    def makefile(self, mode: str) -> io.BufferedReader:
        assert mode == "rb"
        return io.BufferedReader(_TimedReader(self, self._sock.makefile("rb", buffering=0)))

    def close(self) -> None:
        self._sock.close()

    def shutdown(self) -> None:
        self._sock.shutdown(socket.SHUT_RDWR)

    def _left_s(self) -> float:
        spent_s = time.monotonic() - self._started_s
        left_s = self._timeouts.total_s - spent_s
        if not self._has_answered:
            left_s = min(left_s, self._timeouts.first_byte_s - spent_s)
        if left_s <= 0:
            raise TimeoutError("timed out")
        return left_s


class _TimedReader(io.RawIOBase):
    def __init__(self, sock: _TimedSocket, file: Any) -> None:
        self._sock, self._file = sock, file

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        return self._sock.receive(self._file, buffer)

    def close(self) -> None:
        self._file.close()
        super().close()


def _read_whole(response: http.client.HTTPResponse) -> bytes:
    if (response.length or 0) > MOST_BYTES:
        raise _too_long()
    body = response.read(MOST_BYTES + 1)
    if len(body) > MOST_BYTES:
        raise _too_long()
    if response.length:
        raise Fault(f"the answer was cut off {response.length} bytes before its end", "failed")
    return body


def _read_lines(response: http.client.HTTPResponse, on_line: Callable[[bytes], None]) -> int:
    n_read = 0
    while line := response.readline(MOST_BYTES):
        n_read += len(line)
        if n_read > MOST_BYTES:
            raise _too_long()
        on_line(line)
    return n_read


def _too_long() -> Fault:
    return Fault(f"its answer is over {MOST_BYTES // 2**20} MB", "final")


def _shut(connection: http.client.HTTPConnection) -> None:
    timed: Any = connection.sock
    with contextlib.suppress(OSError, AttributeError):
        timed.shutdown()


def _words(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "it took too long"
    if isinstance(error, http.client.IncompleteRead):
        return "the answer was cut off"
    return str(error) or type(error).__name__
