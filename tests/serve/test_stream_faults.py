"""Every fault that a stream can have, before its first word and in its middle; see docs/faults.md."""

import asyncio
import http.client
import json
import socket
import time

import openai
import pytest

from exchange_faults import closes_at_once, hang_after_headers, hang_before_headers, resets, status
from gateways import answers, ask, client, completion, delta, records_in, wait_until


async def dies_after_two(exchange, how):
    await exchange.begin_stream()
    await exchange.event(delta("one "))
    await exchange.event(delta("two "))
    await how(exchange)


async def _closes(exchange):
    exchange.writer.close()
    exchange.close()


async def _hangs(exchange):
    await asyncio.sleep(60)


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
        full = -1
        while len(sent) != full:  # until the buffers are full
            full = len(sent)
            assert sum(sent) < 24 * 2**20  # what the kernel's buffers hold, and some
            time.sleep(0.5)
        time.sleep(3.0)  # past total_s
        assert len(sent) == full
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
