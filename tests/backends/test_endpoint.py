"""An endpoint with every fault a network has: answers are paid once, no fault is a wrong answer."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from jettison.backends.answer_cache import AnswerCache, answer_key
from jettison.backends.endpoint import EndpointEngine, endpoint_candidate
from jettison.backends.open import open_model
from jettison.candidate import Candidate
from jettison.errors import InvalidInput, Unanswered
from jettison.evaluate.run import evaluate
from jettison.language import Ask
from jettison.model import Output
from jettison.task import Example

SECRET = "sk-very-secret-1234567890"
Behaviour = Callable[[BaseHTTPRequestHandler, dict[str, Any], int], None]


class Server:
    """A real HTTP server that behaves as it is told, and counts what it is asked."""

    def __init__(self) -> None:
        self.behave: Behaviour = answer
        self.asked: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.at_once = self.most_at_once = 0
        self._lock = threading.Lock()
        owner = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                with owner._lock:
                    owner.asked.append(body)
                    owner.headers.append(dict(self.headers))
                    owner.at_once += 1
                    owner.most_at_once = max(owner.most_at_once, owner.at_once)
                    number = len(owner.asked)
                try:
                    owner.behave(self, body, number)
                finally:
                    with owner._lock:
                        owner.at_once -= 1

            def do_GET(self) -> None:
                send(self, 200, {"data": [{"id": "small"}, {"id": "large"}]})

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"

    def close(self) -> None:
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
    return str(body["messages"][-1]["content"])


def answer(handler: BaseHTTPRequestHandler, body: dict[str, Any], number: int) -> None:
    """Music where music is asked for, alarm otherwise, with usage and log-probabilities."""
    label = "music" if "song" in said(body).rsplit("Text:", 1)[-1] else "alarm"
    content = [{"token": label, "logprob": -0.1, "top_logprobs": [{"token": label, "logprob": -0.1}]}]
    send(
        handler,
        200,
        {
            "choices": [
                {"message": {"content": label}, "finish_reason": "stop", "logprobs": {"content": content}}
            ],
            "usage": {"prompt_tokens": 100, "completion_tokens": 2},
        },
    )


def first(*faults: Behaviour) -> Behaviour:
    """The faults, one a request, and then right answers."""

    def behave(handler: BaseHTTPRequestHandler, body: dict[str, Any], number: int) -> None:
        (faults[number - 1] if number <= len(faults) else answer)(handler, body, number)

    return behave


def status(code: int, **headers: str) -> Behaviour:
    return lambda handler, body, number: send(
        handler, code, {"error": {"message": f"fault {code} for {SECRET}"}}, **headers
    )


def truncated(handler: BaseHTTPRequestHandler, body: dict[str, Any], number: int) -> None:
    handler.send_response(200)
    handler.send_header("content-length", "1000")
    handler.end_headers()
    handler.wfile.write(b'{"choices": [')
    handler.close_connection = True


def no_json(handler: BaseHTTPRequestHandler, body: dict[str, Any], number: int) -> None:
    send(handler, 200, b"<html>busy</html>")


def hung_up(handler: BaseHTTPRequestHandler, body: dict[str, Any], number: int) -> None:
    handler.connection.close()
    handler.close_connection = True


def silent(handler: BaseHTTPRequestHandler, body: dict[str, Any], number: int) -> None:
    time.sleep(1.0)
    handler.close_connection = True


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Server]:
    monkeypatch.setenv("JETTISON_ANSWERS", str(tmp_path / "answers"))
    monkeypatch.setenv("THE_KEY", SECRET)
    # Waits between tries are shortened; how long they should be is asserted apart.
    monkeypatch.setattr("jettison.backends.transport.time.sleep", lambda s, real=time.sleep: real(s / 50))
    made = Server()
    yield made
    made.close()


def candidate(folder: Path, server: Server, **given: Any) -> Candidate:
    path = folder / f"endpoint-{len(list(folder.iterdir()))}"
    path.mkdir()
    settings = {"kind": "classify", "prompt": {"template": "One of {labels}.\nText: {input}"}}
    fields = {"model": "small", "api_key_env": "THE_KEY", "read_s": 0.3, **given}
    return endpoint_candidate(path, url=server.url, labels=("music", "alarm"), settings=settings, **fields)


def ask(made: Candidate, inputs: list[str]) -> list[Output]:
    model = open_model(made)
    try:
        return model.predict(inputs)
    finally:
        model.close()


def test_labels_confidence_and_price_come_out(server: Server, tmp_path: Path) -> None:
    priced = candidate(tmp_path, server, usd_per_million_input=0.5, usd_per_million_output=2.0)
    song, other = ask(priced, ["play a song", "wake me"])
    assert (song.label, other.label) == ("music", "alarm")
    assert song.confidence == pytest.approx(0.9048, abs=1e-3)
    assert song.cost.price_usd == pytest.approx((100 * 0.5 + 2 * 2.0) / 1e6)
    assert (song.cost.prompt_tokens, song.cost.completion_tokens) == (100, 2)
    assert server.headers[0]["Authorization"] == f"Bearer {SECRET}"


def test_without_a_price_there_is_none(server: Server, tmp_path: Path) -> None:
    assert ask(candidate(tmp_path, server), ["a song"])[0].cost.price_usd is None


@pytest.mark.parametrize(
    "fault",
    [status(429, retry_after="1"), status(503), status(500), truncated, no_json, hung_up, silent],
    ids=["429", "503", "500", "truncated", "no json", "hung up", "silent"],
)
def test_a_fault_that_passes_changes_nothing(fault: Behaviour, server: Server, tmp_path: Path) -> None:
    server.behave = first(fault, fault)
    outputs = ask(candidate(tmp_path, server, concurrency=1), ["a song"])
    assert (outputs[0].label, outputs[0].error) == ("music", None)
    assert len(server.asked) == 3


def test_retry_after_is_obeyed(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []
    monkeypatch.setattr("jettison.backends.transport.time.sleep", waited.append)
    server.behave = first(status(429, retry_after_ms="7500"))
    ask(candidate(tmp_path, server), ["a song"])
    assert max(waited) == pytest.approx(7.5)


def test_a_dead_server_is_no_wrong_answer_and_nothing_is_paid_twice(server: Server, tmp_path: Path) -> None:
    examples = [Example(id=str(i), input=f"song {i}", expected="music") for i in range(8)]
    dying = candidate(tmp_path, server, concurrency=2, max_retries=1)

    def dies(handler: BaseHTTPRequestHandler, body: dict[str, Any], number: int) -> None:
        (answer if number <= 5 else hung_up)(handler, body, number)

    server.behave = dies
    with pytest.raises(Unanswered, match=r"of 8 requests were not answered.*run it again"):
        evaluate(dying, examples, split="dev", folder=tmp_path / "records")
    server.behave, before = answer, len(server.asked)
    records = evaluate(dying, examples, split="dev", folder=tmp_path / "records")
    assert [r.scores["label"] for r in records] == [1.0] * 8
    assert len(server.asked) - before == 3  # five answers were kept


@pytest.mark.parametrize(
    ("code", "rule"),
    [
        (401, r"must accept the key \(environment variable THE_KEY\)"),
        (404, r"must have the model 'small', .*It has \['small', 'large'\]"),
    ],
)
def test_a_wrong_key_or_model_is_said_at_once(code: int, rule: str, server: Server, tmp_path: Path) -> None:
    server.behave = status(code)
    engine = EndpointEngine(candidate(tmp_path, server, concurrency=1))
    with pytest.raises(InvalidInput, match=rule) as caught:
        engine.complete([Ask(text="hi")] * 5)
    engine.close()
    assert SECRET not in str(caught.value)
    assert len(server.asked) <= 2  # one may already be under way


def test_a_refused_input_is_the_models_own_failure(server: Server, tmp_path: Path) -> None:
    server.behave = first(status(400))
    output = ask(candidate(tmp_path, server, logprobs=False), ["a song"])[0]
    assert output.error.startswith("HTTP 400: fault 400")
    assert SECRET not in output.error


def test_a_server_that_knows_no_logprobs_is_asked_without(server: Server, tmp_path: Path) -> None:
    def picky(handler: BaseHTTPRequestHandler, body: dict[str, Any], number: int) -> None:
        if "logprobs" in body:
            send(handler, 400, {"error": {"message": "logprobs are not supported"}})
        else:
            answer(handler, body, number)

    server.behave = picky
    assert ask(candidate(tmp_path, server), ["a song"])[0].label == "music"


def test_no_more_are_asked_at_once_than_allowed(server: Server, tmp_path: Path) -> None:
    def slow(handler: BaseHTTPRequestHandler, body: dict[str, Any], number: int) -> None:
        threading.Event().wait(0.05)
        answer(handler, body, number)

    server.behave = slow
    ask(candidate(tmp_path, server, concurrency=3), [f"song {i}" for i in range(12)])
    assert 2 <= server.most_at_once <= 3


def test_a_stream_tells_the_time_to_the_first_token_and_a_cut_one_is_asked_again(
    server: Server, tmp_path: Path
) -> None:
    def stream(*, done: bool) -> Behaviour:
        def behave(handler: BaseHTTPRequestHandler, body: dict[str, Any], number: int) -> None:
            chunks = [{"choices": [{"delta": {"content": part}}]} for part in ("mu", "sic")]
            lines = [f"data: {json.dumps(chunk)}\n\n" for chunk in chunks]
            send(handler, 200, "".join([*lines, "data: [DONE]\n\n" if done else ""]).encode())

        return behave

    cut, whole = stream(done=False), stream(done=True)
    server.behave = lambda h, b, n: (cut if n == 1 else whole)(h, b, n)
    output = ask(candidate(tmp_path, server, stream=True), ["a song"])[0]
    assert output.label == "music"
    assert 0 < output.cost.first_token_s <= output.cost.latency_s
    assert len(server.asked) == 2


def test_an_answer_too_large_is_refused(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jettison.backends.transport.MOST_BYTES", 2**20)
    server.behave = lambda handler, body, number: send(handler, 200, b"x" * (2**20 + 2))
    assert "its answer is over 1 MB" in ask(candidate(tmp_path, server), ["a"])[0].error


def test_a_redirect_is_not_followed(server: Server, tmp_path: Path) -> None:
    server.behave = status(302, location="http://elsewhere.example/v1")
    output = ask(candidate(tmp_path, server), ["a song"])[0]
    assert "points to elsewhere.example" in output.error


def test_the_key_is_in_no_file(server: Server, tmp_path: Path) -> None:
    ask(candidate(tmp_path, server), ["a song"])
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or SECRET.encode() not in path.read_bytes()


@pytest.mark.parametrize(
    ("given", "rule"),
    [
        ({"api_key_env": "sk-123"}, "api_key_env must be the NAME"),
        ({"concurrency": 0}, "concurrency must be in 1-256"),
        ({"usd_per_million_input": -1.0}, "usd_per_million_input must be 0 or more"),
        ({"speed": 3}, "unknown field `speed`"),
        ({"model": " "}, "model must be the model's name"),
    ],
)
def test_bad_settings_are_said(given: dict[str, Any], rule: str, server: Server, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=rule):
        candidate(tmp_path, server, **given)


def test_a_missing_key_is_said(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = candidate(tmp_path, server)
    monkeypatch.delenv("THE_KEY")
    with pytest.raises(InvalidInput, match="environment variable THE_KEY must hold the key"):
        open_model(made)


def test_a_damaged_answer_counts_as_none(tmp_path: Path) -> None:
    cache = AnswerCache(tmp_path)
    key = answer_key("u", {"model": "m"})
    cache.put(key, {"a": 1})
    assert cache.get(key) == {"a": 1}
    cache._connection.execute("UPDATE answers SET answer = ?", (b"{",))
    assert cache.get(key) is None
    cache.close()
    assert answer_key("u", {"model": "m"}) != answer_key("u", {"model": "other"})
