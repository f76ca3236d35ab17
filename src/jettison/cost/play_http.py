"""Plays a schedule to an address: open loop, each request sent when due, whatever became of the others.

Runs in a process of its own, so that the client's work is not the target's. Requests go to the named
address alone.
"""

import asyncio
import gc
import resource
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import msgspec

from jettison.cost.calls import Calls, Wire
from jettison.cost.http_client import HttpClient
from jettison.cost.http_target import HttpTarget, headers_of, read_answer, read_chunk, request_body
from jettison.cost.tcp_info import WireCounter, wire_between
from jettison.task import Input

MOST_BYTES = 32 * 2**20
"""Of one answer, that are read."""
SPIN_S = 0.0015
"""asyncio's timers are good to a millisecond: the rest is waited for in the loop."""
BURST = 16
"""Requests sent without a look at what has come in, when the client is behind."""
GONE_AFTER = 50
"""So many failures to connect one after another, over a second or more, mean that the target is gone."""


class HttpPlayer:
    """A client of one target, with connections that are kept alive.

    Raises:
        MissingExtra: httptools is not installed.
        InvalidInput: The key's variable is not set.
    """

    def __init__(self, target: HttpTarget, inputs: Sequence[Input]) -> None:
        self.target = target
        headers = headers_of(target)
        bodies = [request_body(target, asked) for asked in inputs]
        self._wire = WireCounter()
        self._health = _Health()
        self._client = HttpClient(target.url, headers, timeout_s=target.timeout_s, wire=self._wire)
        self._loop = self._client.loop
        self._requests = [self._client.request(body) for body in bodies]
        self._body_bytes = [len(body) for body in bodies]
        self._most_at_once = max(16, resource.getrlimit(resource.RLIMIT_NOFILE)[0] - 64)

    def play(self, rows: Sequence[int], due_s: Sequence[float], *, concurrency: int | None = None) -> Calls:
        """Send requests as they fall due.

        Args:
            rows: Which input each asks, shape (n,).
            due_s: When each is due, ascending, shape (n,).
            concurrency: The most under way at once; None is open loop, as many as it takes.

        Returns:
            One row a request; when the target has gone, only those up to then, with `stopped`.
        """
        with _no_collection():
            return self._loop.run_until_complete(self._play(rows, due_s, concurrency))

    def close(self) -> None:
        """Close connections. May be called twice."""
        if not self._loop.is_closed():
            self._client.close()

    async def _play(self, rows: Sequence[int], due_s: Sequence[float], concurrency: int | None) -> Calls:
        clock, health = time.perf_counter, self._health
        wire_before, cpu_from = self._wire.read(), time.process_time()
        open_calls = _OpenCalls(concurrency)
        started = clock()
        asked = [
            _Call(self.target, row, due, started, open_calls, health)
            for row, due in zip(rows, due_s, strict=True)
        ]
        n_sent = 0
        for call in asked:
            await _wait_until(started + call.due_s, clock)
            if concurrency is not None:
                await open_calls.room()
                call.free_s = clock() - started
            elif n_sent % BURST == 0:
                await asyncio.sleep(0)
            if health.is_gone:
                break
            n_sent += 1
            if open_calls.n >= self._most_at_once:
                call.sent_s = clock() - started
                call.fail("this machine has no more sockets")
                continue
            open_calls.n += 1
            call.payload_bytes = self._body_bytes[call.row]
            call.sent_s = clock() - started
            self._client.send(self._requests[call.row], call)
        await open_calls.all_over()
        wall_s = clock() - started
        wire = wire_between(wire_before, self._wire.read())
        cpu_s = time.process_time() - cpu_from
        return _collect(asked[:n_sent], wall_s, cpu_s, wire, health.words(n_sent, len(asked)))


class _OpenCalls:
    """How many requests are under way, and who waits for that to change."""

    def __init__(self, most: int | None) -> None:
        self.n = 0
        self._most = most
        self._waiting: asyncio.Future[None] | None = None
        self._until = 0

    def one_over(self) -> None:
        self.n -= 1
        if self._waiting is not None and self.n <= self._until and not self._waiting.done():
            self._waiting.set_result(None)

    async def room(self) -> None:
        """Wait until one more may be under way."""
        assert self._most is not None
        await self._at_most(self._most - 1)

    async def all_over(self) -> None:
        """Wait until none is."""
        await self._at_most(0)

    async def _at_most(self, n: int) -> None:
        if self.n > n:
            self._until, self._waiting = n, asyncio.get_running_loop().create_future()
            await self._waiting
            self._waiting = None


class _Call:
    """One request and what became of it: what the client tells as it comes."""

    __slots__ = (
        "_health", "_is_stream", "_last_s", "_n_read", "_open_calls", "_parts", "_rest", "_started",
        "_status", "_target", "_was_ended", "completion_tokens", "done_s", "due_s", "error", "first_s",
        "free_s", "gaps_s", "output", "payload_bytes", "prompt_tokens", "row", "sent_s",
    )  # fmt: skip

    def __init__(
        self,
        target: HttpTarget,
        row: int,
        due_s: float,
        started: float,
        open_calls: _OpenCalls,
        health: "_Health",
    ) -> None:
        self._target, self._started = target, started
        self._open_calls, self._health = open_calls, health
        self._is_stream = self._was_ended = False
        self._status = self._n_read = 0
        self._last_s = 0.0
        self._parts: list[bytes] = []
        self._rest = b""
        self.row, self.due_s, self.free_s = row, due_s, due_s
        self.sent_s = self.done_s = 0.0
        self.first_s: float | None = None
        self.gaps_s: list[float] = []
        self.error: str | None = None
        self.output: str | None = None
        self.prompt_tokens: int | None = None
        self.completion_tokens: int | None = None
        self.payload_bytes = 0

    def began(self, status: int, is_stream: bool) -> None:
        self._status, self._is_stream = status, is_stream and self._target.stream

    def received(self, part: bytes) -> None:
        self._n_read += len(part)
        if self._n_read > MOST_BYTES:
            raise ValueError(f"its answer is over {MOST_BYTES // 2**20} MB")
        if self._is_stream:
            self._read_events(part)
        else:
            self._parts.append(part)

    def ended(self) -> None:
        self.done_s = time.perf_counter() - self._started
        self.payload_bytes += self._n_read
        if self._status != 200:
            self.fail(f"HTTP {self._status}")
        elif self._is_stream:
            self.output = b"".join(self._parts).decode("utf-8", "replace")
            if not self._was_ended and self.error is None:
                self.error = "its stream was cut off"
        else:
            found = read_answer(self._target, b"".join(self._parts))
            self.output, self.error = found.text, found.error
            self.prompt_tokens, self.completion_tokens = found.prompt_tokens, found.completion_tokens
        self._health.answered()
        self._open_calls.one_over()

    def failed(self, why: str, *, is_lost: bool) -> None:
        now = time.perf_counter()
        self.done_s = now - self._started
        self.payload_bytes += self._n_read
        self.fail(why)
        if is_lost:
            self._health.lost(now, self._started)
        else:
            self._health.answered()
        self._open_calls.one_over()

    def fail(self, why: str) -> None:
        self.error, self.output = why, None
        self.done_s = self.done_s or self.sent_s

    def _read_events(self, part: bytes) -> None:
        now = time.perf_counter() - self._started
        *lines, self._rest = (self._rest + part).split(b"\n")
        for line in lines:
            text, ended = _event(line, self)
            self._was_ended = self._was_ended or ended
            if not text:
                continue
            self._parts.append(text.encode("utf-8", "replace"))
            if self.first_s is None:
                self.first_s = now
            else:
                self.gaps_s.append(now - self._last_s)
            self._last_s = now


class _Health:
    """Tells a target that has gone from one that fails now and then."""

    def __init__(self) -> None:
        self._n_lost = 0
        self._first_lost_s = 0.0
        self._into_block_s = 0.0
        self.is_gone = False

    def answered(self) -> None:
        self._n_lost = 0

    def lost(self, now_s: float, started_s: float) -> None:
        if self._n_lost == 0:
            self._first_lost_s = now_s
            self._into_block_s = now_s - started_s
        self._n_lost += 1
        if self._n_lost >= GONE_AFTER and now_s - self._first_lost_s >= 1.0:
            self.is_gone = True

    def words(self, n_sent: int, n: int) -> str | None:
        if not self.is_gone:
            return None
        return (
            f"it took no more connections {self._into_block_s:.1f} s into a block: "
            f"{n_sent:,} of the {n:,} requests of the last block had been sent."
        )


def _collect(
    asked: "list[_Call]", wall_s: float, cpu_s: float, wire: Wire | None, stopped: str | None
) -> Calls:
    return Calls(
        rows=[c.row for c in asked],
        due_s=[c.due_s for c in asked],
        sent_s=[c.sent_s for c in asked],
        late_s=[max(0.0, c.sent_s - max(c.due_s, c.free_s)) for c in asked],
        done_s=[c.done_s for c in asked],
        first_s=[c.first_s for c in asked],
        errors=[c.error for c in asked],
        outputs=[c.output for c in asked],
        prompt_tokens=[c.prompt_tokens for c in asked],
        completion_tokens=[c.completion_tokens for c in asked],
        payload_bytes=[c.payload_bytes for c in asked],
        gaps_s=[gap for c in asked for gap in c.gaps_s],
        client_cpu_s=cpu_s,
        wall_s=wall_s,
        wire=wire,
        stopped=stopped,
    )


def _event(line: bytes, call: _Call) -> tuple[str | None, bool]:
    """Text of one line of a stream, and whether it ends it."""
    if not line.startswith(b"data:"):
        return None, False
    data = line[5:].strip()
    if data == b"[DONE]":
        return None, True
    try:
        chunk = msgspec.json.decode(data)
    except (msgspec.DecodeError, RecursionError):
        call.error = "a chunk of its stream is no JSON"
        return None, True
    found = read_chunk(chunk)
    if found.error:
        call.error = "its stream broke off with an error"
        return None, True
    if found.completion_tokens is not None:
        call.prompt_tokens, call.completion_tokens = found.prompt_tokens, found.completion_tokens
    return found.text, False


async def _wait_until(moment: float, clock: Callable[[], float]) -> None:
    left = moment - clock()
    if left > SPIN_S:
        await asyncio.sleep(left - SPIN_S)
    while clock() < moment:
        await asyncio.sleep(0)


@contextmanager
def _no_collection() -> Iterator[None]:
    """Keep Python's collector from stopping the client for milliseconds in the middle of a block."""
    was_enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
