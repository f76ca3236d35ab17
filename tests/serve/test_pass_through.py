"""What goes to an upstream and comes back as it is, what is read of it, and what goes nowhere."""

import gzip
import json

import pytest

from exchange_faults import status
from gateways import Faulty, ask, completion, config_of, post, records_in, request, running, upstream_of


def test_wrong_usage_is_unknown_not_believed(faulty):
    gateway, upstream = faulty

    async def odd(exchange):
        await exchange.reply(completion("x", usage={"prompt_tokens": "many", "completion_tokens": -3}))

    upstream.behave = odd
    assert ask(gateway, "x").status == 200
    cost = records_in(gateway)[-1].cost
    assert (cost.prompt_tokens, cost.completion_tokens) == (None, None)


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
