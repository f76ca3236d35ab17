"""The faulty upstream has the faults that it names: seen by a plain HTTP client."""

import http.client
import json
import socket
import ssl
import time
from typing import Any

import pytest

from fault_upstream import FaultUpstream
from upstream_faults import ANSWER, FAULTS, HUGE_BYTES


@pytest.fixture
def upstream():
    with FaultUpstream() as server:
        yield server


def ask(server: FaultUpstream, *, stream: bool = False, timeout_s: float = 0.4, most: int = -1) -> Any:
    """Status, headers and body, or the error that came instead."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=timeout_s)
    try:
        body = json.dumps({"model": "big", "messages": [], "stream": stream})
        connection.request("POST", "/v1/chat/completions", body, {"content-type": "application/json"})
        reply = connection.getresponse()
        return reply.status, dict(reply.headers), reply.read(None if most < 0 else most)
    except (OSError, http.client.HTTPException) as error:
        return error
    finally:
        connection.close()


SEEN: dict[str, Any] = {
    "refuse": ConnectionRefusedError,
    "hang_before_headers": TimeoutError,
    "hang_after_headers": TimeoutError,
    "hang_mid_stream": TimeoutError,
    "reset_before_headers": ConnectionResetError,
    "close_before_headers": http.client.RemoteDisconnected,
    "reset_mid_stream": ConnectionResetError,
    "close_mid_stream": http.client.IncompleteRead,
    "short_body": http.client.IncompleteRead,
    "bad_chunk": http.client.IncompleteRead,
    "bad_status_line": http.client.BadStatusLine,
    "huge_header": http.client.LineTooLong,
    "status_400": 400, "status_401": 401, "status_429": 429, "status_500": 500, "status_503": 503,
    "redirect": 307,
    "html_with_200": b"<html>", "html_as_json": b"<html>", "empty_body": b"",
    "bad_json": b'{"id"',
    "other_json": b"[1, 2, 3]", "no_choices": b'"choices": []', "null_content": b'"content": null',
    "wrong_usage": b'"completion_tokens": -5', "no_usage": ANSWER.encode(),
    "gzip_garbage": b"\x1f\x8bgarbage",
    "gzip_bomb": b"\x1f\x8b", "bad_utf8": b"Th\xff\xfe", "two_lengths": b"hello",
}  # fmt: skip
STREAMED: dict[str, Any] = {
    "hang_mid_stream": TimeoutError,
    "reset_mid_stream": ConnectionResetError,
    "close_mid_stream": http.client.IncompleteRead,
    "no_done": b"answer",
    "error_in_stream": b'"server_error"',
    "bad_event": b'{"content": "hal\n\ndata: [DONE]',
    "bad_utf8": b"Th\xff\xfe",
    "wrong_usage": b'"many"',
}


def check(got: Any, wanted: Any) -> None:
    if isinstance(wanted, bytes):
        assert wanted in got[2]
    elif isinstance(wanted, int):
        assert got[0] == wanted
    else:
        assert isinstance(got, wanted), got


@pytest.mark.parametrize("name", SEEN)
def test_a_whole_reply_has_the_fault(upstream, name):
    upstream.fault = name
    check(ask(upstream, timeout_s=10 if name == "gzip_bomb" else 0.4), SEEN[name])


@pytest.mark.parametrize("name", STREAMED)
def test_a_stream_has_the_fault(upstream, name):
    upstream.fault = name
    check(ask(upstream, stream=True), STREAMED[name])
    if name == "no_done":
        assert b"[DONE]" not in ask(upstream, stream=True)[2]


def test_a_huge_body_is_huge_and_an_endless_stream_does_not_end(upstream):
    upstream.next_faults("huge_body", "endless_stream")
    assert len(ask(upstream, timeout_s=20)[2]) > HUGE_BYTES
    assert len(ask(upstream, stream=True, timeout_s=5, most=100_000)[2]) == 100_000


@pytest.mark.parametrize("name", ["drip", "slow_headers"])
def test_bytes_come_one_by_one(upstream, name):
    upstream.fault = name
    with socket.create_connection(("127.0.0.1", upstream.port), timeout=20) as plain:
        plain.sendall(b"POST /v1/chat/completions HTTP/1.1\r\ncontent-length: 2\r\n\r\n{}")
        began = time.monotonic()
        plain.recv(65536)  # the head
        got = [plain.recv(65536) for _ in range(20)]
        took_s = time.monotonic() - began
    # A byte every 20 ms, however late they are read.
    assert sum(map(len, got)) <= took_s / 0.02 + 1


def test_every_fault_is_seen():
    assert {*SEEN, *STREAMED, "huge_body", "endless_stream", "drip", "slow_headers"} == set(FAULTS)
    assert all(FAULTS.values())


def test_healthy_answers_are_right(upstream):
    status, _, body = ask(upstream)
    assert (status, json.loads(body)["choices"][0]["message"]["content"]) == (200, ANSWER)
    events = [line[6:] for line in ask(upstream, stream=True)[2].decode().split("\n\n") if line]
    assert events[-1] == "[DONE]"
    said = [json.loads(event)["choices"][0]["delta"].get("content", "") for event in events[:-1]]
    assert "".join(said) == ANSWER
    assert [seen.streams for seen in upstream.seen] == [False, True]


def test_faults_come_in_the_order_that_was_asked_for(upstream):
    upstream.fault = "status_500"
    upstream.next_faults("status_429", None)
    assert [ask(upstream)[0] for _ in range(4)] == [429, 200, 500, 500]
    upstream.fault = None
    upstream.flap(ok=2, bad=1, fault="status_503")
    assert [ask(upstream)[0] for _ in range(6)] == [200, 200, 503, 200, 200, 503]


def test_a_refusing_upstream_comes_back_on_its_port(upstream):
    port = upstream.port
    assert ask(upstream)[0] == 200
    upstream.fault = "refuse"
    assert isinstance(ask(upstream), ConnectionRefusedError)
    upstream.fault = None
    assert ask(upstream)[0] == 200
    assert upstream.port == port


def test_a_wrong_name_of_a_fault_is_said(upstream):
    with pytest.raises(ValueError, match="a fault must be one of"):
        upstream.fault = "explode"


def test_what_a_client_leaves_open_is_counted(upstream):
    with socket.create_connection(("127.0.0.1", upstream.port)):
        _wait(lambda: upstream.n_open == 1)
    _wait(lambda: upstream.n_open == 0)


def test_its_https_address_speaks_no_tls(upstream):
    plain = socket.create_connection(("127.0.0.1", upstream.port), timeout=2)
    with pytest.raises((ssl.SSLError, OSError)), plain:
        ssl.create_default_context().wrap_socket(plain, server_hostname="127.0.0.1")


def _wait(holds: Any) -> None:
    until = time.monotonic() + 5
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.01)
