"""Every fault an upstream can have, by a server of our own: each has one outcome, in docs/faults.md."""

import asyncio
import gzip
import http.client
import json
import socket
import time

import openai
import pytest

from gateways import (
    Faulty,
    answers,
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


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    folder = tmp_path_factory.mktemp("faults")
    with (
        Faulty() as upstream,
        running(
            config_of(folder, upstreams={"big": upstream_of(upstream.url, max_reply_bytes=100_000)})
        ) as gateway,
    ):
        yield gateway, upstream


@pytest.fixture
def faulty(pair):
    gateway, upstream = pair
    upstream.asked.clear()
    # Each test its own budget and breaker: what one fault spends must not change the next one's outcome.
    ours = gateway.gateway.plan.upstreams["big"]
    ours.breaker.succeeded()
    ours._budget._tokens = 10.0
    yield gateway, upstream
    upstream.behave = answers


async def hang_before_headers(exchange):
    await asyncio.sleep(5)


async def hang_after_headers(exchange):
    await exchange.begin_stream()
    await asyncio.sleep(5)


async def closes_at_once(exchange):
    exchange.writer.close()
    exchange.close()


async def resets(exchange):
    exchange.reset()


async def html(exchange):
    await exchange.reply(b"<html>busy</html>", content_type="text/html")


async def bad_json(exchange):
    await exchange.reply(b'{"choices": [')


async def no_choices(exchange):
    await exchange.reply({"choices": []})


async def huge(exchange):
    await exchange.reply(completion("x" * 200_000))


async def huge_without_length(exchange):
    await exchange.send(
        b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"
    )
    for _ in range(30):
        await exchange.chunk(b" " * 10_000)


async def cut_off(exchange):
    await exchange.send(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n{")
    exchange.writer.close()
    exchange.close()


async def gzip_garbage(exchange):
    await exchange.reply(b"\x1f\x8bgarbage", content_encoding="gzip")


async def drips(exchange):
    await exchange.send(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n")
    for _ in range(100):
        await exchange.send(b" ")
        await asyncio.sleep(0.05)


async def no_http(exchange):
    await exchange.send(b"SSH-2.0-OpenSSH\r\n\r\n")
    exchange.close()


def status(code, **headers):
    async def behave(exchange):
        await exchange.reply({"error": {"message": "no", "type": "x", "code": "c"}}, code, **headers)

    return behave


# fault → status for the client, code, times the upstream was asked (1 retry is allowed)
WHOLE = [
    (hang_before_headers, 504, "upstream_timeout", 1),
    (closes_at_once, 502, "upstream_cut_off", 2),
    (resets, 502, "upstream_cut_off", 2),
    (html, 502, "bad_upstream_reply", 2),
    (bad_json, 502, "bad_upstream_reply", 2),
    (no_choices, 502, "bad_upstream_reply", 2),
    (huge, 502, "upstream_reply_too_long", 1),
    (huge_without_length, 502, "upstream_reply_too_long", 1),
    (cut_off, 502, "upstream_cut_off", 2),
    (gzip_garbage, 502, "upstream_cut_off", 2),
    (drips, 504, "upstream_timeout", 1),
    (no_http, 502, "upstream_cut_off", 2),
    (status(500), 502, "upstream_error", 2),
    (status(503), 503, "upstream_error", 2),
    (status(429, retry_after="7"), 429, "upstream_busy", 1),
    (status(429, retry_after_ms="10"), 429, "upstream_busy", 2),
    (status(401), 502, "upstream_auth", 1),
    (status(302, location="http://127.0.0.1:1/"), 502, "upstream_redirect", 1),
]


@pytest.mark.parametrize(
    ("fault", "told", "code", "n"), WHOLE, ids=[f"{f.__name__}-{t}-{c}" for f, t, c, n in WHOLE]
)
def test_a_fault_of_a_whole_answer(faulty, fault, told, code, n):
    gateway, upstream = faulty
    upstream.behave = fault
    started = time.monotonic()
    found = ask(gateway, "x")
    assert (found.status, found.json["error"]["code"], upstream.n) == (told, code, n)
    # After our own retries the client is not to try again three times over.
    assert found.headers["x-should-retry"] == "false"
    assert time.monotonic() - started < 4
    record = records_in(gateway)[-1]
    assert (record.error, record.status, record.output) == (code, told, None)
    assert record.unanswered == (code in ("upstream_timeout", "upstream_cut_off"))


def test_refusals_of_the_request_itself_come_as_the_upstream_said_them(faulty):
    gateway, upstream = faulty
    upstream.behave = status(422)
    with pytest.raises(openai.UnprocessableEntityError) as caught:
        client(gateway).chat.completions.create(model="m", messages=[{"role": "user", "content": "x"}])
    assert caught.value.code == "c"
    assert caught.value.request_id.startswith("req_")
    assert upstream.n == 1


def test_nobody_listens(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/v1"
        with running(config_of(tmp_path, upstreams={"big": upstream_of(url)})) as gateway:
            found = ask(gateway, "x")
            assert (found.status, found.json["error"]["code"]) == (502, "upstream_unreachable")


def test_a_name_that_is_none(tmp_path):
    config = config_of(tmp_path, upstreams={"big": upstream_of("http://no-such-host.invalid/v1")})
    with running(config) as gateway:
        found = ask(gateway, "x")
        assert (found.status, found.json["error"]["code"]) == (502, "upstream_unreachable")


def test_tls_where_there_is_none(tmp_path):
    with Faulty() as upstream:
        url = upstream.url.replace("http://", "https://")
        with running(config_of(tmp_path, upstreams={"big": upstream_of(url)})) as gateway:
            assert ask(gateway, "x").json["error"]["code"] == "upstream_unreachable"


def test_retry_after_of_the_upstream_reaches_the_client(faulty):
    gateway, upstream = faulty
    upstream.behave = status(429, retry_after="7")
    found = ask(gateway, "x")
    assert (found.headers["retry-after"], found.headers["retry-after-ms"]) == ("7", "7000")


def test_a_fault_that_passes_is_not_seen(faulty):
    gateway, upstream = faulty

    async def second_time(exchange):
        await (resets if exchange.number == 1 else answers)(exchange)

    upstream.behave = second_time
    assert ask(gateway, "x").json["choices"][0]["message"]["content"] == "big answer"
    assert upstream.n == 2


def test_wrong_usage_is_unknown_not_believed(faulty):
    gateway, upstream = faulty

    async def odd(exchange):
        await exchange.reply(completion("x", usage={"prompt_tokens": "many", "completion_tokens": -3}))

    upstream.behave = odd
    assert ask(gateway, "x").status == 200
    cost = records_in(gateway)[-1].cost
    assert (cost.prompt_tokens, cost.completion_tokens) == (None, None)


# Streams


async def dies_after_two(exchange, how):
    await exchange.begin_stream()
    await exchange.event(delta("one "))
    await exchange.event(delta("two "))
    await how(exchange)


async def _closes(exchange):
    exchange.writer.close()
    exchange.close()


async def _hangs(exchange):
    await asyncio.sleep(5)


async def _resets(exchange):
    await asyncio.sleep(0.05)
    exchange.reset()


async def _ends_without_done(exchange):
    await exchange.end_stream()


async def _says_error(exchange):
    await exchange.event({"error": {"message": "broke", "type": "server_error", "code": "boom"}})
    await exchange.end_stream()


async def _half_a_frame(exchange):
    await exchange.chunk(b'data: {"choi')
    await exchange.end_stream()


MID = [
    (_closes, "upstream_cut_off"),
    (_hangs, "upstream_idle"),
    (_resets, "upstream_cut_off"),
    (_ends_without_done, "upstream_cut_off"),
    (_half_a_frame, "upstream_cut_off"),
    (_says_error, "boom"),
]


@pytest.mark.parametrize(("how", "code"), MID, ids=[how.__name__ for how, _ in MID])
def test_a_stream_that_dies_ends_in_an_error_and_is_never_asked_again(faulty, how, code):
    gateway, upstream = faulty
    upstream.behave = lambda exchange: dies_after_two(exchange, how)
    texts = []
    with pytest.raises(openai.APIError) as caught:  # noqa: PT012 - the error is to come after the words
        for chunk in client(gateway, max_retries=2).chat.completions.create(
            model="m", messages=[{"role": "user", "content": "x"}], stream=True
        ):
            texts.append(chunk.choices[0].delta.content)
    assert texts == ["one ", "two "]
    assert caught.value.code == code
    assert upstream.n == 1
    wait_until(lambda: records_in(gateway)[-1].error is not None)
    record = records_in(gateway)[-1]
    assert record.unanswered
    assert record.output is None


@pytest.mark.parametrize(
    "fault", [hang_before_headers, hang_after_headers, resets, closes_at_once, status(500)]
)
def test_a_stream_that_never_had_content_is_an_error_with_a_status(faulty, fault):
    gateway, upstream = faulty
    upstream.behave = fault
    with pytest.raises(openai.InternalServerError):
        client(gateway).chat.completions.create(
            model="m", messages=[{"role": "user", "content": "x"}], stream=True
        )


def test_a_stream_that_fails_before_its_first_content_is_tried_again(faulty):
    gateway, upstream = faulty

    async def behave(exchange):
        if exchange.number == 1:
            await exchange.begin_stream()
            await exchange.event({**delta(None), "choices": [{"index": 0, "delta": {"role": "assistant"}}]})
            await exchange.event({"error": {"message": "overloaded"}})
            await exchange.end_stream()
        else:
            await answers(exchange)

    upstream.behave = behave
    found = ask(gateway, "x", stream=True)
    said = "".join(e["choices"][0]["delta"].get("content") or "" for e in found.events[:-1] if e["choices"])
    assert (said, upstream.n) == ("one two three", 2)


def test_comments_keep_a_stream_alive_and_slow_is_not_dead(faulty):
    gateway, upstream = faulty

    async def slow(exchange):
        await exchange.begin_stream()
        for word in ("a ", "b ", "c"):
            await exchange.event(delta(word))
            await asyncio.sleep(0.2)
            await exchange.chunk(b": keepalive\n\n")
            await asyncio.sleep(0.25)
        await exchange.event("[DONE]")
        await exchange.end_stream()

    upstream.behave = slow
    events = ask(gateway, "x", stream=True).events
    assert [e["choices"][0]["delta"]["content"] for e in events[:-1]] == ["a ", "b ", "c"]


def test_frames_come_whole_however_the_network_cuts_them(faulty):
    gateway, upstream = faulty

    async def crumbs(exchange):
        await exchange.begin_stream()
        raw = f"data: {json.dumps(delta('ä€'))}\r\n\r\ndata: {json.dumps(delta('b'))}\n\ndata: [DONE]\n\n"
        for byte in raw.encode():
            await exchange.chunk(bytes([byte]))
        await exchange.end_stream()

    upstream.behave = crumbs
    events = ask(gateway, "x", stream=True).events
    assert [e["choices"][0]["delta"]["content"] for e in events[:-1]] == ["ä€", "b"]


def test_an_upstream_that_does_not_stream_is_streamed(faulty):
    gateway, upstream = faulty

    async def whole(exchange):
        await exchange.reply(completion("all at once"))

    upstream.behave = whole
    found = client(gateway).chat.completions.create(
        model="m",
        messages=[{"role": "user", "content": "x"}],
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = list(found)
    assert chunks[0].choices[0].delta.content == "all at once"
    assert chunks[-1].usage.total_tokens == 13


def test_gzip_is_read(faulty):
    gateway, upstream = faulty

    async def zipped(exchange):
        await exchange.reply(gzip.compress(json.dumps(completion("z")).encode()), content_encoding="gzip")

    upstream.behave = zipped
    assert ask(gateway, "x").json["choices"][0]["message"]["content"] == "z"


def test_unknown_fields_pass_through_and_numbers_stay_as_they_are(faulty):
    gateway, upstream = faulty
    ask(gateway, "x", reasoning_effort="low", my_own={"a": [1, 2.5, None]}, seed=2**53 + 1)
    body = upstream.asked[-1].body
    assert (body["reasoning_effort"], body["my_own"], body["seed"]) == (
        "low",
        {"a": [1, 2.5, None]},
        2**53 + 1,
    )


def test_a_client_that_goes_away_ends_the_upstreams_stream(faulty):
    gateway, upstream = faulty
    ended = []

    async def for_ever(exchange):
        await exchange.begin_stream()
        try:
            while True:
                await exchange.event(delta("w "))
                await asyncio.sleep(0.02)
        finally:
            ended.append(True)

    upstream.behave = for_ever
    connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=5)
    body = {"model": "m", "stream": True, "messages": [{"role": "user", "content": "x"}]}
    connection.request("POST", "/v1/chat/completions", json.dumps(body))
    response = connection.getresponse()
    response.read(10)
    response.close()
    connection.close()
    wait_until(lambda: ended)
    wait_until(lambda: records_in(gateway)[-1].error == "client_gone")


def test_a_client_that_goes_away_before_a_whole_answer_leaves_its_record(faulty):
    gateway, upstream = faulty

    async def soon(exchange):
        await asyncio.sleep(0.2)
        await exchange.reply(completion("nobody reads this"))

    upstream.behave = soon
    connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=5)
    connection.request("POST", "/v1/chat/completions", json.dumps({"messages": [{"role": "user"}]}))
    wait_until(lambda: upstream.asked)
    connection.close()
    wait_until(lambda: records_in(gateway)[-1].output == "nobody reads this")
    assert records_in(gateway)[-1].error is None


@pytest.mark.slow
def test_a_slow_reader_slows_the_upstream_and_is_not_taken_for_its_fault(faulty):
    gateway, upstream = faulty
    breaker = gateway.gateway.plan.upstreams["big"].breaker
    sent = []

    async def for_ever(exchange):
        await exchange.begin_stream()
        while True:
            await exchange.event(delta("w" * 2**16))
            sent.append(2**16)

    upstream.behave = for_ever
    body = json.dumps({"model": "m", "stream": True, "messages": [{"role": "user", "content": "x"}]})
    head = "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: "
    head += f"{len(body)}\r\n\r\n"
    with socket.socket() as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**16)
        slow.connect(("127.0.0.1", gateway.port))
        slow.sendall(head.encode() + body.encode())
        time.sleep(1.0)  # far longer than the buffers take
        full = len(sent)
        assert sum(sent) < 24 * 2**20  # what the kernel's buffers hold, and some
        time.sleep(0.5)
        assert len(sent) == full
        time.sleep(2.0)  # past total_s
        slow.settimeout(5)
        last = b""
        while piece := slow.recv(2**20):  # now it reads: at once it is told that its time is over
            last = (last + piece)[-1000:]
        assert b"upstream_timeout" in last
    wait_until(lambda: records_in(gateway)[-1].error == "upstream_timeout")
    assert breaker._n_failed == 0


def test_nothing_is_passed_on_after_an_error_in_mid_stream(faulty):
    gateway, upstream = faulty

    async def goes_on(exchange):
        await exchange.begin_stream()
        await exchange.event(delta("a word"))
        await asyncio.sleep(0.05)
        events = ({"error": {"message": "broken", "code": "x"}}, delta("more"))
        await exchange.chunk(b"".join(b"data: " + json.dumps(one).encode() + b"\n\n" for one in events))
        await exchange.event("[DONE]")
        await exchange.end_stream()

    upstream.behave = goes_on
    events = ask(gateway, "x", stream=True).events
    assert events[-1]["error"]["code"] == "x"
    assert len(events) == 2


def test_the_breaker_opens_is_said_and_closes_again(tmp_path):
    with Faulty() as upstream:
        upstream.behave = status(500)
        config = upstream_of(upstream.url, breaker_failures=3, breaker_s=0.3, max_retries=0)
        with running(config_of(tmp_path, upstreams={"big": config})) as gateway:
            codes = [ask(gateway, "x").json["error"]["code"] for _ in range(6)]
            assert codes == ["upstream_error"] * 3 + ["upstream_open"] * 3
            assert upstream.n == 3
            found = ask(gateway, "x")
            assert (found.status, int(found.headers["retry-after"])) == (503, 1)
            assert request(gateway.port, "GET", "/health/ready").json["upstreams"] == {"big": "open"}
            assert (
                b'jettison_upstream_open{upstream="big"} 1.0'
                in request(gateway.port, "GET", "/metrics").raw
            )
            upstream.behave = answers
            wait_until(lambda: ask(gateway, "x").status == 200)
            assert request(gateway.port, "GET", "/health/ready").json["upstreams"]["big"] in (
                "closed",
                "open",
            )
            assert ask(gateway, "x").status == 200


def test_flapping_never_costs_more_retries_than_the_budget(tmp_path):
    with Faulty() as upstream:

        async def flaps(exchange):
            await (status(503) if exchange.number % 2 else answers)(exchange)

        upstream.behave = flaps
        config = upstream_of(upstream.url, retry_share=0.1, max_retries=3, breaker_failures=1000)
        with running(config_of(tmp_path, upstreams={"big": config})) as gateway:
            n = 60
            for _ in range(n):
                ask(gateway, "x")
            # 10 are always allowed, and a tenth of the requests.
            assert upstream.n - n <= 10 + 0.1 * n


def test_a_key_of_the_upstream_is_sent_there_and_nowhere_else(tmp_path, monkeypatch, capfd):
    secret = "sk-upstream-secret-12345"
    monkeypatch.setenv("BIG_KEY", secret)
    with Faulty() as upstream:
        config = config_of(
            tmp_path, upstreams={"big": upstream_of(upstream.url, api_key_env="BIG_KEY")}, log_requests=True
        )
        with running(config) as gateway:
            found = ask(gateway, "x")
            assert upstream.asked[-1].headers["authorization"] == f"Bearer {secret}"
            metrics = request(gateway.port, "GET", "/metrics").raw
            records = str(records_in(gateway))
            upstream.behave = status(401)
            refused = ask(gateway, "x")
    logged = capfd.readouterr()
    everything = f"{found.raw} {found.headers} {metrics} {records} {refused.raw} {logged.out} {logged.err}"
    assert secret not in everything


def test_other_paths_go_through_where_that_is_asked_for(tmp_path):
    with Faulty() as upstream:

        async def responses(exchange):
            if exchange.body.get("stream"):
                await exchange.begin_stream()
                await exchange.chunk(b'event: response.created\ndata: {"type":"response.created"}\n\n')
                await exchange.chunk(b'event: response.completed\ndata: {"type":"response.completed"}\n\n')
                await exchange.end_stream()
            else:
                await exchange.reply({"id": "r", "object": "response", "output": []})

        upstream.behave = responses
        config = config_of(tmp_path, upstreams={"big": upstream_of(upstream.url)}, pass_other=True)
        with running(config) as gateway:
            assert post(gateway, "/v1/responses", {"input": "x"}).json["object"] == "response"
            assert upstream.asked[-1].path == "/v1/responses"
            streamed = post(gateway, "/v1/responses", {"input": "x", "stream": True})
            assert [e["type"] for e in streamed.events] == ["response.created", "response.completed"]


@pytest.mark.parametrize(
    "path", ["/v1/../admin", "/v1/%2e%2e/admin", "/v1/a%3Fb", "/v1//a", "/v1/a%2F..%2Fb", "/v1/.a"]
)
def test_no_other_path_leads_out_of_the_upstream(tmp_path, path):
    with Faulty() as upstream:
        config = config_of(tmp_path, upstreams={"big": upstream_of(upstream.url)}, pass_other=True)
        with running(config) as gateway:
            assert post(gateway, path, {}).status == 404
            assert upstream.n == 0


def test_a_comment_takes_nothing_of_the_event_that_follows_at_once(faulty):
    gateway, upstream = faulty

    async def commented(exchange):
        await exchange.begin_stream()
        await exchange.chunk(b": alive\ndata: " + json.dumps(delta("one ")).encode() + b"\n\n")
        await exchange.chunk(b": alive\n\n")
        await exchange.event(delta("two", finish="stop"))
        await exchange.event("[DONE]")
        await exchange.end_stream()

    upstream.behave = commented
    events = ask(gateway, "x", stream=True).events
    assert [one["choices"][0]["delta"]["content"] for one in events[:-1]] == ["one ", "two"]
