"""A real HTTP server that speaks as OpenAI's does, with every fault a network has."""

import json
import re
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

SECRET = "sk-very-secret-1234567890"
Behaviour = Callable[[BaseHTTPRequestHandler, dict[str, Any], int], None]


class QuietServer(ThreadingHTTPServer):
    """Writes no traceback into what a test reads when whoever asked has gone, at whatever moment."""

    daemon_threads = True

    def handle_error(self, request: socket.socket | tuple[bytes, socket.socket], client: object) -> None:
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client)


class Server:
    """Behaves as it is told, and counts what it is asked."""

    def __init__(self, port: int = 0) -> None:
        self.behave: Behaviour = answer
        self.models = ("small", "large")
        self.asked: list[dict[str, Any]] = []
        self.paths: list[str] = []
        self.headers: list[dict[str, str]] = []
        self.n_connections = 0
        self.at_once = self.most_at_once = 0
        self._lock = threading.Lock()
        owner = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def setup(self) -> None:
                with owner._lock:
                    owner.n_connections += 1
                super().setup()

            def do_POST(self) -> None:
                n_bytes = int(self.headers["content-length"])
                raw = self.rfile.read(n_bytes)
                if len(raw) < n_bytes:  # whoever asks went away in the middle of it
                    self.close_connection = True
                    return
                body = json.loads(raw)
                with owner._lock:
                    owner.asked.append(body)
                    owner.paths.append(self.path)
                    owner.headers.append(dict(self.headers))
                    owner.at_once += 1
                    owner.most_at_once = max(owner.most_at_once, owner.at_once)
                    number = len(owner.asked)
                try:
                    owner.behave(self, body, number)
                except OSError:
                    self.close_connection = True  # whoever asked has gone
                finally:
                    with owner._lock:
                        owner.at_once -= 1

            def do_GET(self) -> None:
                with owner._lock:
                    owner.headers.append(dict(self.headers))
                send(self, 200, {"data": [{"id": name} for name in owner.models]})

            def log_message(self, *_: object) -> None:
                pass

        self._server = QuietServer(("127.0.0.1", port), Handler)
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        self.port = self._server.server_port
        self.url = f"http://127.0.0.1:{self.port}/v1"

    def close(self) -> None:
        """Stop listening. May be called twice."""
        self._server.shutdown()
        self._server.server_close()


def send(handler: BaseHTTPRequestHandler, status: int, body: object, **headers: str) -> None:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    handler.send_response(status)
    for name, value in {"content-length": str(len(raw)), **headers}.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()
    handler.wfile.write(raw)


def said(body: dict[str, Any]) -> str:
    return str(body["messages"][-1]["content"] if "messages" in body else body["prompt"])


def whole(text: str, **more: object) -> dict[str, Any]:
    """A sound answer with usage and log-probabilities."""
    content = [{"token": text, "logprob": -0.1, "top_logprobs": [{"token": text, "logprob": -0.1}]}]
    choice = {"message": {"content": text}, "finish_reason": "stop", "logprobs": {"content": content}}
    return {
        "choices": [choice],
        "usage": {"prompt_tokens": 100, "completion_tokens": 2, "total_tokens": 102},
        **more,
    }


def answer(handler: BaseHTTPRequestHandler, body: dict[str, Any], number: int) -> None:
    """Music where music is asked for, alarm otherwise."""
    send(handler, 200, whole("music" if "song" in said(body).rsplit("Text:", 1)[-1] else "alarm"))


def labels_by_length(labels: Sequence[str]) -> Behaviour:
    """A label by the length of what was asked; given texts are echoed with their log-probabilities."""

    def behave(handler: BaseHTTPRequestHandler, body: dict[str, Any], number: int) -> None:
        if "echo" in body:
            echo(handler, body, number)
        else:
            send(handler, 200, whole(labels[len(said(body)) % len(labels)]))

    return behave


def echo(handler: BaseHTTPRequestHandler, body: dict[str, Any], number: int) -> None:
    """Words as tokens; a word's log-probability is minus its length, halved."""
    words = re.findall(" ?[^ ]*", body["prompt"])[:-1]
    tokens = ["<s>", *words, "!"]
    logprobs = [None, *(-len(word) / 2 for word in words), -9.0]
    given = {"tokens": tokens, "token_logprobs": logprobs, "top_logprobs": [{"x": -0.5}] * len(tokens)}
    usage = {"prompt_tokens": len(words) + 1, "completion_tokens": 1}
    send(handler, 200, {"choices": [{"text": body["prompt"], "logprobs": given}], "usage": usage})


def first(*faults: Behaviour) -> Behaviour:
    """The faults, one a request, and then right answers."""

    def behave(handler: BaseHTTPRequestHandler, body: dict[str, Any], number: int) -> None:
        (faults[number - 1] if number <= len(faults) else answer)(handler, body, number)

    return behave


def status(code: int, **headers: str) -> Behaviour:
    """An error that repeats the key, as careless servers do."""
    return lambda handler, body, number: send(
        handler, code, {"error": {"message": f"fault {code} for {SECRET}"}}, **headers
    )


def replies(body: object) -> Behaviour:
    return lambda handler, asked, number: send(handler, 200, body)


def truncated(handler: BaseHTTPRequestHandler, body: dict[str, Any], number: int) -> None:
    handler.send_response(200)
    handler.send_header("content-length", "1000")
    handler.end_headers()
    handler.wfile.write(b'{"choices": [')
    handler.close_connection = True


def cut_padding(handler: BaseHTTPRequestHandler, body: dict[str, Any], number: int) -> None:
    """A whole object, and yet not all that was promised."""
    raw = json.dumps(whole("alarm")).encode()
    handler.send_response(200)
    handler.send_header("content-length", str(len(raw) + 10))
    handler.end_headers()
    handler.wfile.write(raw)
    handler.close_connection = True


def cut_chunk(handler: BaseHTTPRequestHandler, body: dict[str, Any], number: int) -> None:
    handler.send_response(200)
    handler.send_header("transfer-encoding", "chunked")
    handler.end_headers()
    handler.wfile.write(b'20\r\n{"choices"')
    handler.close_connection = True


def no_json(handler: BaseHTTPRequestHandler, body: dict[str, Any], number: int) -> None:
    send(handler, 200, b"<html>busy</html>")


def hung_up(handler: BaseHTTPRequestHandler, body: dict[str, Any], number: int) -> None:
    handler.close_connection = True


def silent(handler: BaseHTTPRequestHandler, body: dict[str, Any], number: int) -> None:
    time.sleep(0.6)
    handler.close_connection = True


def dripping(handler: BaseHTTPRequestHandler, body: dict[str, Any], number: int) -> None:
    """One byte at a time, never silent for long, never done."""
    handler.send_response(200)
    handler.send_header("content-length", "100000")
    handler.end_headers()
    for _ in range(40):
        handler.wfile.write(b" ")
        time.sleep(0.05)
    handler.close_connection = True


class FakeClock:
    """Time that passes only while someone waits."""

    def __init__(self) -> None:
        self._now = 1000.0
        self._lock = threading.Lock()
        self.waits: list[float] = []

    def now(self) -> float:
        return self._now

    def wait(self, seconds: float) -> None:
        with self._lock:
            self.waits.append(seconds)
            self._now += seconds

    def stop(self) -> None:
        pass
