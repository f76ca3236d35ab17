"""The process behind the gateway's `/ui`: reads the log, makes pages, and hands them over a Unix socket.

Apart from the gateway, so that a page never takes time from an answer: it is nice, reads the log while
somebody looks, and ends when the gateway does or nobody has looked for a while. A request is one line of
JSON, `{"path", "query"}`; a reply one line of JSON, `{"status", "type", "length"}`, and so many bytes.
"""

import contextlib
import os
import socketserver
import sys
import threading
import time
from pathlib import Path

import msgspec

from jettison.monitor.dashboard.board import Board
from jettison.monitor.dashboard.pages import Pages, Places

NICENESS = 10
IDLE_S = 900.0
"""Without a look for so long it ends; the gateway starts another when somebody comes."""
REFRESH_S = 2.0
FIRST_WAIT_S = 4.0
"""How long the first page waits for the log to be read; after it the page says that it is being read."""
MOST_LINE = 16_384


class Asked(msgspec.Struct, frozen=True):
    """One request."""

    path: str
    query: str = ""


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What the gateway says at the start."""

    socket: str
    state: str
    releases: dict[str, str]
    """Name → folder; the main one is the empty string."""
    alerts: str | None = None
    mined: str | None = None


class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    """One thread a page."""

    daemon_threads = True
    pages: Pages
    looked: float = 0.0
    first: threading.Event


class Handler(socketserver.StreamRequestHandler):
    """One page a connection."""

    server: Server
    timeout = 10

    def handle(self) -> None:
        line = self.rfile.readline(MOST_LINE)
        try:
            asked = msgspec.json.decode(line, type=Asked)
        except msgspec.DecodeError:
            return
        self.server.looked = time.monotonic()
        self.server.first.wait(FIRST_WAIT_S)
        page = self.server.pages.page(asked.path, asked.query)
        head = {"status": page.status, "type": page.type, "length": len(page.body)}
        self.wfile.write(msgspec.json.encode(head) + b"\n" + page.body)


def main(given: str) -> None:
    """Serve pages until standard input ends or nobody looks any more."""
    with contextlib.suppress(OSError):
        os.nice(NICENESS)
    settings = msgspec.json.decode(given, type=Settings)
    state = Path(settings.state)
    release = settings.releases.get("")
    board = Board(state, release=None if release is None else Path(release))
    places = Places(
        state=state,
        releases={name: Path(folder) for name, folder in settings.releases.items()},
        alerts=Path(settings.alerts) if settings.alerts else state / "alerts.jsonl",
        mined=Path(settings.mined) if settings.mined else state / "mined",
    )
    server = Server(settings.socket, Handler)
    server.pages, server.first, server.looked = Pages(board, places), threading.Event(), time.monotonic()
    threading.Thread(target=_end_with_stdin, daemon=True).start()
    threading.Thread(target=_read_on, args=(server, board), daemon=True).start()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    server.serve_forever()


def _end_with_stdin() -> None:
    """The gateway holds the other end; where it is gone, so are we."""
    while os.read(0, 1024):
        pass
    os._exit(0)


def _read_on(server: Server, board: Board) -> None:
    while True:
        started = time.monotonic()
        board.refresh()
        server.first.set()
        took = time.monotonic() - started
        if time.monotonic() - server.looked > IDLE_S:
            os._exit(0)
        # Never more than a third of a core, however much traffic there is.
        time.sleep(max(REFRESH_S, 2 * took))
