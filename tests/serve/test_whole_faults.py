"""Every fault that an upstream's whole answer can have: each has one outcome, in docs/faults.md."""

import asyncio
import http.client
import json
import socket
import time

import openai
import pytest

from exchange_faults import (
    bad_json,
    closes_at_once,
    cut_off,
    drips,
    gzip_garbage,
    hang_before_headers,
    html,
    huge,
    huge_without_length,
    no_choices,
    no_http,
    resets,
    status,
)
from gateways import (
    IMPATIENT,
    Faulty,
    ask,
    client,
    completion,
    config_of,
    records_in,
    running,
    upstream_of,
    wait_until,
)

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
    assert time.monotonic() - started < 15  # far less than it hangs or drips
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
        with running(config_of(tmp_path, upstreams={"big": upstream_of(url, **IMPATIENT)})) as gateway:
            assert ask(gateway, "x").json["error"]["code"] == "upstream_unreachable"


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
