"""Plays a schedule to an address: open loop, each request sent when due, whatever became of the others.

Runs in a process of its own, so that the client's work is not the target's. No redirect is followed
and no proxy is used: requests go to the named address alone.
"""

import asyncio
import contextlib
import resource
import time
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from jettison.cost.calls import Calls, Wire
from jettison.cost.http_target import HttpTarget, headers_of, read_answer, read_chunk, request_body
from jettison.cost.tcp_info import WireCounter, wire_between
from jettison.errors import MissingExtra
from jettison.task import Input

MOST_BYTES = 32 * 2**20
"""Of one answer, that are read."""
SPIN_S = 0.0015
"""asyncio's timers are good to a millisecond: the rest is waited for in the loop."""
GONE_AFTER = 50
"""So many failures to connect one after another, over a second or more, mean that the target is gone."""


class HttpPlayer:
    """A client of one target, with connections that are kept alive.

    Raises:
        MissingExtra: aiohttp is not installed.
        InvalidInput: The key's variable is not set.
    """

    def __init__(self, target: HttpTarget, inputs: Sequence[Input]) -> None:
        self.target = target
        self._headers = headers_of(target)
        self._bodies = [request_body(target, asked) for asked in inputs]
        self._aiohttp = _aiohttp()
        self._loop = asyncio.new_event_loop()
        self._wire = WireCounter()
        self._health = _Health()
        self._most_at_once = max(16, resource.getrlimit(resource.RLIMIT_NOFILE)[0] - 64)
        self._session: Any = self._loop.run_until_complete(self._open())

    def play(self, rows: Sequence[int], due_s: Sequence[float], *, concurrency: int | None = None) -> Calls:
        """Send requests as they fall due.

        Args:
            rows: Which input each asks, shape (n,).
            due_s: When each is due, ascending, shape (n,).
            concurrency: The most under way at once; None is open loop, as many as it takes.

        Returns:
            One row a request; when the target has gone, only those up to then, with `stopped`.
        """
        return self._loop.run_until_complete(self._play(rows, due_s, concurrency))

    def close(self) -> None:
        """Close connections. May be called twice."""
        if not self._loop.is_closed():
            self._loop.run_until_complete(self._session.close())
            self._loop.close()

    async def _open(self) -> Any:
        connector = self._aiohttp.TCPConnector(limit=0, socket_factory=self._wire.make_socket)
        return self._aiohttp.ClientSession(
            connector=connector,
            timeout=self._aiohttp.ClientTimeout(total=self.target.timeout_s),
            cookie_jar=self._aiohttp.DummyCookieJar(),
            skip_auto_headers=("User-Agent",),
            trust_env=False,
        )

    async def _play(self, rows: Sequence[int], due_s: Sequence[float], concurrency: int | None) -> Calls:
        asked = [_Call(row, due) for row, due in zip(rows, due_s, strict=True)]
        wire_before, cpu_from, clock = self._wire.read(), time.process_time(), time.perf_counter
        gate = None if concurrency is None else asyncio.Semaphore(concurrency)
        health = self._health
        started = clock()
        running: set[asyncio.Task[None]] = set()
        n_sent = 0
        for call in asked:
            await _wait_until(started + call.due_s, clock)
            if gate is not None:
                await gate.acquire()
                call.free_s = clock() - started
            if health.is_gone:
                break
            n_sent += 1
            if len(running) >= self._most_at_once:
                call.fail("this machine has no more sockets", clock() - started)
                continue
            task = self._loop.create_task(self._ask(call, started, health))
            running.add(task)
            task.add_done_callback(running.discard)
            if gate is not None:
                task.add_done_callback(_opener(gate))
        if running:
            await asyncio.wait(running)
        wall_s = clock() - started
        wire = wire_between(wire_before, self._wire.read())
        cpu_s = time.process_time() - cpu_from
        return _collect(asked[:n_sent], wall_s, cpu_s, wire, health.words(n_sent, len(asked)))

    async def _ask(self, call: "_Call", started: float, health: "_Health") -> None:
        clock = time.perf_counter
        call.sent_s = clock() - started
        body = self._bodies[call.row]
        call.payload_bytes = len(body)
        errors = self._aiohttp
        try:
            async with self._session.post(
                self.target.url, data=body, headers=self._headers, allow_redirects=False
            ) as response:
                if self.target.stream and "text/event-stream" in response.headers.get("Content-Type", ""):
                    await self._read_stream(response, call, started)
                else:
                    await self._read_whole(response, call)
            call.done_s = clock() - started
            if response.status != 200:
                call.fail(f"HTTP {response.status}", call.done_s)
            health.answered()
        except TimeoutError:
            call.fail("no whole answer in time", clock() - started)
            health.answered()
        except errors.ClientConnectionError as error:
            call.fail(f"no connection: {_words(error)}", clock() - started)
            health.lost(clock(), started)
        except (errors.ClientError, OSError, ValueError) as error:
            call.fail(_words(error), clock() - started)

    async def _read_whole(self, response: Any, call: "_Call") -> None:
        parts = []
        n_read = 0
        async for part in response.content.iter_any():
            n_read += len(part)
            if n_read > MOST_BYTES:
                raise ValueError(f"its answer is over {MOST_BYTES // 2**20} MB")
            parts.append(part)
        call.payload_bytes += n_read
        if response.status == 200:
            found = read_answer(self.target, b"".join(parts))
            call.output, call.error = found.text, found.error
            call.prompt_tokens, call.completion_tokens = found.prompt_tokens, found.completion_tokens

    async def _read_stream(self, response: Any, call: "_Call", started: float) -> None:
        clock, rest, texts, has_ended = time.perf_counter, b"", [], False
        n_read, last_s = 0, 0.0
        async for part in response.content.iter_any():
            now = clock() - started
            n_read += len(part)
            if n_read > MOST_BYTES:
                raise ValueError(f"its answer is over {MOST_BYTES // 2**20} MB")
            *lines, rest = (rest + part).split(b"\n")
            for line in lines:
                text, ended = _event(line, call)
                has_ended = has_ended or ended
                if not text:
                    continue
                texts.append(text)
                if call.first_s is None:
                    call.first_s = now
                else:
                    call.gaps_s.append(now - last_s)
                last_s = now
        call.payload_bytes += n_read
        call.output = "".join(texts)
        if not has_ended and call.error is None:
            call.error = "its stream was cut off"


class _Call:
    """One request and what became of it."""

    __slots__ = (
        "completion_tokens", "done_s", "due_s", "error", "first_s", "free_s", "gaps_s", "output",
        "payload_bytes", "prompt_tokens", "row", "sent_s",
    )  # fmt: skip

    def __init__(self, row: int, due_s: float) -> None:
        self.row, self.due_s, self.free_s = row, due_s, due_s
        self.sent_s = self.done_s = 0.0
        self.first_s: float | None = None
        self.gaps_s: list[float] = []
        self.error: str | None = None
        self.output: str | None = None
        self.prompt_tokens: int | None = None
        self.completion_tokens: int | None = None
        self.payload_bytes = 0

    def fail(self, why: str, now_s: float) -> None:
        self.error, self.output, self.done_s = why, None, now_s
        self.sent_s = self.sent_s or now_s


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


def _opener(gate: asyncio.Semaphore) -> Callable[[object], None]:
    return lambda _: gate.release()


async def _wait_until(moment: float, clock: Callable[[], float]) -> None:
    left = moment - clock()
    if left > SPIN_S:
        await asyncio.sleep(left - SPIN_S)
    while clock() < moment:
        await asyncio.sleep(0)


def _aiohttp() -> Any:
    with contextlib.suppress(ImportError):
        import aiohttp

        return aiohttp
    raise MissingExtra("`aiohttp` is not installed; it comes with `pip install 'jettison[load]'`.")


def _words(error: BaseException) -> str:
    return str(error) or type(error).__name__
