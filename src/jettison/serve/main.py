"""The life of a gateway: start, serve, reload on SIGHUP, drain on SIGTERM, stop."""

import asyncio
import contextlib
import gc
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jettison.serve.app import App
from jettison.serve.config import ServeConfig
from jettison.serve.gateway import Gateway
from jettison.serve.server import announce, bind, check_ground, make_server
from jettison.serve.tell import tell


def serve(
    config: ServeConfig,
    *,
    read_again: Callable[[], ServeConfig] | None = None,
    watched: tuple[Path, ...] = (),
    on_started: Callable[[int], None] | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT, and then until what is under way has been answered.

    Args:
        config: Checked.
        read_again: Gives the configuration anew for a reload.
        watched: Files whose change asks for one.
        on_started: Told the port once requests are taken.

    Raises:
        JettisonError: It cannot start.
    """
    check_ground(config)
    sock = bind(config.host, config.port)
    try:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            # What is loaded by now stays: the collector need not look at it again and again.
            gc.collect()
            gc.freeze()
            gc.set_threshold(20_000, 20, 20)
            runner.run(run(config, sock, read_again=read_again, watched=watched, on_started=on_started))
    finally:
        sock.close()


async def run(
    config: ServeConfig,
    sock: socket.socket,
    *,
    read_again: Callable[[], ServeConfig] | None = None,
    watched: tuple[Path, ...] = (),
    on_started: Callable[[int], None] | None = None,
    holder: list[Any] | None = None,
) -> None:
    """The same on a loop and a socket that are there already; `holder` gets the server and the gateway."""
    gateway = Gateway(config, read_again=read_again, watched=watched)
    await gateway.start()

    def stop() -> None:
        gateway.is_draining = True
        tell("draining", in_flight=gateway.n_open)

    server = make_server(App(gateway), config, stop)
    if holder is not None:
        holder += [server, gateway]
    loop = asyncio.get_running_loop()
    tasks: set[asyncio.Task[Any]] = set()

    def reload() -> None:
        task = loop.create_task(gateway.reload())
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    with contextlib.suppress(ValueError, RuntimeError, NotImplementedError):
        loop.add_signal_handler(signal.SIGHUP, reload)
    port = sock.getsockname()[1]
    facts = {
        "model": gateway.model_name,
        "release": gateway.release_digest[:12] or None,
        "unproven": sorted({d for one in gateway.plan.proven.values() for d in one.doubts}),
        "keys": len(config.keys),
        "guardrails": sorted(gateway.plan.guardrails),
        "weights": gateway.plan.weights,
    }
    announce(config, port, facts)
    if on_started is not None:
        loop.call_later(0.05, on_started, port)
    try:
        await server.serve(sockets=[sock])
    finally:
        await gateway.close()
        tell("stopped")


def _loop_factory() -> Any:
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop
