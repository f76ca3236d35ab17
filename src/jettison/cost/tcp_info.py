"""Bytes on the wire, as Linux counts them for each TCP connection; no privileges are needed."""

import contextlib
import socket
import struct
import sys
from typing import Any

from jettison.cost.calls import Wire

_TCP_INFO = 11
_OFFSETS = {"acked": (120, "Q"), "received": (128, "Q"), "segs_out": (136, "I"), "segs_in": (140, "I"),
            "sent": (200, "Q"), "resent": (208, "Q")}  # fmt: skip
"""Of fields in `struct tcp_info` of linux/tcp.h, which only grows at its end."""


class CountedSocket(socket.socket):
    """A socket whose counters are read once more before it is closed."""

    counter: "WireCounter | None" = None

    def close(self) -> None:
        if self.counter is not None and self.fileno() >= 0:
            self.counter.retire(self)
        super().close()


class WireCounter:
    """Adds up the counters of every connection it made, open or closed."""

    def __init__(self) -> None:
        self._open: set[CountedSocket] = set()
        self._closed: dict[str, int] = {}
        self.n_connections = 0

    def make_socket(self, address: tuple[Any, ...]) -> socket.socket:
        """A socket for `(family, type, protocol, name, address)`, as asyncio describes one."""
        family, kind, protocol = address[:3]
        made = CountedSocket(family, kind, protocol)
        made.setblocking(False)
        made.counter = self
        self._open.add(made)
        self.n_connections += 1
        return made

    def retire(self, ended: CountedSocket) -> None:
        """Keep what a connection has counted, and let it go."""
        self._closed = _plus(self._closed, read_tcp_info(ended))
        self._open.discard(ended)

    def read(self) -> Wire | None:
        """All that went over all connections so far; None where the kernel does not tell."""
        total = dict(self._closed)
        for connection in self._open:
            total = _plus(total, read_tcp_info(connection))
        if "received" not in total:
            return None
        # An older kernel counts only what was acknowledged, the opening of the connection with it.
        resent = total.get("resent")
        sent = total["sent"] - (resent or 0) if "sent" in total else total["acked"]
        return Wire(
            sent_bytes=sent,
            received_bytes=total["received"],
            resent_bytes=resent,
            n_segments=total["segs_out"] + total["segs_in"],
            n_connections=self.n_connections,
        )


def wire_between(before: Wire | None, after: Wire | None) -> Wire | None:
    """What came on top between two readings."""
    if before is None or after is None:
        return after
    resent = None if after.resent_bytes is None else after.resent_bytes - (before.resent_bytes or 0)
    return Wire(
        sent_bytes=after.sent_bytes - before.sent_bytes,
        received_bytes=after.received_bytes - before.received_bytes,
        resent_bytes=resent,
        n_segments=after.n_segments - before.n_segments,
        n_connections=after.n_connections - before.n_connections,
    )


def read_tcp_info(connection: socket.socket) -> dict[str, int]:
    """Counters of one connection by name; empty where the system has none."""
    if not sys.platform.startswith("linux"):
        return {}
    with contextlib.suppress(OSError):
        raw = connection.getsockopt(socket.IPPROTO_TCP, _TCP_INFO, 256)
        return {
            name: struct.unpack_from(f"={kind}", raw, offset)[0]
            for name, (offset, kind) in _OFFSETS.items()
            if len(raw) >= offset + struct.calcsize(kind)
        }
    return {}


def counts_bytes() -> bool:
    """Whether this system counts a connection's bytes; tried on one to itself."""
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as connection,
    ):
        return "received" in read_tcp_info(connection)


def _plus(one: dict[str, int], other: dict[str, int]) -> dict[str, int]:
    return {name: one.get(name, 0) + other.get(name, 0) for name in {*one, *other}}
