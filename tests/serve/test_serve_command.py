"""What `jettison serve` says before it serves: checks, idle guardrails, bad input."""

import json

import pytest

from gateways import Faulty, ask, config_of, records_in, running, upstream_of
from jettison.cli.main import main
from jettison.route import Guarded, Single
from jettison.serve.config import ServeConfig


def test_the_command_checks_without_serving_and_makes_keys(tmp_path, release, capsys):
    for arguments, said in (
        (["serve", release, "--check"], "SHIP"),
        (["serve", "--new-key", "team"], "sha256 = "),
    ):
        with pytest.raises(SystemExit) as caught:
            main(arguments)
        assert caught.value.code == 0
        assert said in capsys.readouterr().out


def test_a_start_says_which_guardrails_no_route_asks(tmp_path, release, caplog):
    inner = Single(candidate="release")
    rails = {"pii": {}, "secrets": {}}
    for route, idle in ((Guarded(inner=inner, guardrails=("pii",)), ["secrets"]), (None, [*rails])):
        with caplog.at_level("INFO", "jettison.serve"):
            caplog.clear()
            with running(config_of(tmp_path, release=release, guardrails=rails, route=route)):
                told = [json.loads(one.message) for one in caplog.records]
        assert [one["guardrails"] for one in told if one["event"] == "guardrails_idle"] == [idle]
        (listening,) = (one for one in told if one["event"] == "listening")
        assert listening["guardrails"] == sorted(set(rails) - set(idle))


def test_a_check_opens_guardrails_and_says_which_no_route_asks(tmp_path, release, capsys):
    config = tmp_path / "serve.toml"
    inner = "{type = 'single', candidate = 'release'}"
    route = f"[route]\ntype = 'guarded'\nguardrails = ['pii']\ninner = {inner}\n"
    head = f"release = '{release}'\n[guardrails.pii]\n[guardrails.secrets]\n"
    for rails, code, said in (
        ("", 0, "guardrail pii in the route\nguardrail secrets asked by moderations ALONE"),
        ("[guardrails.prompt_injection]\n", 2, "must be the folder of a guard"),
    ):
        config.write_text(head + rails + route)
        with pytest.raises(SystemExit) as caught:
            main(["serve", "--config", str(config), "--check"])
        assert caught.value.code == code
        told = capsys.readouterr()
        assert said in told.out + told.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["serve"], "there must be a release"),
        (["serve", "nowhere"], "must be a release"),
        (["serve", "RELEASE", "--host", "0.0.0.0"], "must have API keys"),
        (["serve", "RELEASE", "--template", "x"], "must hold {input}"),
        (["serve", "--config", "nowhere.toml"], "must be a readable file"),
        (["serve", "RELEASE", "--incumbent", "h/v1"], "must be an address"),
        (
            ["serve", "RELEASE", "--incumbent", "http://h/v1", "--incumbent-key-env", "NOT_SET_KEY"],
            "must hold the key",
        ),
        (["record", "--incumbent", "nonsense"], "must be an address"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(release, arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments = [release if one == "RELEASE" else one for one in arguments]
    with pytest.raises(SystemExit) as caught:
        main([*arguments, "--port", "0"])
    assert caught.value.code == 2
    said = capsys.readouterr().err
    assert message in said
    assert "Traceback" not in said


def test_a_port_that_is_taken_is_said(tmp_path, release, capsys):
    with running(config_of(tmp_path, release=release)) as gateway:
        with pytest.raises(SystemExit) as caught:
            main(["serve", release, "--port", str(gateway.port), "--state", str(tmp_path / "s")])
        assert caught.value.code == 2
        assert "in use" in capsys.readouterr().err


def test_a_gateway_of_an_upstream_alone_needs_no_release(tmp_path):
    with Faulty() as upstream:
        config = ServeConfig(
            state=str(tmp_path / "s"), upstreams={"big": upstream_of(upstream.url)}, drain_s=1.0
        )
        with running(config) as gateway:
            assert ask(gateway, "x").json["choices"][0]["message"]["content"] == "big answer"
            (row,) = records_in(gateway)
            assert (row.input, row.output.startswith("sha256:")) == (None, True)  # hashed unless told
