"""The load client against servers that answer in every way HTTP/1.1 allows, and in some it does not."""

import contextlib
import socket
import threading
from collections.abc import Iterator

import pytest

from jettison.cost.calls import Calls
from jettison.cost.http_target import http_target
from jettison.cost.play_http import HttpPlayer

OK = b"HTTP/1.1 200 OK\r\n"


@contextlib.contextmanager
def answering(*pieces: bytes, closes: bool = False) -> Iterator[str]:
    """A server that sends the same bytes to every request, piece by piece."""
    listener = socket.create_server(("127.0.0.1", 0))

    def one(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            while connection.recv(65536):
                for piece in pieces:
                    connection.sendall(piece)
                if closes:
                    return

    def run() -> None:
        with contextlib.suppress(OSError):
            while True:
                thread = threading.Thread(target=one, args=(listener.accept()[0],), daemon=True)
                thread.start()
                threads.append(thread)

    threads: list[threading.Thread] = []
    accepting = threading.Thread(target=run, daemon=True)
    accepting.start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}/x"
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    for thread in (accepting, *threads):
        thread.join(5)


def ask(url: str, n: int = 2) -> Calls:
    client = HttpPlayer(http_target(url, timeout_s=2.0), ["one"])
    try:
        return client.play([0] * n, [0.0] * n, concurrency=1)
    finally:
        client.close()


@pytest.mark.parametrize(
    ("pieces", "closes", "n_connections"),
    [
        ((OK + b"Content-Length: 2\r\n\r\nhi",), False, 1),
        ((OK + b"Content-Le", b"ngth: 2\r\n\r\nh", b"i"), False, 1),
        ((OK + b"Transfer-Encoding: chunked\r\n\r\n1\r\nh\r\n", b"1\r\ni\r\n0\r\n\r\n"), False, 1),
        ((b"HTTP/1.1 100 Continue\r\n\r\n", OK + b"Content-Length: 2\r\n\r\nhi"), False, 1),
        ((OK + b"Content-Length: 2\r\nConnection: close\r\n\r\nhi",), True, 2),
        ((OK + b"Connection: close\r\n\r\nhi",), True, 2),
        ((b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nhi",), True, 2),
    ],
)
def test_an_answer_is_read_whole_and_its_connection_is_kept_where_it_may_be(
    pieces: tuple[bytes, ...], closes: bool, n_connections: int
) -> None:
    with answering(*pieces, closes=closes) as url:
        calls = ask(url)
    assert calls.errors == [None, None]
    assert calls.outputs == ["hi", "hi"]
    assert calls.wire is not None
    assert calls.wire.n_connections == n_connections
    # The end of a connection counts as a byte in TCP.
    n_bytes = calls.wire.received_bytes - 2 * sum(map(len, pieces))
    assert 0 <= n_bytes <= (2 if closes else 0)


@pytest.mark.parametrize(
    ("pieces", "closes", "message"),
    [
        ((b"SSH-2.0-OpenSSH\r\n",), False, "its answer is no HTTP/1.1"),
        ((OK + b"X: " + b"a" * 70_000,), False, "its headers are over 64 kB"),
        ((OK + b"Content-Length: 9\r\n\r\nhi",), True, "its answer broke off: the server closed it"),
        ((b"",), True, "no connection: the server closed it"),
        ((b"HTTP/1.1 302 Found\r\nLocation: /y\r\nContent-Length: 0\r\n\r\n",), False, "HTTP 302"),
        ((OK + b"Content-Length: 9\r\n\r\nhi",), False, "no whole answer in time"),
    ],
)
def test_an_answer_that_breaks_off_or_is_none_is_a_miss_with_its_reason(
    pieces: tuple[bytes, ...], closes: bool, message: str
) -> None:
    with answering(*pieces, closes=closes) as url:
        calls = ask(url)
    assert calls.errors == [message, message]
    assert calls.outputs == [None, None]


def test_an_answer_over_the_limit_is_broken_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jettison.cost.play_http.MOST_BYTES", 2**20)
    with answering(OK + b"Content-Length: 3000000\r\n\r\n" + b"a" * 3_000_000) as url:
        assert ask(url, 1).errors == ["its answer is over 1 MB"]


def test_a_host_without_an_address_is_no_connection() -> None:
    client = HttpPlayer(http_target("http://nowhere.invalid/x"), ["one"])
    calls = client.play([0], [0.0])
    client.close()
    assert (calls.errors[0] or "").startswith("no connection: ")
