"""Who may ask and how much; what a client may send."""

import asyncio
import contextlib
import http.client
import json
import socket
import threading
from concurrent.futures import ThreadPoolExecutor

import openai
import pytest

from gateways import (
    Faulty,
    ask,
    client,
    completion,
    config_of,
    delta,
    post,
    records_in,
    request,
    running,
    upstream_of,
    wait_until,
)
from jettison.errors import InvalidInput
from jettison.route import Cascade, Guarded, Single
from jettison.serve.access import Access, new_key
from jettison.serve.api_error import ApiError
from jettison.serve.config import KeyConfig, LimitsConfig
from jettison.serve.server import check_ground
from releasing import make_release


def keyed(**given):
    key, digest = new_key()
    return key, KeyConfig(name="team", sha256=digest, **given)


def test_without_a_key_nothing_is_answered_and_no_key_is_logged(tmp_path, release, capfd):
    key, config = keyed()
    with running(config_of(tmp_path, release=release, keys=(config,), log_requests=True)) as gateway:
        assert ask(gateway, "pear").status == 401
        for call in (client(gateway).models.list, client(gateway, api_key="jt-wrong").models.list):
            with pytest.raises(openai.AuthenticationError):
                call()
        assert client(gateway, api_key=key).models.list().data[0].id == "fruit"
        assert post(gateway, "/v1/feedback", {"request_id": "x", "score": 1}).status == 401
        assert request(gateway.port, "GET", "/health/live").status == 200
        body = {"messages": [{"role": "user", "content": "pear"}]}
        assert post(gateway, "/v1/chat/completions", body, {"authorization": f"Bearer {key}"}).status == 200
        gateway.gateway.log.flush()
        files = [path for path in gateway.gateway.state.rglob("*") if path.is_file()]
        traffic = b"".join(path.read_bytes() for path in files)
    logged = capfd.readouterr()
    assert key not in logged.err + logged.out
    assert b"pear" in traffic
    assert key.encode() not in traffic


def test_a_key_given_twice_in_one_request_is_refused(tmp_path, release):
    key, config = keyed()
    lines = f"POST /v1/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\n"
    rest = "authorization: Bearer other\r\nconnection: close\r\ncontent-length: 2\r\n\r\n{}"
    with (
        running(config_of(tmp_path, release=release, keys=(config,))) as gateway,
        socket.create_connection(("127.0.0.1", gateway.port)) as sock,
    ):
        sock.sendall(f"{lines}{rest}".encode())
        assert b"duplicate_header" in read_all(sock)


def read_all(sock):
    raw = b""
    while part := sock.recv(4096):
        raw += part
    return raw


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def test_rates_tokens_concurrency_and_budgets():
    clock = Clock()
    _, config = keyed(requests_per_minute=2, tokens_per_minute=1000, concurrency=3)
    key = Access([config], None, clock=clock)._keys[0]
    key.enter(100)
    key.enter(100)
    with pytest.raises(ApiError, match="2 requests a minute") as caught:
        key.enter(100)
    assert (caught.value.status, caught.value.retry_after_s) == (429, pytest.approx(30.0))
    clock.now = 30.0
    key.enter(100)  # three are open now
    clock.now = 60.0
    with pytest.raises(ApiError, match="3 requests at once"):
        key.enter(1)
    # It took 3,000 tokens where 100 were estimated: the debt is paid before anything else goes.
    key.leave(100, 3000, 0.5)
    with pytest.raises(ApiError, match="1000 tokens a minute"):
        key.enter(1)
    assert key.used.tokens == 3000
    assert key.used.usd == 0.5


def test_a_budget_holds_over_restarts(tmp_path):
    _, config = keyed(budget_tokens=100)
    first = Access([config], tmp_path)
    first._keys[0].enter(10)
    first._keys[0].leave(10, 120, None)
    first.save()
    with pytest.raises(ApiError, match="has spent its budget of tokens") as caught:
        Access([config], tmp_path)._keys[0].enter(1)
    assert caught.value.code == "insufficient_quota"
    assert caught.value.should_retry is False


def test_limits_reach_the_client_as_429_with_a_time(tmp_path, release):
    key, config = keyed(requests_per_minute=1)
    with running(config_of(tmp_path, release=release, keys=(config,))) as gateway:
        headers = {"authorization": f"Bearer {key}"}
        body = {"messages": [{"role": "user", "content": "pear"}]}
        assert post(gateway, "/v1/chat/completions", body, headers).status == 200
        found = post(gateway, "/v1/chat/completions", body, headers)
        assert (found.status, found.json["error"]["code"]) == (429, "rate_limit_exceeded")
        assert 50 <= int(found.headers["retry-after"]) <= 61


def test_a_gateway_in_the_open_must_have_keys(tmp_path):
    with pytest.raises(InvalidInput, match=r"must have API keys, got host '0\.0\.0\.0' and none"):
        check_ground(config_of(tmp_path, host="0.0.0.0"))
    check_ground(config_of(tmp_path, host="0.0.0.0", is_open=True))
    check_ground(config_of(tmp_path, host="0.0.0.0", keys=(keyed()[1],)))


LIMITS = LimitsConfig(
    body_bytes=10_000,
    header_bytes=2_000,
    header_s=0.3,
    body_s=0.3,
    json_depth=10,
    in_flight=2,
    connections=50,
)


@pytest.fixture(scope="module")
def bounded(tmp_path_factory, release):
    with running(config_of(tmp_path_factory.mktemp("b"), release=release, limits=LIMITS)) as gateway:
        yield gateway


@pytest.mark.parametrize(
    ("raw", "status", "code"),
    [
        (b"{", 400, "invalid_json"),
        (b"[1]", 400, "invalid_json"),
        (b"\xff\xfe", 400, "invalid_json"),
        (b'{"messages": NaN}', 400, "invalid_json"),
        (b'{"a": ' + b"[" * 11 + b"]" * 11 + b"}", 400, "too_deep"),
        (b"[" * 4000, 400, "invalid_json"),
        (b'{"a": "' + b"x" * 20_000 + b'"}', 413, "body_too_long"),
        (json.dumps({f"k{i}": i for i in range(500)}).encode(), 400, "invalid_request"),
    ],
)
def test_bodies_are_bounded(bounded, raw, status, code):
    found = request(bounded.port, "POST", "/v1/chat/completions", raw)
    assert (found.status, found.json["error"]["code"]) == (status, code)


def test_depth_within_the_limit_passes(bounded):
    deep = json.loads('{"a": ' + "[" * 8 + "]" * 8 + "}")
    body = {"messages": [{"role": "user", "content": "pear"}], "metadata": deep}
    assert post(bounded, "/v1/chat/completions", body).status == 200


def test_a_body_without_a_length_is_bounded_too(bounded):
    def parts():
        yield b'{"a": "'
        for _ in range(30):
            yield b"x" * 1000

    connection = http.client.HTTPConnection("127.0.0.1", bounded.port, timeout=5)
    try:
        connection.request(
            "POST",
            "/v1/chat/completions",
            parts(),
            encode_chunked=True,
            headers={"transfer-encoding": "chunked"},
        )
        assert connection.getresponse().status == 413
    except (BrokenPipeError, ConnectionResetError):
        pass  # it did not even wait for the rest
    finally:
        connection.close()


def test_long_headers_and_many_headers_are_refused(bounded):
    found = request(bounded.port, "POST", "/v1/chat/completions", {}, {"x-long": "x" * 3000})
    assert found.status == 431


def test_slow_headers_and_slow_bodies_are_ended(bounded):
    with socket.create_connection(("127.0.0.1", bounded.port)) as sock:
        sock.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\n")
        sock.settimeout(20)  # far less than an idle connection is kept
        try:
            ended = sock.recv(10) == b""
        except ConnectionResetError:
            ended = True
        assert ended
    with socket.create_connection(("127.0.0.1", bounded.port)) as sock:
        sock.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{")
        sock.settimeout(20)
        assert b" 408 " in sock.recv(100)


def test_too_many_at_once_are_refused_at_once(tmp_path):
    others_refused = threading.Event()

    async def slow(exchange):
        while not others_refused.is_set():
            await asyncio.sleep(0.02)
        await exchange.reply({"choices": [{"message": {"content": "x"}}]})

    with Faulty() as upstream:
        upstream.behave = slow
        config = config_of(tmp_path, upstreams={"big": upstream_of(upstream.url)}, limits=LIMITS)
        with running(config) as gateway, ThreadPoolExecutor(8) as pool:
            asked = [pool.submit(ask, gateway, "x") for _ in range(8)]
            wait_until(lambda: sum(one.done() for one in asked) == 6)
            others_refused.set()
            found = [one.result() for one in asked]
        assert sorted(one.status for one in found) == [200] * 2 + [503] * 6
        refused = next(one for one in found if one.status == 503)
        assert (refused.json["error"]["code"], refused.headers["retry-after"]) == ("overloaded", "1")


def test_garbage_on_the_wire_harms_nobody(bounded):
    for raw in (
        b"\x00\x01\x02\r\n\r\n",
        b"GET\r\n\r\n",
        b"POST /v1/x HTTP/9.9\r\n\r\n",
        b"\x16\x03\x01\x02\x00",
    ):
        with socket.create_connection(("127.0.0.1", bounded.port)) as sock:
            sock.settimeout(3)
            sock.sendall(raw)
            with contextlib.suppress(ConnectionResetError, TimeoutError):
                sock.recv(100)
    assert ask(bounded, "pear").status == 200


def test_a_stream_that_counts_no_tokens_spends_the_budget_all_the_same(tmp_path):
    async def long(exchange):
        await exchange.begin_stream()
        for _ in range(10):
            await exchange.event(delta("word " * 40))
        await exchange.event(delta(None, finish="stop"))
        await exchange.event("[DONE]")
        await exchange.end_stream()

    key, config = keyed(budget_usd=0.4)
    with Faulty() as upstream:
        upstream.behave = long
        priced = upstream_of(upstream.url, usd_per_million_input=0.0, usd_per_million_output=1000.0)
        with running(config_of(tmp_path, upstreams={"big": priced}, keys=(config,))) as gateway:
            headers = {"authorization": f"Bearer {key}"}
            body = {"messages": [{"role": "user", "content": "x"}], "stream": True}
            assert post(gateway, "/v1/chat/completions", body, headers).events[-1] == "[DONE]"
            used = gateway.gateway.access._keys[0].used
            wait_until(lambda: used.usd)
            assert used.usd == pytest.approx(0.5, rel=0.05)
            assert records_in(gateway)[-1].cost.price_usd is None
            found = post(gateway, "/v1/chat/completions", body, headers)
            assert found.json["error"]["code"] == "insufficient_quota"


def test_what_was_paid_for_is_booked_though_it_does_not_reach_the_client(tmp_path):
    async def by_text(exchange):
        said = exchange.body["messages"][-1]["content"]
        if "fail" in said:
            await exchange.reply({"error": {"message": "no"}}, 400)
        else:
            await exchange.reply(completion("pear" if "infer" in said else "far too long"))

    make_release(tmp_path)
    key, config = keyed(budget_usd=1e9)
    with Faulty() as upstream:
        upstream.behave = by_text
        # An answer is of 10 tokens in and 3 out: 13 dollars.
        prompt = {"template": "infer {input}"}
        priced = upstream_of(
            upstream.url, usd_per_million_input=1e6, usd_per_million_output=1e6, prompt=prompt
        )
        big = Single(candidate="upstream:big")
        rails = {"length": {"action": "escalate", "most_characters": 5, "where": ["output"]}}
        given = {"release": str(tmp_path / "7"), "upstreams": {"big": priced}, "guardrails": rails}
        route = Guarded(inner=Cascade(lean=big, fallback=big, threshold=0.0), guardrails=("length",))
        with running(config_of(tmp_path, route=route, keys=(config,), **given)) as gateway:
            headers = {"authorization": f"Bearer {key}"}
            used = gateway.gateway.access._keys[0].used
            chat = {"messages": [{"role": "user", "content": "x"}]}
            found = post(gateway, "/v1/chat/completions", chat, headers)
            assert found.json["error"]["code"] == "content_filter"
            assert (upstream.n, used.usd, used.tokens) == (2, 26.0, 26)
            lean, last = records_in(gateway)
            assert {lean.role, last.role} == {"lean", "answer"}
            assert lean.output is None
            tensor = {"name": "t", "datatype": "BYTES", "shape": [2], "data": ["one", "fail"]}
            found = post(gateway, "/v2/models/fruit/infer", {"inputs": [tensor]}, headers)
            assert found.status == 400
            assert used.usd == 39.0
            assert sorted(str(one.output) for one in records_in(gateway)[2:]) == ["None", "pear"]


def test_moderations_are_limited_as_other_requests_are(tmp_path):
    key, config = keyed(requests_per_minute=1)
    with Faulty() as upstream:
        given = config_of(
            tmp_path, upstreams={"big": upstream_of(upstream.url)}, keys=(config,), guardrails={"pii": {}}
        )
        with running(given) as gateway:
            headers = {"authorization": f"Bearer {key}"}
            assert post(gateway, "/v1/moderations", {"input": "x"}, headers).status == 200
            assert post(gateway, "/v1/moderations", {"input": "x"}, headers).status == 429
            gateway.gateway.n_open = 10**6
            for path in ("/v1/moderations", "/v1/feedback"):
                assert post(gateway, path, {"input": "x"}, headers).status == 503
            gateway.gateway.n_open = 0
