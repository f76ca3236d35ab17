"""An OpenAI-compatible upstream on loopback that has every fault an upstream can have.

    with FaultUpstream() as upstream:
        upstream.fault = "reset_mid_stream"           # from now on, for every request; None is healthy
        upstream.next_faults("status_429", None)      # for the next requests, one each, before that
        upstream.flap(ok=2, bad=3, fault="status_503")    # healthy twice, faulty three times, and so on
        ask(upstream.url + "/chat/completions")       # `url` ends in /v1; `https_url` speaks no TLS
        upstream.seen[-1].body, upstream.seen[-1].fault, upstream.n_asked, upstream.n_open

`FAULTS` names them all, with what a client sees. A healthy answer says `ANSWER`, word by word where it
streams, to chat, legacy completions and embeddings; `GET /v1/models` is always healthy unless nobody
listens. Faults of streams are those of whole replies where the request does not stream. `refuse` closes the
port, so that every connection is refused, until another fault is set; the port stays the same. What hangs,
hangs until the client goes, or `close()`. A name that cannot be resolved needs no server: take
`http://no-such-host.invalid`.

By hand: `python tests/fault_upstream.py hang_mid_stream --port 9001`.
"""

import argparse
import contextlib
import json
import socket
import threading
from collections import deque
from collections.abc import Iterator
from typing import Any

from upstream_faults import BY_NAME, FAULTS, REFUSE, Client, Seen, healthy


class FaultUpstream:
    """The server; see the top of the file. Safe to steer from any thread."""

    def __init__(self, port: int = 0) -> None:
        self.seen: list[Seen] = []
        self.n_connections = 0
        self._fault: str | None = None
        self._next: deque[str | None] = deque()
        self._cycle: Iterator[str | None] | None = None
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._open: set[socket.socket] = set()
        self._listener: socket.socket | None = None
        self.port = port
        self._listen()
        self.url = f"http://127.0.0.1:{self.port}/v1"
        self.https_url = f"https://127.0.0.1:{self.port}/v1"

    def __enter__(self) -> "FaultUpstream":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def fault(self) -> str | None:
        """What happens to every request that nothing else was said about."""
        return self._fault

    @fault.setter
    def fault(self, name: str | None) -> None:
        self._check(name)
        with self._lock:
            self._fault, self._cycle = name, None
            self._next.clear()
        if name == REFUSE:
            self._stop_listening()
            self._drop_all()
        elif self._listener is None:
            self._listen()

    def next_faults(self, *names: str | None) -> None:
        """What happens to the next requests, one each."""
        for name in names:
            self._check(name)
            if name == REFUSE:
                raise ValueError("nobody is asked when the connection is refused: set `fault` instead.")
        with self._lock:
            self._next.extend(names)

    def flap(self, *, ok: int, bad: int, fault: str) -> None:
        """Healthy for `ok` requests, faulty for `bad`, and so on for ever."""
        self._check(fault)

        def turns() -> Iterator[str | None]:
            while True:
                yield from [None] * ok
                yield from [fault] * bad

        with self._lock:
            self._cycle = turns()

    @property
    def n_open(self) -> int:
        """Connections that are open now: what the client did not close, leaks."""
        with self._lock:
            return len(self._open)

    @property
    def n_asked(self) -> int:
        """Requests so far, those for the models left out."""
        return sum(one.method == "POST" for one in self.seen)

    def close(self) -> None:
        """Stop. May be called twice."""
        self._closing.set()
        self._stop_listening()
        self._drop_all()

    @staticmethod
    def _check(name: str | None) -> None:
        if name is not None and name not in FAULTS:
            raise ValueError(f"a fault must be one of {sorted(FAULTS)}, got {name!r}.")

    def _listen(self) -> None:
        listener = socket.create_server(("127.0.0.1", self.port), backlog=512)
        self.port = listener.getsockname()[1]
        self._listener = listener
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()

    def _stop_listening(self) -> None:
        listener, self._listener = self._listener, None
        if listener is not None:
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)  # wakes accept
            listener.close()

    def _drop_all(self) -> None:
        with self._lock:
            open_now = list(self._open)
        for sock in open_now:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                self._open.add(sock)
                self.n_connections += 1
            threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        try:
            reader = sock.makefile("rb")
            with contextlib.suppress(OSError, ValueError):
                while (seen := _read_request(reader)) is not None:
                    seen.fault = self._take(seen)
                    self.seen.append(seen)
                    play = healthy if seen.fault is None else BY_NAME[seen.fault]
                    play(Client(sock, seen, self._closing))
                    if seen.fault not in (None, *_LEAVES_WELL):
                        break
        finally:
            with self._lock:
                self._open.discard(sock)
            with contextlib.suppress(OSError):
                reader.close()
            sock.close()

    def _take(self, seen: Seen) -> str | None:
        if seen.path.endswith("/models"):
            return None
        with self._lock:
            if self._next:
                return self._next.popleft()
            if self._cycle is not None:
                return next(self._cycle)
            return self._fault if self._fault != REFUSE else None


_LEAVES_WELL = frozenset(
    name for name in FAULTS if name.startswith(("status_", "html_", "empty", "other_", "null_", "wrong_"))
)
"""After these the connection can be used again."""


def _read_request(reader: Any) -> Seen | None:
    """One request, or None when the client has gone or does not speak HTTP."""
    line = reader.readline(65536).decode("latin-1").split()
    if len(line) != 3:
        return None
    headers: dict[str, str] = {}
    while (raw := reader.readline(65536).decode("latin-1").strip()) != "":
        name, _, value = raw.partition(":")
        headers[name.strip().lower()] = value.strip()
    body: Any = reader.read(int(headers.get("content-length", "0")))
    if headers.get("transfer-encoding", "").lower() == "chunked":
        parts = []
        while size := int(reader.readline(64), 16):
            parts.append(reader.read(size))
            reader.readline(8)
        reader.readline(8)
        body = b"".join(parts)
    with contextlib.suppress(ValueError):
        body = json.loads(body)
    return Seen(method=line[0], path=line[1], headers=headers, body=body, fault=None)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="An upstream with a fault, by hand.")
    parser.add_argument("fault", nargs="?", choices=[*FAULTS, "none"], default="none")
    parser.add_argument("--port", type=int, default=0)
    arguments = parser.parse_args()
    with FaultUpstream(arguments.port) as by_hand:
        by_hand.fault = None if arguments.fault == "none" else arguments.fault
        print(by_hand.url, by_hand.fault, flush=True)
        threading.Event().wait()
