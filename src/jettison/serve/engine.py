"""Models as the gateway sees them: in its own process, or in a child behind a socket that may die."""

import asyncio
import contextlib
import os
import socket
import sys
import time
from pathlib import Path
from typing import Any, Protocol

import msgspec

from jettison.candidate import Candidate
from jettison.errors import BrokenArtifact
from jettison.serve.api_error import ApiError, bad_request
from jettison.serve.config import EngineConfig
from jettison.serve.engine_child import HEAD, Asked, Hello, Told, WireAnswer, wire_output
from jettison.serve.metrics import Metrics
from jettison.serve.spending import Spending
from jettison.serve.tell import tell

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.2, 30.0
STEADY_S = 60.0
"""A child that lived so long starts anew without a growing pause."""


class Engine(Protocol):
    """What answers inputs. All of it from one event loop."""

    name: str

    async def start(self) -> None:
        """Load the model."""

    async def predict(self, inputs: list[str]) -> list[WireAnswer]:
        """One answer an input, in order."""

    async def complete(self, asks: list[Any]) -> list[WireAnswer]:
        """One completion an ask."""

    async def embed(self, inputs: list[Any]) -> list[list[float]]:
        """One vector an input."""

    @property
    def is_ready(self) -> bool:
        """Whether it would answer now."""

    @property
    def can_complete(self) -> bool:
        """Whether it takes whole chats."""

    @property
    def can_embed(self) -> bool:
        """Whether it gives vectors of texts."""

    async def close(self) -> None:
        """Give everything back."""


class InProcess:
    """A model cheap enough to run in the event loop itself."""

    can_complete = can_embed = False

    def __init__(self, candidate: Candidate) -> None:
        self.name = candidate.name
        self._candidate = candidate
        self._model: Any = None
        # It answers in the loop's own thread, where nothing else runs meanwhile.
        self._spending = Spending(cpu_s=time.thread_time)

    async def start(self) -> None:
        from jettison.backends.open import open_model

        self._model = await asyncio.to_thread(open_model, self._candidate)

    async def predict(self, inputs: list[str]) -> list[WireAnswer]:
        from jettison.backends.ask import ask

        if self._model is None:
            raise _down(self.name)
        begun = self._spending.begin()
        answers = [wire_output(output) for output in ask(self._model, inputs)]
        self._spending.end(begun, answers)
        return answers

    async def complete(self, asks: list[Any]) -> list[WireAnswer]:
        raise ApiError(400, "unsupported", f"{self.name} does not complete chats.")

    async def embed(self, inputs: list[Any]) -> list[list[float]]:
        raise ApiError(400, "unsupported", f"{self.name} makes no embeddings.")

    @property
    def is_ready(self) -> bool:
        return self._model is not None

    async def close(self) -> None:
        model, self._model = self._model, None
        if model is not None:
            model.close()


class Child:
    """A model in a process of its own: its crash is an error of the requests it had, and a new start.

    Args:
        name: For metrics and logs.
        kind: `candidate` or `embedder`.
        folder: Of the model.
        config: Batches, queue, time-outs.
        metrics: Counts starts, crashes and hangs.
    """

    def __init__(self, name: str, kind: str, folder: Path, config: EngineConfig, metrics: Metrics) -> None:
        self.name = name
        self._kind, self._folder, self._config, self._metrics = kind, folder, config, metrics
        self._asked: dict[int, tuple[asyncio.Future[Told], float, int]] = {}
        self._n_waiting = 0
        self._last_id = 0
        self._process: asyncio.subprocess.Process | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._hello: Hello | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._is_closed = False

    @property
    def is_ready(self) -> bool:
        return self._hello is not None and self._writer is not None

    @property
    def can_complete(self) -> bool:
        return self._hello is not None and self._hello.can_complete

    @property
    def can_embed(self) -> bool:
        return self._hello is not None and self._hello.can_embed

    @property
    def pid(self) -> int | None:
        """Of the child, while there is one."""
        return self._process.pid if self._process else None

    async def start(self) -> None:
        """Start the child and wait until its model is loaded.

        Raises:
            BrokenArtifact: The model does not load, or takes too long to.
        """
        try:
            reader = await self._spawn()
        except BaseException:  # cancelled while it loads: no child may outlive us; it is raised again
            await self._kill()
            raise
        self._keeper = asyncio.create_task(self._keep(reader))

    async def predict(self, inputs: list[str]) -> list[WireAnswer]:
        return (await self._ask("predict", inputs)).answers

    async def complete(self, asks: list[Any]) -> list[WireAnswer]:
        return (await self._ask("complete", asks)).answers

    async def embed(self, inputs: list[Any]) -> list[list[float]]:
        return (await self._ask("embed", inputs)).vectors

    async def close(self) -> None:
        self._is_closed = True
        if self._keeper is not None:
            self._keeper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._keeper
        await self._kill()
        self._fail_all()

    async def _ask(self, op: str, inputs: list[Any]) -> Told:
        if self._writer is None or self._hello is None:
            raise _down(self.name)
        if self._n_waiting + len(inputs) > self._config.queue:
            raise ApiError(
                503, "engine_busy", f"engine {self.name!r} has its queue full.", retry_after_s=1.0
            )
        self._last_id += 1
        number = self._last_id
        future: asyncio.Future[Told] = asyncio.get_running_loop().create_future()
        data = msgspec.msgpack.encode(Asked(number, op, inputs))
        # It stays until the child has answered, whoever waits: an asker that went away, as probes do, takes
        # nothing off the child's queue, and a hang is seen by the oldest of what is unanswered.
        self._asked[number] = (future, time.monotonic(), len(inputs))
        self._n_waiting += len(inputs)
        self._writer.write(HEAD.pack(len(data)) + data)
        told = await future
        if told.error is not None and told.is_refused:
            raise bad_request(told.error)
        if told.error is not None:
            raise ApiError(500, "engine_failed", f"engine {self.name!r}: {told.error[:300]}")
        return told

    async def _spawn(self) -> asyncio.StreamReader:
        ours, theirs = socket.socketpair()
        try:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "jettison.serve.engine_child",
                str(theirs.fileno()),
                str(self._config.max_batch),
                str(self._config.max_wait_s),
                self._kind,
                str(self._folder),
                pass_fds=(theirs.fileno(),),
                stdin=asyncio.subprocess.DEVNULL,
                # A Ctrl-C at the terminal is for the gateway, which then ends its children in order.
                start_new_session=True,
                env={**os.environ, "OMP_WAIT_POLICY": "PASSIVE"},
            )
        except BaseException:  # the socket of a child that never began; it is raised again
            ours.close()
            raise
        finally:
            theirs.close()
        ours.setblocking(False)
        reader, writer = await asyncio.open_connection(sock=ours, limit=2**22)
        try:
            hello = await self._greeted(reader)
        except BaseException:  # cancelled too: the gateway may stop while a child starts
            writer.close()
            raise
        self._hello, self._writer = hello, writer
        self._metrics.engine(self.name, "started")
        self._metrics.engine_ready.labels(self.name).set(1)
        return reader

    async def _greeted(self, reader: asyncio.StreamReader) -> Hello:
        """The child's first frame.

        Raises:
            BrokenArtifact: It ended, took too long, or could not load its model.
        """
        try:
            async with asyncio.timeout(self._config.start_s):
                data = await _frame(reader)
            hello = msgspec.msgpack.decode(data, type=Hello)
        except (TimeoutError, asyncio.IncompleteReadError, msgspec.DecodeError, OSError) as error:
            why = "took too long" if isinstance(error, TimeoutError) else "ended"
            raise BrokenArtifact(
                f"engine {self.name!r} must load {self._folder}, but {why} before it had."
            ) from error
        if hello.error is not None:
            raise BrokenArtifact(f"engine {self.name!r} must load {self._folder}: {hello.error}")
        return hello

    async def _keep(self, reader: asyncio.StreamReader) -> None:
        """Read answers; when the child dies or hangs, fail what it had and start another, more slowly."""
        pause_s = FIRST_PAUSE_S
        while True:
            born = time.monotonic()
            watch = asyncio.create_task(self._watch())
            try:
                await self._read(reader)
            finally:
                watch.cancel()
                self._hello, writer, self._writer = None, self._writer, None
                if writer is not None:
                    writer.close()
            self._metrics.engine_ready.labels(self.name).set(0)
            await self._kill()
            self._metrics.engine(self.name, "died")
            code = self._process.returncode if self._process else None
            tell("engine_died", engine=self.name, code=code, in_flight=len(self._asked))
            self._fail_all()
            if time.monotonic() - born > STEADY_S:
                pause_s = FIRST_PAUSE_S
            while True:
                await asyncio.sleep(pause_s)
                pause_s = min(LONGEST_PAUSE_S, pause_s * 2)
                try:
                    reader = await self._spawn()
                    break
                except (BrokenArtifact, OSError) as error:
                    await self._kill()
                    self._metrics.engine(self.name, "start_failed")
                    tell("engine_start_failed", engine=self.name, error=str(error), pause_s=pause_s)
            tell("engine_restarted", engine=self.name, pid=self.pid)

    async def _read(self, reader: asyncio.StreamReader) -> None:
        decoder = msgspec.msgpack.Decoder(Told)
        try:
            while True:
                told = decoder.decode(await _frame(reader))
                entry = self._asked.pop(told.id, None)
                if entry is None:
                    continue
                future, _, n_inputs = entry
                self._n_waiting -= n_inputs
                if not future.done():
                    future.set_result(told)
        except (asyncio.IncompleteReadError, msgspec.DecodeError, OSError):
            return

    async def _watch(self) -> None:
        """Kill a child that has sat on an ask for too long; the reader then sees its death."""
        while True:
            await asyncio.sleep(min(1.0, self._config.hang_s / 4))
            self._metrics.engine_queue.labels(self.name).set(self._n_waiting)
            oldest = min((asked[1] for asked in self._asked.values()), default=None)
            if oldest is not None and time.monotonic() - oldest > self._config.hang_s:
                self._metrics.engine(self.name, "hung")
                tell("engine_hung", engine=self.name, waited_s=round(time.monotonic() - oldest, 3))
                await self._kill()
                return

    async def _kill(self) -> None:
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()
        self._hello, writer, self._writer = None, self._writer, None
        if writer is not None:
            writer.close()

    def _fail_all(self) -> None:
        failed, self._asked, self._n_waiting = self._asked, {}, 0
        for future, _, _ in failed.values():
            if not future.done():
                future.set_exception(
                    ApiError(
                        503,
                        "engine_died",
                        f"engine {self.name!r} died over this request.",
                        retry_after_s=1.0,
                    )
                )


async def _frame(reader: asyncio.StreamReader) -> bytes:
    (size,) = HEAD.unpack(await reader.readexactly(HEAD.size))
    return await reader.readexactly(size)


def _down(name: str) -> ApiError:
    return ApiError(503, "engine_down", f"engine {name!r} is not running at the moment.", retry_after_s=1.0)
