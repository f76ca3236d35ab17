"""Requests to an OpenAI-compatible server: bounded, paced, retried within a budget, safe in threads.

The standard library's HTTP client, one connection a thread. No redirect is followed and no proxy
is used, so that a key goes to the named host alone.
"""

import contextlib
import email.utils
import http.client
import json
import random
import ssl
import threading
import time
from typing import Any
from urllib.parse import urlsplit

import msgspec

from jettison.errors import InvalidInput, Unanswered

MOST_BYTES = 32 * 2**20
"""Of one answer, that are read."""
RETRIED = (408, 409, 425, 429, 500, 502, 503, 504, 529)
LONGEST_WAIT_S = 120.0
"""A server that asks for more is waited for this long and then asked again."""


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """How patiently and how fast a server is asked."""

    connect_s: float = 10.0
    read_s: float = 120.0
    """Longest silence while an answer is awaited or read."""
    max_retries: int = 6
    """Of one request."""
    retry_share: float = 0.5
    """Retries of all requests together, as a share of them; never under 20."""
    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """A whole answer."""

    body: dict[str, Any]
    latency_s: float
    """From sending to the last byte, of the try that succeeded."""
    first_token_s: float | None = None
    wire_bytes: int


class Refused(Exception):
    """The server understood the request and will not answer it; asking again would not help."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class _Passing(Exception):
    """A fault that may pass."""

    def __init__(self, message: str, wait_s: float | None = None) -> None:
        super().__init__(message)
        self.wait_s = wait_s


class Transport:
    """Posts JSON to one server.

    Args:
        url: Base address, as `https://host/v1`.
        key: Bearer token; None sends none. Never logged, never in an error.
        limits: See `Limits`.
    """

    def __init__(self, url: str, key: str | None, limits: Limits) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise InvalidInput(f"an endpoint must be an address as https://host/v1, got {url!r}.")
        self.url, self._parts, self._key, self._limits = url.rstrip("/"), parts, key, limits
        self._local = threading.local()
        self._lock = threading.Lock()
        self._not_before = 0.0
        self._n_requests = self._n_retries = 0
        self._rng = random.Random(0)
        self._open: list[http.client.HTTPConnection] = []
        self._closed = threading.Event()

    def post(self, path: str, body: dict[str, Any], *, n_tokens: int = 0) -> Reply:
        """The server's answer to a request, asked again while its faults may pass.

        Args:
            path: Below the base address, as `/chat/completions`.
            body: The request.
            n_tokens: Roughly what it will use, for the rate limit.

        Raises:
            Refused: The server will not answer this request (4xx).
            Unanswered: It did not answer within the retries.
        """
        with self._lock:
            self._n_requests += 1
        for attempt in range(self._limits.max_retries + 1):
            self._wait_for_turn(n_tokens)
            try:
                return self._once(path, body)
            except _Passing as fault:
                if self._closed.is_set() or attempt == self._limits.max_retries or not self._may_retry():
                    raise Unanswered(
                        f"{self.url} did not answer after {attempt + 1} tries: {fault}"
                    ) from fault
                self._hold(fault.wait_s, attempt)
        raise AssertionError("unreachable")

    def get(self, path: str) -> dict[str, Any]:
        """One GET, not retried.

        Raises:
            Refused: The server said no.
            Unanswered: It did not answer.
        """
        try:
            return self._once(path, None).body
        except _Passing as fault:
            raise Unanswered(f"{self.url} did not answer: {fault}") from fault

    def close(self) -> None:
        """Close every connection; requests under way fail and are not tried again. May be called twice."""
        self._closed.set()
        with self._lock:
            while self._open:
                self._open.pop().close()

    def _once(self, path: str, body: dict[str, Any] | None) -> Reply:
        started = time.perf_counter()
        connection = self._connection()
        try:
            return self._exchange(connection, path, body, started)
        except (http.client.HTTPException, OSError) as error:
            self._forget(connection)
            reason = type(error).__name__ if isinstance(error, TimeoutError) else f"{error}"
            raise _Passing(reason or type(error).__name__) from error

    def _exchange(
        self, connection: http.client.HTTPConnection, path: str, body: dict[str, Any] | None, started: float
    ) -> Reply:
        headers = {"Accept": "application/json", "User-Agent": "jettison"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        content = None
        if body is not None:
            headers["Content-Type"] = "application/json"
            content = json.dumps(body).encode()
        target = f"{self._parts.path.rstrip('/')}{path}"
        connection.request("GET" if body is None else "POST", target, content, headers)
        response = connection.getresponse()
        if body is not None and body.get("stream") and response.status == 200:
            return self._streamed(connection, response, started, len(content or b""))
        raw = self._read(connection, response)
        if response.status != 200:
            self._refuse(response, raw)
        try:
            found = msgspec.json.decode(raw, type=dict[str, Any])
        except msgspec.DecodeError as error:
            raise _Passing(f"its answer is no JSON object ({len(raw)} bytes)") from error
        return Reply(
            body=found,
            latency_s=time.perf_counter() - started,
            wire_bytes=len(raw) + len(content or b""),
        )

    def _read(self, connection: http.client.HTTPConnection, response: http.client.HTTPResponse) -> bytes:
        raw = response.read(MOST_BYTES + 1)
        if len(raw) > MOST_BYTES:
            self._forget(connection)
            raise Refused(response.status, f"its answer is over {MOST_BYTES // 2**20} MB")
        return raw

    def _streamed(
        self,
        connection: http.client.HTTPConnection,
        response: http.client.HTTPResponse,
        started: float,
        n_sent: int,
    ) -> Reply:
        """Server-sent events put together; one that ends without `[DONE]` was cut off."""
        first_s: float | None = None
        chunks: list[dict[str, Any]] = []
        n_bytes, done = n_sent, False
        while line := response.readline(MOST_BYTES):
            n_bytes += len(line)
            if n_bytes > MOST_BYTES:
                self._forget(connection)
                raise Refused(200, f"its answer is over {MOST_BYTES // 2**20} MB")
            if not line.startswith(b"data:"):
                continue
            data = line[5:].strip()
            if data == b"[DONE]":
                done = True
                continue
            try:
                chunk = msgspec.json.decode(data, type=dict[str, Any])
            except msgspec.DecodeError as error:
                self._forget(connection)
                raise _Passing("a chunk of its stream is no JSON") from error
            if "error" in chunk:
                self._forget(connection)
                raise _Passing(f"its stream broke off: {_message(chunk)}")
            if first_s is None and _delta(chunk):
                first_s = time.perf_counter() - started
            chunks.append(chunk)
        if not done:
            self._forget(connection)
            raise _Passing("its stream ended without [DONE]")
        return Reply(
            body=_joined(chunks),
            latency_s=time.perf_counter() - started,
            first_token_s=first_s,
            wire_bytes=n_bytes,
        )

    def _refuse(self, response: http.client.HTTPResponse, raw: bytes) -> None:
        try:
            message = _message(msgspec.json.decode(raw, type=dict[str, Any]))
        except msgspec.DecodeError:
            message = raw[:200].decode("utf-8", "replace")
        words = f"HTTP {response.status}: {self._without_key(message)[:300]}"
        if response.status in RETRIED:
            raise _Passing(words, _retry_after_s(response))
        if 300 <= response.status < 400:
            where = urlsplit(response.getheader("Location") or "").hostname
            words = f"HTTP {response.status}: it points to {where}; name that address instead"
        raise Refused(response.status, words)

    def _without_key(self, text: str) -> str:
        return text.replace(self._key, "…") if self._key else text

    def _connection(self) -> http.client.HTTPConnection:
        found: http.client.HTTPConnection | None = getattr(self._local, "connection", None)
        if found is None:
            host, port = self._parts.hostname or "", self._parts.port
            timeout = self._limits.connect_s
            if self._parts.scheme == "https":
                context = ssl.create_default_context()
                found = http.client.HTTPSConnection(host, port, timeout=timeout, context=context)
            else:
                found = http.client.HTTPConnection(host, port, timeout=timeout)
            try:
                found.connect()
            except OSError as error:
                raise _Passing(f"no connection: {error}") from error
            found.sock.settimeout(self._limits.read_s)
            with self._lock:
                if self._closed.is_set():
                    found.close()
                    raise _Passing("it was closed here")
                self._open.append(found)
            self._local.connection = found
        return found

    def _forget(self, connection: http.client.HTTPConnection) -> None:
        connection.close()
        self._local.connection = None
        with self._lock, contextlib.suppress(ValueError):
            self._open.remove(connection)

    def _may_retry(self) -> bool:
        with self._lock:
            self._n_retries += 1
            return self._n_retries <= max(20, self._limits.retry_share * self._n_requests)

    def _hold(self, asked_s: float | None, attempt: int) -> None:
        """Wait before the next try; when the server says how long, everyone waits."""
        with self._lock:
            backoff_s = min(30.0, 0.5 * 2**attempt) * self._rng.uniform(0.5, 1.0)
            wait_s = min(LONGEST_WAIT_S, asked_s) if asked_s is not None else backoff_s
            if asked_s is not None:
                self._not_before = max(self._not_before, time.monotonic() + wait_s)
        time.sleep(wait_s)

    def _wait_for_turn(self, n_tokens: int) -> None:
        """Keep to the rates: requests and tokens are spread evenly over the minute."""
        limits = self._limits
        with self._lock:
            now = time.monotonic()
            turn = max(now, self._not_before)
            gap_s = 60.0 / limits.requests_per_minute if limits.requests_per_minute else 0.0
            if limits.tokens_per_minute:
                gap_s = max(gap_s, 60.0 * n_tokens / limits.tokens_per_minute)
            if gap_s:
                self._not_before = turn + gap_s
        if turn > now:
            time.sleep(turn - now)


def _retry_after_s(response: http.client.HTTPResponse) -> float | None:
    """Seconds the server asks to wait: in milliseconds, seconds, or as a date."""
    milliseconds = response.getheader("retry-after-ms")
    given = response.getheader("retry-after")
    with contextlib.suppress(ValueError):
        if milliseconds is not None:
            return max(0.0, float(milliseconds) / 1000)
        if given is not None:
            return max(0.0, float(given))
    if given is not None and (when := email.utils.parsedate_tz(given)) is not None:
        return max(0.0, email.utils.mktime_tz(when) - time.time())
    return None


def _message(body: dict[str, Any]) -> str:
    error = body.get("error", body)
    if isinstance(error, dict):
        return str(error.get("message") or error)
    return str(error)


def _delta(chunk: dict[str, Any]) -> str:
    choices = chunk.get("choices") or [{}]
    return str((choices[0].get("delta") or {}).get("content") or choices[0].get("text") or "")


def _joined(chunks: list[dict[str, Any]]) -> dict[str, Any]:
    """A streamed answer in the shape of a whole one."""
    text = "".join(_delta(chunk) for chunk in chunks)
    finish, usage = None, None
    logprobs: list[Any] = []
    for chunk in chunks:
        choices = chunk.get("choices") or []
        if choices:
            finish = choices[0].get("finish_reason") or finish
            logprobs += ((choices[0].get("logprobs") or {}).get("content")) or []
        usage = chunk.get("usage") or usage
    choice: dict[str, Any] = {"message": {"content": text}, "text": text, "finish_reason": finish}
    if logprobs:
        choice["logprobs"] = {"content": logprobs}
    return {"choices": [choice], "usage": usage}
