"""Requests to an OpenAI-compatible server: asked again while a fault may pass, within a budget."""

import contextlib
import email.utils
import random
import threading
import time
from collections.abc import Callable
from typing import Any

import msgspec

from jettison.backends.endpoint_http import Connections, Fault, RawReply, Timeouts
from jettison.backends.endpoint_pace import Clock, Pace, SystemClock
from jettison.backends.endpoint_stream import Stream
from jettison.errors import Unanswered

BUSY = frozenset({408, 425, 429, 502, 503, 504, 529})
"""The server, or the model behind it, has no time or is away."""
FIRST_WAIT_S, LONGEST_WAIT_S = 0.5, 30.0
LEAST_BUDGET = 20
"""Retries that are always allowed, however few the requests."""


class Patience(msgspec.Struct, frozen=True, kw_only=True):
    """How a server's faults are borne."""

    max_retries: int = 6
    """Of one request that the server got and failed."""
    retry_share: float = 0.2
    """Such retries of all requests together, as a share of the requests; never under 20 in number."""
    wait_s: float = 300.0
    """How long a server that is away or busy is waited for."""


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """A whole answer."""

    body: dict[str, Any]
    latency_s: float
    """From sending to the last byte, of the try that succeeded."""
    first_token_s: float | None = None
    wire_bytes: int


class Refused(Exception):
    """The server understood the request and will not answer it; asking again would not help."""

    def __init__(self, status: int, message: str, code: str = "") -> None:
        super().__init__(f"HTTP {status}: {message}")
        self.status = status
        self.code = code


class Transport:
    """Posts JSON to one server.

    Args:
        url: Base address, as `https://host/v1`.
        key: Bearer token; None sends none. Never in a log, an error or an answer that is kept.
        timeouts: Of one exchange.
        patience: With faults.
        pace: How fast it is asked; None is as fast as can be.
        clock: For waiting.
        seed: Of the jitter in the waits.
    """

    def __init__(
        self,
        url: str,
        *,
        key: str | None = None,
        timeouts: Timeouts | None = None,
        patience: Patience | None = None,
        pace: Pace | None = None,
        clock: Clock | None = None,
        seed: int = 0,
    ) -> None:
        self.url, self._key = url, key
        self._clock = clock or SystemClock()
        self._patience = patience or Patience()
        self._pace = pace or Pace(requests_per_minute=None, tokens_per_minute=None, clock=self._clock)
        self._connections = Connections(url, timeouts or Timeouts())
        self._lock = threading.Lock()
        self._rng = random.Random(seed)
        self._n_requests = self._n_retries = 0
        self._away_since: float | None = None
        self._given_up: tuple[float, str] | None = None
        self._closed = False

    def post(
        self,
        path: str,
        body: dict[str, Any],
        *,
        check: Callable[[dict[str, Any]], None] | None = None,
        n_tokens: int = 0,
    ) -> Reply:
        """The server's answer to a request, asked again while its faults may pass.

        Args:
            path: Below the base address, as `/chat/completions`.
            body: The request.
            check: Raises `Fault` where the answer is none of the kind that was asked for.
            n_tokens: Roughly what it will use, for the rate limit.

        Raises:
            Refused: The server will not answer this request.
            Unanswered: It did not answer within the budget.
        """
        with self._lock:
            self._n_requests += 1
        n_failed, n_away, first_fault = 0, 0, None
        while True:
            self._check_open()
            self._pace.take_turn(n_tokens)
            try:
                reply = self._once("POST", path, body, check)
            except Fault as fault:
                first_fault = first_fault or self._clock.now()
                if fault.kind == "away":
                    n_away += 1
                    self._wait_out(fault, n_away, first_fault)
                else:
                    n_failed += 1
                    self._wait_after_failure(fault, n_failed)
            else:
                self._settle(n_tokens, reply)
                return reply

    def get(self, path: str) -> dict[str, Any]:
        """One GET, not asked again.

        Raises:
            Refused: The server said no.
            Unanswered: It did not answer.
        """
        try:
            return self._once("GET", path, None, None).body
        except Fault as fault:
            raise self._unanswered(fault, 1) from fault

    def end(self) -> None:
        """Ask nothing more and wake whoever waits; an exchange under way goes on to its end."""
        self._closed = True
        self._pace.stop()
        self._clock.stop()

    def close(self) -> None:
        """End, and close connections too. May be called twice."""
        self.end()
        self._connections.close()

    def _once(
        self,
        method: str,
        path: str,
        body: dict[str, Any] | None,
        check: Callable[[dict[str, Any]], None] | None,
    ) -> Reply:
        headers = {"Accept": "application/json", "User-Agent": "jettison"}
        if body is not None:
            headers["Content-Type"] = "application/json"
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        content = None if body is None else msgspec.json.encode(body)
        stream = Stream() if body is not None and body.get("stream") else None
        started_s = time.perf_counter()
        raw = self._connections.exchange(
            method, path, content, headers, on_line=None if stream is None else stream.take
        )
        latency_s = time.perf_counter() - started_s
        text = self._without_key(raw.body)
        if raw.status != 200:
            raise _objection(raw, text)
        streamed = stream is not None and stream.n_lines > 0
        found = stream.joined() if stream is not None and streamed else _object(text)
        if self._key and streamed:
            found = _object(self._without_key(msgspec.json.encode(found)))
        if "error" in found and not found.get("choices"):
            raise Fault(f"it answered with an error: {_message(found)[0]}", "failed")
        if check is not None:
            check(found)
        return Reply(
            body=found,
            latency_s=latency_s,
            first_token_s=stream.first_token_s if stream is not None and streamed else None,
            wire_bytes=raw.wire_bytes,
        )

    def _wait_out(self, fault: Fault, n_away: int, first_fault: float) -> None:
        """Wait for a server that is away, or give up when that would take too long."""
        with self._lock:
            now = self._clock.now()
            self._away_since = now if self._away_since is None else self._away_since
            spent_s = now - min(first_fault, self._away_since)
            wait_s = fault.wait_s if fault.wait_s is not None else self._backoff_s(n_away)
            patient = spent_s + wait_s <= self._patience.wait_s
            if not patient and self._away_since <= first_fault:
                self._given_up = (now + LONGEST_WAIT_S, str(fault))
        if not patient:
            raise self._unanswered(fault, n_away) from fault
        self._pace.hold(wait_s)

    def _wait_after_failure(self, fault: Fault, n_failed: int) -> None:
        """Wait before one more try, if the request and all of them together have one left."""
        with self._lock:
            budget = max(LEAST_BUDGET, self._patience.retry_share * self._n_requests)
            allowed = (
                fault.kind == "failed"
                and n_failed <= self._patience.max_retries
                and self._n_retries < budget
            )
            self._n_retries += allowed
            wait_s = fault.wait_s if fault.wait_s is not None else self._backoff_s(n_failed)
        if not allowed:
            raise self._unanswered(fault, n_failed) from fault
        self._clock.wait(wait_s)

    def _backoff_s(self, n_tried: int) -> float:
        longest = min(LONGEST_WAIT_S, FIRST_WAIT_S * 2 ** min(n_tried - 1, 10))
        return float(longest * self._rng.uniform(0.5, 1.0))

    def _check_open(self) -> None:
        """A server that was waited for in vain is tried again only now and then."""
        with self._lock:
            if self._closed:
                raise Unanswered(f"{self.url} was closed here before it answered.")
            if self._given_up is not None and self._clock.now() < self._given_up[0]:
                raise Unanswered(f"{self.url} is given up for now: {self._given_up[1]}.")

    def _settle(self, n_tokens: int, reply: Reply) -> None:
        with self._lock:
            self._away_since = self._given_up = None
        usage = reply.body.get("usage")
        used = usage.get("total_tokens") if isinstance(usage, dict) else None
        if isinstance(used, int):
            self._pace.settle(expected_tokens=n_tokens, used_tokens=max(0, min(used, 10_000_000)))

    def _unanswered(self, fault: Fault, n_tries: int) -> Unanswered:
        tries = "1 try" if n_tries == 1 else f"{n_tries} tries"
        return Unanswered(f"{self.url} did not answer after {tries}: {fault}.")

    def _without_key(self, text: bytes) -> bytes:
        return text.replace(self._key.encode(), b"***") if self._key else text


def _object(text: bytes) -> dict[str, Any]:
    try:
        return msgspec.json.decode(text, type=dict[str, Any])
    except (msgspec.DecodeError, RecursionError) as error:
        raise Fault(f"its answer is no JSON object ({len(text)} bytes)", "failed") from error


def _objection(raw: RawReply, text: bytes) -> Exception:
    """What an answer other than 200 means."""
    try:
        message, code = _message(msgspec.json.decode(text, type=dict[str, Any]))
    except (msgspec.DecodeError, RecursionError):
        message, code = text[:200].decode("utf-8", "replace").strip(), ""
    message = message[:300] or "no reason given"
    if raw.status == 429 and code == "insufficient_quota":
        return Refused(402, message, code)
    if raw.status in BUSY:
        return Fault(f"HTTP {raw.status}: {message}", "away", wait_s=retry_after_s(raw.headers))
    if raw.status >= 500 or raw.status == 409:
        return Fault(f"HTTP {raw.status}: {message}", "failed", wait_s=retry_after_s(raw.headers))
    if 300 <= raw.status < 400:
        where = raw.headers.get("location", "nowhere")[:200]
        message = f"it points to {where}, which is not followed; name that address instead"
    return Refused(raw.status, message, code)


def retry_after_s(headers: dict[str, str]) -> float | None:
    """Seconds the server asks to wait: said in milliseconds, in seconds, or as a date."""
    milliseconds, given = headers.get("retry-after-ms"), headers.get("retry-after")
    for text, unit_s in ((milliseconds, 0.001), (given, 1.0)):
        with contextlib.suppress(ValueError):
            if text is not None and 0 <= (value := float(text)) < float("inf"):
                return value * unit_s
    if given is not None and (when := email.utils.parsedate_tz(given)) is not None:
        return max(0.0, email.utils.mktime_tz(when) - time.time())
    return None


def _message(body: dict[str, Any]) -> tuple[str, str]:
    """What went wrong in the server's words, and its code."""
    error = body.get("error", body)
    if not isinstance(error, dict):
        return str(error), ""
    return str(error.get("message") or error), str(error.get("code") or error.get("type") or "")
