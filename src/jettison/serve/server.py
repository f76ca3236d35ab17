"""Runs the application under uvicorn: one process, bounded connections, a drain with an end."""

import asyncio
import contextlib
import signal
import socket
from collections.abc import Callable
from typing import Any

from jettison.errors import InvalidInput
from jettison.registry import need
from jettison.serve.config import LimitsConfig, ServeConfig
from jettison.serve.one_write import OneWrite
from jettison.serve.tell import tell

LOOPBACK = ("127.0.0.1", "::1", "localhost")


def check_ground(config: ServeConfig) -> None:
    """Refuse to stand in the open without keys.

    Raises:
        InvalidInput: It would.
    """
    if config.host not in LOOPBACK and not config.keys and not config.is_open:
        raise InvalidInput(
            f"a gateway beyond this machine must have API keys, got host {config.host!r} and none. "
            "Make one with `jettison serve --new-key NAME`, or say `is_open = true`."
        )


def bind(host: str, port: int) -> socket.socket:
    """A listening socket; 0 takes any free port.

    Raises:
        InvalidInput: The address cannot be had.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((host, port))
        sock.listen(2048)
    except OSError as error:
        sock.close()
        raise InvalidInput(f"the gateway must have {host}:{port}, got: {error.strerror}.") from error
    sock.set_inheritable(False)
    return sock


def make_server(app: Any, config: ServeConfig, on_stop: Callable[[], None]) -> Any:
    """A uvicorn server that lingers before it stops, and drops connections that never come to ask."""
    uvicorn = need("uvicorn", "serve")

    class Server(uvicorn.Server):  # type: ignore[misc, name-defined]
        should_exit: bool

        def handle_exit(self, sig: int, frame: Any) -> None:
            # Asked twice it stops at once, as anyone at a terminal expects.
            if self.should_exit or getattr(self, "_is_leaving", False):
                self.should_exit = self.force_exit = True
                return
            self._is_leaving = True
            on_stop()
            loop = self._loop
            if config.linger_s > 0:
                loop.call_soon_threadsafe(loop.call_later, config.linger_s, self._leave)
            else:
                self.should_exit = True

        def _leave(self) -> None:
            self.should_exit = True

        async def startup(self, sockets: Any = None) -> None:
            self._loop = asyncio.get_running_loop()
            await super().startup(sockets=sockets)

        @contextlib.contextmanager
        def capture_signals(self) -> Any:
            kept = {}
            for sig in (signal.SIGINT, signal.SIGTERM):
                with contextlib.suppress(ValueError):  # in a thread, as tests run it
                    kept[sig] = signal.signal(sig, self.handle_exit)
            try:
                yield
            finally:
                for sig, handler in kept.items():
                    signal.signal(sig, handler)

    return Server(
        uvicorn.Config(
            app,
            http=_protocol(config.limits),
            ws="none",
            lifespan="off",
            loop="auto",
            log_config=None,
            log_level="warning",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=75,
            timeout_graceful_shutdown=max(1, int(config.drain_s + 0.999)),
        )
    )


def _protocol(limits: LimitsConfig) -> Any:
    """uvicorn's parser, with bounds on connections, on waiting for headers and on their length."""
    impl = need("uvicorn.protocols.http.httptools_impl", "serve")

    class Protocol(impl.HttpToolsProtocol):  # type: ignore[misc, name-defined]
        _timer: Any = None
        _is_in_head = True
        _n_head = 0

        def connection_made(self, transport: Any) -> None:
            if len(self.connections) >= limits.connections:
                transport.abort()
                return
            super().connection_made(transport)
            self._one_write = OneWrite(transport, self.loop)
            self._wait_for_head()

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop_waiting()
            if self.transport is not None:
                super().connection_lost(exc)

        def data_received(self, data: bytes) -> None:
            if self.transport is None:
                return
            super().data_received(data)
            # Headers that came in one piece, as nearly all do, need no timer.
            if self._is_in_head and self.parser is not None:
                self._n_head += len(data)
                if self._n_head > limits.header_bytes:
                    self.transport.abort()
                elif self._timer is None:
                    self._wait_for_head()

        def on_message_begin(self) -> None:
            super().on_message_begin()
            self._is_in_head, self._n_head = True, 0

        def on_headers_complete(self) -> None:
            self._is_in_head = False
            self._stop_waiting()
            super().on_headers_complete()
            self.cycle.transport = self._one_write

        def on_response_complete(self) -> None:
            self._one_write.flush()  # before anything closes the connection
            super().on_response_complete()

        def _wait_for_head(self) -> None:
            self._timer = self.loop.call_later(limits.header_s, self._too_slow)

        def _stop_waiting(self) -> None:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

        def _too_slow(self) -> None:
            self._timer = None
            if self.transport is not None:
                self.transport.abort()

    return Protocol


def announce(config: ServeConfig, port: int, facts: dict[str, Any]) -> None:
    """Say where it listens, in one line that a program can read."""
    tell("listening", host=config.host, port=port, **facts)
