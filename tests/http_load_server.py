"""A real HTTP server on the loopback for load tests: told delays, stalls, streams, failures, death."""

import asyncio
import json
import threading
import time
from collections.abc import Callable

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: %s\r\n"
Delay = Callable[[float], float]
"""Seconds since the first request → seconds to wait with the answer."""


class LoadServer:
    """Answers every POST; one thread, many connections."""

    def __init__(
        self,
        *,
        delay: Delay = lambda _: 0.0,
        answer: bytes = b'{"label": "a"}',
        chunks: int = 0,
        gap_s: float = 0.0,
        fail_every: int = 0,
        serial: bool = False,
        die_after: int = 0,
    ) -> None:
        self.delay, self.answer, self.chunks, self.gap_s = delay, answer, chunks, gap_s
        self.fail_every, self._serial, self.die_after = fail_every, serial, die_after
        self.bodies: list[bytes] = []
        self.headers: list[bytes] = []
        self._first_s: float | None = None
        self._ready = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        self._ready.wait(5)
        self.url = f"http://127.0.0.1:{self.port}"

    def close(self) -> None:
        """Stop listening and drop every connection. May be called twice."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join(5)

    def __enter__(self) -> "LoadServer":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run(self) -> None:
        self._loop.run_until_complete(self._serve())
        self._loop.close()

    async def _serve(self) -> None:
        self._stop = asyncio.Event()
        self._turn = asyncio.Lock()
        server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._stop.wait()
        server.close()
        # All of the loop's: one that was accepted just now has not come so far as to note itself.
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                await self._one(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.transport.abort()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        fields = [line.lower() for line in head.split(b"\r\n")]
        length = next(int(field.split(b":")[1]) for field in fields if field.startswith(b"content-length"))
        self.headers.append(head)
        self.bodies.append(await reader.readexactly(length))
        now = time.perf_counter()
        self._first_s = self._first_s or now
        if self.die_after and len(self.bodies) > self.die_after:
            self._stop.set()
            return
        if self._serial:
            async with self._turn:
                await asyncio.sleep(self.delay(time.perf_counter() - self._first_s))
        elif wait_s := self.delay(now - self._first_s):
            await asyncio.sleep(wait_s)
        if self.fail_every and len(self.bodies) % self.fail_every == 0:
            writer.write(b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n")
        elif self.chunks:
            await self._stream(writer)
        else:
            writer.write(
                HEAD % b"application/json" + b"Content-Length: %d\r\n\r\n" % len(self.answer) + self.answer
            )

    async def _stream(self, writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD % b"text/event-stream" + b"Transfer-Encoding: chunked\r\n\r\n")
        for number in range(self.chunks):
            if number:
                await asyncio.sleep(self.gap_s)
            self._event(writer, {"choices": [{"delta": {"content": f"t{number} "}}]})
            await writer.drain()
        usage = {"prompt_tokens": 7, "completion_tokens": self.chunks}
        self._event(writer, {"choices": [], "usage": usage})
        writer.write(b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n")

    def _event(self, writer: asyncio.StreamWriter, body: object) -> None:
        data = b"data: " + json.dumps(body).encode() + b"\n\n"
        writer.write(b"%x\r\n%s\r\n" % (len(data), data))
