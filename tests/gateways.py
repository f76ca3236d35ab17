"""Real gateways and a real, faulty upstream on loopback, each in a thread of its own, for tests.

with running(config) as gateway:          # a gateway that listens
    client(gateway).chat.completions.create(...)
with Faulty() as upstream:                # an OpenAI-like server that behaves as it is told
    upstream.behave = hang_before_headers
"""

import asyncio
import contextlib
import json
import re
import sqlite3
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import openai

from jettison.record import Record
from jettison.serve.config import LogConfig, ServeConfig, UpstreamConfig
from jettison.serve.main import run
from jettison.serve.server import bind
from jettison.traffic import LIVE_FILE, Feedback

Behaviour = Callable[["Exchange"], Awaitable[None]]


class Running:
    """A gateway in a thread."""

    def __init__(self, config: ServeConfig, **given: Any) -> None:
        self._sock = bind("127.0.0.1", 0)
        self.port = self._sock.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._held: list[Any] = []
        self._error: BaseException | None = None
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._main, args=(config, given), daemon=True)
        self._thread.start()
        assert self._started.wait(60)
        if self._error is not None:
            self._sock.close()
            raise self._error

    def _main(self, config: ServeConfig, given: dict[str, Any]) -> None:
        try:
            asyncio.run(self._run(config, given))
        except BaseException as error:  # noqa: BLE001 - raised again where the test waits
            self._error = error
        finally:
            self._started.set()

    async def _run(self, config: ServeConfig, given: dict[str, Any]) -> None:
        self.loop = asyncio.get_running_loop()
        await run(
            config, self._sock, on_started=lambda port: self._started.set(), holder=self._held, **given
        )

    @property
    def gateway(self) -> Any:
        return self._held[1]

    def on_loop(self, work: Awaitable[Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(30)  # type: ignore[arg-type]

    def stop(self) -> None:
        if self._thread.is_alive() and self._held:
            self._held[0].should_exit = True
        self._thread.join(30)
        self._sock.close()
        assert not self._thread.is_alive()


@contextlib.contextmanager
def running(config: ServeConfig, **given: Any) -> Iterator[Running]:
    gateway = Running(config, **given)
    try:
        yield gateway
    finally:
        gateway.stop()


def client(gateway: Running, **given: Any) -> openai.OpenAI:
    given = {"api_key": "none", "max_retries": 0, "timeout": 20.0, **given}
    return openai.OpenAI(base_url=f"{gateway.url}/v1", **given)


def config_of(tmp_path: Path, **given: Any) -> ServeConfig:
    given = {"state": str(tmp_path / "state"), "log": LogConfig(text="keep"), "drain_s": 2.0, **given}
    return ServeConfig(**given)


IMPATIENT = {"connect_s": 0.5, "first_byte_s": 0.6, "idle_s": 0.4, "total_s": 3.0}
"""Of an upstream that hangs."""


def upstream_of(url: str, **given: Any) -> UpstreamConfig:
    """An upstream with no time-out that a busy machine reaches, unless it is `**IMPATIENT`."""
    given = {
        "connect_s": 5.0,
        "first_byte_s": 10.0,
        "idle_s": 10.0,
        "total_s": 20.0,
        "max_retries": 1,
        "breaker_failures": 50,
        **given,
    }
    return UpstreamConfig(url=url, **given)


def ask(gateway: Running, text: str, **given: Any) -> Any:
    """One chat, raw: status, headers, body."""
    body = {"model": "m", "messages": [{"role": "user", "content": text}], **given}
    return post(gateway, "/v1/chat/completions", body)


def post(gateway: Running, path: str, body: Any, headers: dict[str, str] | None = None) -> Any:
    return request(gateway.port, "POST", path, body, headers)


def request(
    port: int, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
) -> Any:
    """One exchange by hand: an object with status, headers and body."""
    import http.client

    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    raw = body if isinstance(body, bytes | None) else json.dumps(body).encode()
    try:
        connection.request(method, path, raw, {"content-type": "application/json", **(headers or {})})
        response = connection.getresponse()
        return Answered(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
    finally:
        connection.close()


class Answered:
    def __init__(self, status: int, headers: dict[str, str], raw: bytes) -> None:
        self.status, self.headers, self.raw = status, headers, raw

    @property
    def json(self) -> Any:
        return json.loads(self.raw)

    @property
    def events(self) -> list[Any]:
        """Payloads of a stream, `[DONE]` as text."""
        found = [line[6:] for line in self.raw.decode().split("\n") if line.startswith("data: ")]
        return [one if one == "[DONE]" else json.loads(one) for one in found]


def records_in(gateway: Running) -> list[Record]:
    gateway.gateway.log.flush()
    return rows_in(gateway.gateway.log.folder, "records", Record)


def feedback_in(gateway: Running) -> list[Feedback]:
    gateway.gateway.log.flush()
    return rows_in(gateway.gateway.log.folder, "feedback", Feedback)


def reloads(gateway: Running, outcome: str) -> float:
    """How many reloads came to this, as the page of metrics says."""
    page = request(gateway.port, "GET", "/metrics").raw.decode()
    counted = re.search(rf'^jettison_reloads_total\{{outcome="{outcome}"\}} (\S+)$', page, re.MULTILINE)
    return float(counted[1]) if counted else 0.0


def rows_in(folder: Path, table: str, kind: Any) -> list[Any]:
    if not (folder / LIVE_FILE).exists():  # nothing was logged yet
        return []
    db = sqlite3.connect(folder / LIVE_FILE)
    try:
        found = db.execute(f"SELECT body FROM {table} ORDER BY seq").fetchall()
    except sqlite3.OperationalError as error:
        if "no such table" in str(error):  # the file is being made
            return []
        raise
    finally:
        db.close()
    return [msgspec.json.decode(body, type=kind) for (body,) in found]


def wait_until(holds: Callable[[], Any], within_s: float = 10.0) -> None:
    deadline = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < deadline, "it never came to be"
        time.sleep(0.02)


class Exchange:
    """One request at the faulty upstream, to be answered byte by byte."""

    def __init__(self, path: str, body: Any, headers: dict[str, str], number: int, writer: Any) -> None:
        self.path, self.body, self.headers, self.number = path, body, headers, number
        self.writer = writer
        self.keeps_open = True

    async def send(self, raw: bytes) -> None:
        self.writer.write(raw)
        await self.writer.drain()

    async def reply(self, body: Any, status: int = 200, **headers: str) -> None:
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        given = {"content-type": "application/json", "content-length": str(len(raw)), **headers}
        head = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in given.items())
        await self.send(f"HTTP/1.1 {status} X\r\n{head}\r\n".encode() + raw)

    async def begin_stream(self) -> None:
        head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
        await self.send(head.encode())

    async def chunk(self, raw: bytes) -> None:
        await self.send(f"{len(raw):x}\r\n".encode() + raw + b"\r\n")

    async def event(self, value: Any) -> None:
        text = value if isinstance(value, str) else json.dumps(value)
        await self.chunk(f"data: {text}\n\n".encode())

    async def end_stream(self) -> None:
        await self.send(b"0\r\n\r\n")

    def reset(self) -> None:
        """A TCP reset, as a crashing server's kernel sends it."""
        import socket
        import struct

        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()
        self.keeps_open = False

    def close(self) -> None:
        self.keeps_open = False


class Faulty:
    """An OpenAI-like server that behaves as it is told, and counts what it is asked."""

    def __init__(self) -> None:
        self.behave: Behaviour = answers
        self.asked: list[Exchange] = []
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._main()), daemon=True)
        self._thread.start()
        assert self._ready.wait(10)
        self.url = f"http://127.0.0.1:{self.port}/v1"

    @property
    def n(self) -> int:
        return len(self.asked)

    async def _main(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        server = await asyncio.start_server(self._client, "127.0.0.1", 0, limit=2**24)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._stop.wait()
        server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            while await self._exchange(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        first, *lines = head.strip().split("\r\n")
        headers = {k.lower(): v.strip() for k, v in (line.split(":", 1) for line in lines)}
        raw = await reader.readexactly(int(headers.get("content-length", 0)))
        exchange = Exchange(
            first.split()[1], json.loads(raw) if raw else None, headers, len(self.asked) + 1, writer
        )
        self.asked.append(exchange)
        await self.behave(exchange)
        return exchange.keeps_open

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)

    def __enter__(self) -> "Faulty":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def completion(text: str, **more: Any) -> dict[str, Any]:
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    used = {"prompt_tokens": 10, "completion_tokens": 3, "total_tokens": 13}
    head = {"id": "u1", "object": "chat.completion", "created": 1, "model": "big"}
    return {**head, "choices": [choice], "usage": used, **more}


def delta(text: str | None, *, finish: str | None = None, index: int = 0) -> dict[str, Any]:
    inside = {} if text is None else {"content": text}
    choice = {"index": index, "delta": inside, "finish_reason": finish}
    return {
        "id": "u1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "big",
        "choices": [choice],
    }


async def answers(exchange: Exchange) -> None:
    """Sound: whole, or as a stream of three words."""
    if not (exchange.body or {}).get("stream"):
        await exchange.reply(completion("big answer"))
        return
    await exchange.begin_stream()
    await exchange.event(
        {**delta(None), "choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]}
    )
    for word in ("one ", "two ", "three"):
        await exchange.event(delta(word))
    await exchange.event(delta(None, finish="stop"))
    if (exchange.body.get("stream_options") or {}).get("include_usage"):
        used = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
        await exchange.event({**delta(None), "choices": [], "usage": used})
    await exchange.event("[DONE]")
    await exchange.end_stream()
