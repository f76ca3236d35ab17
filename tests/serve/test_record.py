"""`jettison record`: from one changed base URL to a task."""

import json
import tomllib

import msgspec
import openai
import pytest

from gateways import Faulty, client, completion, config_of, records_in, request, running, upstream_of
from jettison.cli.main import main
from jettison.serve.config import LogConfig
from jettison.task.read import read_task

WORDS = {"music": "play a song", "alarm": "wake me up", "weather": "will it rain"}


@pytest.fixture
def recorded(tmp_path):
    """The folder of a log that 60 calls of a real client left."""
    with Faulty() as upstream:

        async def label(exchange):
            said = exchange.body["messages"][-1]["content"]
            named = next(name for name, text in WORDS.items() if text in said)
            await exchange.reply(completion(named))

        upstream.behave = label
        config = config_of(
            tmp_path,
            upstreams={"incumbent": upstream_of(upstream.url, pass_key=True)},
            pass_other=True,
            log=LogConfig(text="keep", whole_requests=True, roll_rows=25),
        )
        with running(config) as gateway:
            ours = client(gateway, api_key="sk-the-clients-own")
            for i in range(60):
                said = list(WORDS.values())[i % 3]
                text = f"{chr(97 + i % 26)}{i} {said} a.b{i}@example.org {chr(122 - i % 25)}{i * 7}"
                ours.chat.completions.create(
                    model="large",
                    messages=[
                        {"role": "system", "content": "One of music, alarm, weather."},
                        {
                            "role": "user",
                            "content": f"Text: {text}\nLabel:",
                        },
                    ],
                )
            assert upstream.asked[-1].headers["authorization"] == "Bearer sk-the-clients-own"
            records_in(gateway)
            folder = gateway.gateway.log.folder
    files = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert b"sk-the-clients-own" not in files
    assert b"example.org" not in files
    return folder


def test_traffic_becomes_a_task(recorded, tmp_path, capsys):
    out = tmp_path / "task"
    with pytest.raises(SystemExit) as caught:
        main(["init", "--from-traffic", str(recorded), "--output", str(out), "--trust-answers", "--json"])
    assert caught.value.code == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["n_calls"], report["n_counted"], report["n_timed"]) == (60, 60, 60)
    assert set(report["labels"]) == set(WORDS)
    content = tomllib.loads((out / "task.toml").read_text())
    assert content["prompt"]["system"] == "One of music, alarm, weather."
    assert content["prompt"]["template"].startswith("Text: ")
    assert content["prompt"]["template"].endswith("\nLabel:")
    assert read_task(out / "task.toml").n_test > 0


def test_a_log_without_texts_says_what_to_do(tmp_path, capsys):
    with Faulty() as upstream:
        config = config_of(
            tmp_path, upstreams={"incumbent": upstream_of(upstream.url)}, log=LogConfig(text="hash")
        )
        with running(config) as gateway:
            client(gateway).chat.completions.create(model="m", messages=[{"role": "user", "content": "x"}])
            records_in(gateway)
            folder = gateway.gateway.log.folder
    for arguments, message in (
        ([str(folder)], "got 1 records"),
        ([str(tmp_path / "nowhere")], "must hold a traffic log"),
        ([str(folder), "model"], "takes its folder alone"),
    ):
        with pytest.raises(SystemExit) as caught:
            main(["init", "--from-traffic", *arguments, "--output", str(tmp_path / "task")])
        assert caught.value.code == 2
        assert message in capsys.readouterr().err


def test_what_an_upstream_refuses_is_the_clients_to_see_and_no_example(tmp_path):
    with Faulty() as upstream:

        async def refuses(exchange):
            await exchange.reply({"error": {"message": "bad key", "code": "invalid_api_key"}}, 401)

        upstream.behave = refuses
        config = config_of(tmp_path, upstreams={"incumbent": upstream_of(upstream.url, pass_key=True)})
        with running(config) as gateway:
            with pytest.raises(openai.AuthenticationError, match="bad key"):
                client(gateway).models.list() and client(gateway).chat.completions.create(
                    model="m", messages=[{"role": "user", "content": "x"}]
                )
            (row,) = records_in(gateway)
            assert (row.status, row.output) == (401, None)
            assert msgspec.json.encode(row)


def test_a_pass_through_names_the_models_of_its_upstream(tmp_path):
    listed = [{"id": name, "object": "model", "created": 1, "owned_by": "them"} for name in ("big", "a/b")]

    async def lists(exchange):
        at = exchange.path.removeprefix("/v1/models")
        named = [one for one in listed if at == "/" + one["id"].replace("/", "%2F")]
        if exchange.headers.get("authorization") != "Bearer sk-theirs":
            await exchange.reply({"error": {"message": "bad key", "code": "invalid_api_key"}}, 401)
        elif named or not at:
            await exchange.reply(named[0] if named else {"object": "list", "data": listed})
        else:
            await exchange.reply(b"<html>no such page", 404)

    with Faulty() as upstream:
        upstream.behave = lists
        config = config_of(
            tmp_path, upstreams={"incumbent": upstream_of(upstream.url, pass_key=True)}, pass_other=True
        )
        with running(config) as gateway:
            ours = client(gateway, api_key="sk-theirs")
            assert [one.id for one in ours.models.list()] == ["big", "a/b"]
            assert ours.models.retrieve("a/b").owned_by == "them"
            with pytest.raises(openai.NotFoundError, match="refused the request"):
                ours.models.retrieve("nothing")
            with pytest.raises(openai.AuthenticationError, match="bad key"):
                client(gateway).models.list()
            n_asked = upstream.n
            assert request(gateway.port, "GET", "/v1/models/..").status == 404
            assert upstream.n == n_asked
        with running(msgspec.structs.replace(config, model="ours", state=str(tmp_path / "b"))) as gateway:
            assert [one.id for one in client(gateway).models.list()] == ["ours"]
    with running(msgspec.structs.replace(config, state=str(tmp_path / "c"))) as gateway:
        found = request(gateway.port, "GET", "/v1/models")
        assert (found.status, found.json["error"]["code"]) == (502, "upstream_unreachable")
