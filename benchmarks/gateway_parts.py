"""What the gateway benchmarks run beside it, on loopback: an upstream, a bare pass-through, a load.

`python benchmarks/gateway_parts.py upstream|bare ...` is a process of its own; it prints its port.
"""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

TEXT = (
    "Please look at my last order: it came late, one item was missing, and nobody has called me back. " * 9
)
REQUEST = {
    "model": "mock",
    "messages": [
        {"role": "system", "content": "One of: billing, delivery."},
        {"role": "user", "content": TEXT},
    ],
    "max_tokens": 8,
    "temperature": 0,
}
ANSWER = json.dumps(
    {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "mock",
        "choices": [
            {"index": 0, "message": {"role": "assistant", "content": "delivery"}, "finish_reason": "stop"}
        ],
        "usage": {"prompt_tokens": 230, "completion_tokens": 2, "total_tokens": 232},
    }
).encode()
FRAME = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "mock"}
TASKS: set[Any] = set()
TICK_HZ = os.sysconf("SC_CLK_TCK")


class Upstream(asyncio.Protocol):
    """Answers chats at once, or as a stream of so many words at a fixed pace, or after so long."""

    words, pace_s, wait_s, slots = 50, 0.02, 0.0, 0
    free: asyncio.Semaphore | None = None

    def connection_made(self, transport: Any) -> None:
        self._transport, self._data = transport, b""

    def data_received(self, data: bytes) -> None:
        self._data += data
        while (end := self._data.find(b"\r\n\r\n")) >= 0:
            head = self._data[:end].lower()
            at = head.find(b"content-length:")
            size = int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
            if len(self._data) < end + 4 + size:
                return
            body = self._data[end + 4 : end + 4 + size]
            self._data = self._data[end + 4 + size :]
            if b'"stream":true' in body or b'"stream": true' in body:
                self._start(self._stream())
            elif self.wait_s:
                self._start(self._later())
            else:
                self._answer()

    def _start(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        TASKS.add(task)
        task.add_done_callback(TASKS.discard)

    def _answer(self) -> None:
        head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(ANSWER)}\r\n\r\n"
        self._transport.write(head.encode() + ANSWER)

    async def _later(self) -> None:
        """So many at a time, so long each: a server with a capacity."""
        if type(self).free is None:
            type(self).free = asyncio.Semaphore(self.slots)
        async with type(self).free:  # type: ignore[union-attr]
            await asyncio.sleep(self.wait_s)
        self._answer()

    async def _stream(self) -> None:
        head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
        self._transport.write(head.encode())
        for i in range(self.words):
            choice = {"index": 0, "delta": {"content": f"w{i} "}, "finish_reason": None}
            self._chunk(json.dumps({**FRAME, "choices": [choice]}))
            await asyncio.sleep(self.pace_s)
        self._chunk(json.dumps({**FRAME, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}))
        self._chunk("[DONE]")
        self._transport.write(b"0\r\n\r\n")

    def _chunk(self, text: str) -> None:
        raw = f"data: {text}\n\n".encode()
        self._transport.write(f"{len(raw):x}\r\n".encode() + raw + b"\r\n")


async def serve_upstream(words: int, pace_s: float, wait_s: float, slots: int) -> None:
    Upstream.words, Upstream.pace_s, Upstream.wait_s, Upstream.slots = words, pace_s, wait_s, slots
    server = await asyncio.get_running_loop().create_server(Upstream, "127.0.0.1", 0, backlog=2048)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.Event().wait()


def serve_bare(upstream: str) -> None:
    """The least that a proxy in Python can be: raw ASGI, aiohttp, the body parsed and written anew."""
    import aiohttp
    import msgspec
    import uvicorn

    session: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if not session:
            session.append(aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()))
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        asked = msgspec.json.decode(body)
        asked["model"] = "mock"
        async with session[0].post(
            upstream + "/chat/completions", data=msgspec.json.encode(asked)
        ) as response:
            raw = await response.read()
        msgspec.json.decode(raw)
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(raw)).encode())]
        await send({"type": "http.response.start", "status": response.status, "headers": headers})
        await send({"type": "http.response.body", "body": raw})

    import socket

    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    sock.listen(2048)
    print(sock.getsockname()[1], flush=True)
    config = uvicorn.Config(app, lifespan="off", access_log=False, log_level="warning", ws="none")
    uvicorn.Server(config).run(sockets=[sock])


@contextlib.contextmanager
def started(command: list[str], *, until: str = "", within_s: float = 120, **given: Any) -> Iterator[Any]:
    """A process with its port: the first line that is a number, or holds `until` as JSON with `port`."""
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **given
    )
    try:
        assert process.stdout is not None
        for line in process.stdout:
            if until and until in line:
                process.port = json.loads(line)["port"]  # type: ignore[attr-defined]
                break
            if not until and line.strip().isdigit():
                process.port = int(line)  # type: ignore[attr-defined]
                break
        else:
            raise SystemExit(f"{command} did not start")
        # Nobody reads what it says from here on; a full pipe would stop it.
        import threading

        threading.Thread(target=process.stdout.read, daemon=True).start()
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def part(*arguments: str) -> Any:
    """One of the parts of this file as a process."""
    return started([sys.executable, str(Path(__file__).resolve()), *arguments])


def family(pid: int) -> list[int]:
    """A process and all its descendants."""
    found, queue = [], [pid]
    while queue:
        one = queue.pop()
        found.append(one)
        for path in Path(f"/proc/{one}/task").glob("*/children"):
            with contextlib.suppress(OSError):
                queue += [int(child) for child in path.read_text().split()]
    return found


def cpu_s(pid: int) -> float:
    """User and system time that a family has spent so far."""
    total = 0.0
    for one in family(pid):
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{one}/stat").read_text().rsplit(")", 1)[1].split()
            total += (int(fields[11]) + int(fields[12])) / TICK_HZ
    return total


def rss_mb(pid: int) -> float:
    """Resident memory of a family."""
    total = 0
    for one in family(pid):
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{one}/status").read_text().splitlines():
                if line.startswith("VmRSS:"):
                    total += int(line.split()[1])
    return total / 1024


async def ask_many(
    port: int, n: int, *, concurrency: int, path: str, headers: dict[str, str], body: Any = REQUEST
) -> list[tuple[int, float]]:
    """Status and seconds of each of n requests over kept connections, closed loop."""
    raw = json.dumps(body).encode()
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    message = (
        f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n{lines}"
        f"content-length: {len(raw)}\r\n\r\n"
    ).encode() + raw
    left = [n]
    found: list[tuple[int, float]] = []

    async def one() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while left[0] > 0:
            left[0] -= 1
            began = time.perf_counter()
            writer.write(message)
            status, _ = await read_reply(reader)
            found.append((status, time.perf_counter() - began))
        writer.close()

    await asyncio.gather(*(one() for _ in range(concurrency)))
    return found


async def post_all(port: int, path: str, bodies: Sequence[bytes], *, concurrency: int) -> list[int]:
    """Status of each body posted over kept connections, closed loop."""
    left = iter(bodies)
    found: list[int] = []

    async def one() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**22)
        for body in left:
            writer.write(_message(path, body))
            status, _ = await read_reply(reader)
            found.append(status)
        writer.close()

    await asyncio.gather(*(one() for _ in range(concurrency)))
    return found


TICK_S = 0.002
LOST = 0
"""Status of a request whose connection broke, or that had no answer within a minute of the last."""


class _Line(asyncio.Protocol):
    """One kept connection of an open-loop load: one request at a time, its status and how long it took."""

    def __init__(self, free: "list[_Line]", found: list[tuple[int, float]]) -> None:
        self._free, self._found = free, found
        self._due = 0.0
        self._is_busy, self._data = False, b""
        self.is_open = True

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def ask(self, message: bytes, due: float) -> None:
        self._due, self._is_busy, self._data = due, True, b""
        self._transport.write(message)

    def data_received(self, data: bytes) -> None:
        self._data += data
        end = self._data.find(b"\r\n\r\n")
        if end < 0:
            return
        head = self._data[:end].lower()
        size = int(head[head.find(b"content-length:") + 15 :].split(b"\r\n", 1)[0])
        if len(self._data) < end + 4 + size:
            return
        self._is_busy = False
        self._found.append((int(head[9:12]), time.perf_counter() - self._due))
        if b"connection: close" in head:
            self.is_open = False
            self._transport.close()
        else:
            self._free.append(self)

    def connection_lost(self, error: Exception | None) -> None:
        self.is_open = False
        if self._is_busy:
            self._found.append((LOST, time.perf_counter() - self._due))

    def close(self) -> None:
        self._is_busy, self.is_open = False, False
        self._transport.close()


async def offer(
    port: int, path: str, bodies: Sequence[bytes], due_s: Sequence[float]
) -> tuple[list[tuple[int, float]], float]:
    """Post each body when it is due, whatever became of the others.

    Returns:
        Status of each and seconds from its due time to its whole answer; seconds until the last.
    """
    loop = asyncio.get_running_loop()
    free: list[_Line] = []
    lines: list[_Line] = []
    found: list[tuple[int, float]] = []
    messages = [_message(path, body) for body in bodies]
    began, number = time.perf_counter(), 0
    while number < len(messages):
        now = time.perf_counter() - began
        while number < len(messages) and due_s[number] <= now:
            while free and not free[-1].is_open:
                free.pop()
            if free:
                line = free.pop()
            else:
                _, line = await loop.create_connection(lambda: _Line(free, found), "127.0.0.1", port)
                lines.append(line)
            line.ask(messages[number], began + due_s[number])
            number += 1
        await asyncio.sleep(TICK_S)
    last = time.perf_counter()
    while len(found) < len(messages) and time.perf_counter() - last < 60:
        await asyncio.sleep(TICK_S)
    wall_s = time.perf_counter() - began
    found += [(LOST, 60.0)] * (len(messages) - len(found))
    for line in lines:
        line.close()
    return found, wall_s


def _message(path: str, body: bytes) -> bytes:
    head = f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
    return f"{head}content-length: {len(body)}\r\n\r\n".encode() + body


async def read_reply(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """One whole reply, of a length or in chunks."""
    head = await reader.readuntil(b"\r\n\r\n")
    status = int(head[9:12])
    lower = head.lower()
    at = lower.find(b"content-length:")
    if at >= 0:
        return status, await reader.readexactly(int(lower[at + 15 :].split(b"\r\n", 1)[0]))
    parts = []
    while True:
        size = int(await reader.readline(), 16)
        part = await reader.readexactly(size + 2)
        if size == 0:
            return status, b"".join(parts)
        parts.append(part[:-2])


def figure(name: str, value: float, low: float | None, high: float | None, unit: str, against: str) -> None:
    """One JSON object a line, as all benchmarks here print them."""
    told = {"name": name, "value": value, "low": low, "high": high, "unit": unit, "against": against}
    print(json.dumps(told), flush=True)


if __name__ == "__main__":
    kind, *rest = sys.argv[1:]
    if kind == "bare":
        serve_bare(rest[0])
    else:
        words, pace_s, wait_s, slots = (float(one) for one in rest)
        with contextlib.suppress(ImportError, KeyboardInterrupt):
            import uvloop

            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(serve_upstream(int(words), pace_s, wait_s, int(slots)))
