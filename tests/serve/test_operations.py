"""Start, proof, reload, drain, stop: under load, and with real processes and signals."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest

from gateways import (
    Faulty,
    answers,
    ask,
    completion,
    config_of,
    delta,
    records_in,
    request,
    rows_in,
    running,
    upstream_of,
    wait_until,
)
from jettison.cli.main import main
from jettison.decision import Verdict
from jettison.errors import BrokenArtifact, InvalidInput
from jettison.record import Record
from jettison.route import Guarded, Single
from jettison.serve.config import ProofConfig, ServeConfig, read_serve_config
from jettison.serve.flags import resolve
from jettison.serve.proof import open_proven
from releasing import make_candidate, make_decision, make_release


@pytest.fixture(scope="module")
def release(tmp_path_factory):
    folder = tmp_path_factory.mktemp("operations")
    make_release(folder)
    return str(folder / "7")


# Proof


def test_a_release_that_was_altered_is_never_served(tmp_path):
    make_release(tmp_path)
    weights = tmp_path / "7" / "candidates" / "0" / "weights.safetensors"
    weights.chmod(0o644)
    weights.write_bytes(b"other weights")
    for unproven in (False, True):
        with pytest.raises(BrokenArtifact, match="it was altered"):
            open_proven(tmp_path / "7", ProofConfig(unproven=unproven))


@pytest.mark.parametrize("case", ["hold", "too_old", "past_date"])
def test_a_release_without_its_proof_is_refused_unless_told(tmp_path, case):
    candidate = make_candidate(tmp_path / "candidate")
    decision = make_decision(candidate)
    given = {}
    if case == "hold":
        decision = msgspec.structs.replace(decision, verdict=Verdict.BLOCK)
    if case == "past_date":
        given["proven_until"] = "2026-11-15"
    make_release(tmp_path, candidate=candidate, decision=decision, **given)
    config = ProofConfig(max_age_days=10 if case == "too_old" else None)
    now = datetime(2026, 11, 20, tzinfo=UTC)
    with pytest.raises(InvalidInput, match="a release to serve must bring its proof"):
        open_proven(tmp_path / "7", config, now=now)
    told = open_proven(tmp_path / "7", msgspec.structs.replace(config, unproven=True), now=now)
    assert told.doubts == (case,)


def test_serving_unproven_is_said_everywhere(tmp_path, capfd):
    candidate = make_candidate(tmp_path / "candidate")
    decision = msgspec.structs.replace(make_decision(candidate), verdict=Verdict.NOT_ENOUGH_DATA)
    make_release(tmp_path, candidate=candidate, decision=decision)
    config = config_of(tmp_path, release=str(tmp_path / "7"), proof=ProofConfig(unproven=True))
    with running(config) as gateway:
        assert ask(gateway, "pear").headers["x-jettison-unproven"] == "true"
        assert request(gateway.port, "GET", "/v1/models").json["data"][0]["jettison"]["unproven"] == [
            "hold"
        ]
        assert request(gateway.port, "GET", "/health/ready").json["unproven"] == ["hold"]
        assert (
            b'jettison_unproven{reason="hold",release="7"} 1.0'
            in request(gateway.port, "GET", "/metrics").raw
        )


def test_proof_ages_by_the_clock(release):
    proven_on = datetime(2026, 11, 1, tzinfo=UTC)
    found = open_proven(Path(release), ProofConfig(max_age_days=30), now=proven_on + timedelta(days=29))
    assert (found.age_days, found.doubts) == (29.0, ())


# Configuration

GUARDED = """[route]
type = "guarded"
guardrails = ["x"]
inner = {type = "single", candidate = "release"}
"""
PLAIN_KEY = "[[keys]]\nname = 'a'\nsha256 = 'jt-plain'"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("release = ", r"must be TOML"),
        ("relaese = 'x'", r"Object contains unknown field `relaese`"),
        ("release = 'r'\n[limits]\nbody_bytes = 'many'", r"got `str` - at `\$\.limits\.body_bytes`"),
        ("release = 'r'\nport = 99999", r"must be in 0-65535, got 99999 - at `\$\.port`"),
        ("release = 'r'\n[upstreams.x]\nurl = 'ftp://x'", r"\$\.upstreams\.x\.url must be an address"),
        ("release = 'r'\n[upstreams.x]\nurl = 'http://k:secret@h/v1'", r"without user, key or query in it"),
        (f"release = 'r'\n{PLAIN_KEY}", r"never the key itself - at `\$\.keys\[0\]\.sha256`"),
        (f"release = 'r'\n{GUARDED}", r"got 'x'. Describe it under \[guardrails\]"),
        ("format = 2\nrelease = 'r'", r"format must be 1, got 2"),
        ("", r"there must be a release, an upstream or an embedder"),
        ("release = 'r'\n[input]\ntemplate = 'x'", r"must hold \{input\}"),
    ],
)  # fmt: skip
def test_a_faulty_file_is_refused_with_the_path_of_the_fault(tmp_path, text, message):
    path = tmp_path / "serve.toml"
    path.write_text(text)
    with pytest.raises(InvalidInput, match=message) as caught:
        read_serve_config(path)
    assert "secret" not in str(caught.value)
    assert "jt-plain" not in str(caught.value)


def test_options_stand_above_the_file(tmp_path, release):
    path = tmp_path / "serve.toml"
    path.write_text("release = 'other'\nport = 1\n[log]\ntext = 'drop'\n")
    found = resolve(path, Path(release), {"port": 2, "log_text": "keep", "incumbent": "http://h/v1/"})
    assert (found.release, found.port, found.log.text) == (release, 2, "keep")
    assert found.upstreams["incumbent"].url == "http://h/v1"
    assert found.state == str(tmp_path / "serve-state")


def test_a_file_may_leave_the_release_to_the_command(tmp_path, release):
    path = tmp_path / "serve.toml"
    path.write_text("[engine]\nqueue = 7\n")
    found = resolve(path, Path(release), {})
    assert (found.release, found.engine.queue) == (release, 7)
    with pytest.raises(InvalidInput, match="there must be a release, an upstream or an embedder"):
        resolve(path, None, {})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"route": "cascade"}, "must have an incumbent, got none"),
        ({"route": "cascade", "incumbent": "http://h/v1"}, "this release certifies none"),
        ({"threshold": 0.5}, "--threshold and --share go with --route"),
        ({"incumbent_model": "m"}, "go with --incumbent"),
    ],
)
def test_options_that_do_not_go_together(release, given, message):
    with pytest.raises(InvalidInput, match=message):
        resolve(None, Path(release), given)


def test_routes_by_option(release):
    far = {"incumbent": "http://h/v1"}
    split = resolve(None, Path(release), {**far, "route": "split", "share": 0.2}).route
    assert (split.treatment_share, split.salt, split.control.candidate) == (0.2, "7", "upstream:incumbent")
    shadow = resolve(None, Path(release), {**far, "route": "shadow"}).route
    assert (shadow.shadow_share, shadow.main.candidate) == (1.0, "upstream:incumbent")
    cascade = resolve(None, Path(release), {**far, "route": "cascade", "threshold": 0.8}).route
    assert (cascade.threshold, cascade.lean.candidate) == (0.8, "release")


# Reload


@contextmanager
def under_load(gateway, **given):
    """Requests without a pause from four threads; yields the list of what went wrong."""
    failed, n, stop = [], [0], threading.Event()

    def load():
        while not stop.is_set():
            try:
                found = ask(gateway, "pear", **given)
                n[0] += 1
                if found.status != 200:
                    failed.append(found.raw)
            except Exception as error:  # noqa: BLE001 - whatever it is, it is a failure
                failed.append(error)

    threads = [threading.Thread(target=load) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        yield failed
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert n[0] > 20


def test_reloads_under_load_fail_no_request_and_a_faulty_one_changes_nothing(tmp_path, release):
    second = tmp_path / "second"
    make_release(second, candidate=(c := make_candidate(second / "c", seed=1)), decision=make_decision(c))
    link = tmp_path / "current"
    link.symlink_to(release)
    path = tmp_path / "serve.toml"
    head = "release = 'current'\nstate = 'state'\n"
    path.write_text(head)
    read = lambda: read_serve_config(path)
    with running(read(), read_again=read, watched=(path,)) as gateway, under_load(gateway) as failed:
        first = gateway.gateway.release_digest
        new = tmp_path / "new"
        new.symlink_to(second / "7")
        os.replace(new, link)  # as a deployment swaps releases
        wait_until(lambda: gateway.gateway.release_digest != first, 10)
        path.write_text(head + "[limits]\nbody_bytes = 'x'\n")
        time.sleep(1.0)
        assert (
            b'jettison_reloads_total{outcome="refused"} 1.0' in request(gateway.port, "GET", "/metrics").raw
        )
        path.write_text(head + "model = 'renamed'\n")
        wait_until(lambda: gateway.gateway.model_name == "renamed", 10)
        path.write_text(head + "port = 1\n")
        time.sleep(1.0)
        assert gateway.gateway.model_name == "renamed"
        assert failed == []


def test_a_stream_under_way_ends_under_the_plan_that_it_began_with(tmp_path):
    import asyncio

    go_on = threading.Event()
    with Faulty() as upstream:

        async def slow(exchange):
            await exchange.begin_stream()
            await exchange.event(delta("a "))
            while not go_on.is_set():
                await exchange.chunk(b": wait\n\n")
                await asyncio.sleep(0.05)
            await exchange.event(delta("b"))
            await exchange.event("[DONE]")
            await exchange.end_stream()

        upstream.behave = slow
        path = tmp_path / "serve.toml"
        text = f"state = 'state'\n[upstreams.big]\nurl = '{upstream.url}'\ntotal_s = 20.0\n"
        path.write_text(text)
        read = lambda: read_serve_config(path)
        with running(read(), read_again=read, watched=(path,)) as gateway:
            found = []
            thread = threading.Thread(target=lambda: found.append(ask(gateway, "x", stream=True)))
            thread.start()
            wait_until(lambda: upstream.n == 1)
            old = gateway.gateway.plan
            path.write_text("model = 'renamed'\n" + text)
            wait_until(lambda: gateway.gateway.plan is not old, 10)
            go_on.set()
            thread.join(10)
            assert [e["choices"][0]["delta"]["content"] for e in found[0].events[:-1]] == ["a ", "b"]
            assert found[0].events[-1] == "[DONE]"


# Processes and signals


@contextmanager
def process(tmp_path, *arguments):
    """`jettison serve` as a user starts it; yields the process and its port."""
    command = [
        sys.executable,
        "-m",
        "jettison.cli",
        *arguments,
        "--port",
        "0",
        "--state",
        str(tmp_path / "state"),
    ]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=tmp_path) as running_process:
        lines = []
        assert running_process.stderr is not None
        for line in running_process.stderr:
            lines.append(line)
            if '"listening"' in line:
                break
        else:
            raise AssertionError("".join(lines))
        drain = threading.Thread(target=lambda: lines.extend(running_process.stderr), daemon=True)
        drain.start()
        try:
            yield running_process, json.loads(lines[-1])["port"], lines
        finally:
            if running_process.poll() is None:
                running_process.kill()
            running_process.wait(10)
            drain.join(5)


def chat(port, text, **given):
    body = {"messages": [{"role": "user", "content": text}], **given}
    return request(port, "POST", "/v1/chat/completions", body)


def test_sigterm_answers_what_is_under_way_and_ends(tmp_path, release):
    import asyncio

    with Faulty() as upstream:

        async def slow(exchange):
            await asyncio.sleep(0.8)
            await exchange.reply(completion("late"))

        upstream.behave = slow
        arguments = (
            "serve",
            release,
            "--incumbent",
            upstream.url,
            "--route",
            "cascade",
            "--threshold",
            "2",
        )
        with process(tmp_path, *arguments) as (running_process, port, lines):
            found = []
            threads = [threading.Thread(target=lambda: found.append(chat(port, "x"))) for _ in range(8)]
            for thread in threads:
                thread.start()
            wait_until(lambda: upstream.n == 8)
            running_process.send_signal(signal.SIGTERM)
            for thread in threads:
                thread.join(10)
            assert [one.status for one in found] == [200] * 8
            assert running_process.wait(10) == 0
        assert any('"draining"' in line for line in lines)
        rows = rows_in(tmp_path / "state" / "traffic", "records", Record)
        assert sum(row.role == "answer" for row in rows) == 8


def test_a_stream_past_the_end_of_the_drain_ends_in_an_error(tmp_path):
    import asyncio

    with Faulty() as upstream:

        async def for_ever(exchange):
            await exchange.begin_stream()
            while True:
                await exchange.event(delta("w "))
                await asyncio.sleep(0.05)

        upstream.behave = for_ever
        config = tmp_path / "serve.toml"
        config.write_text(f"drain_s = 1.0\n[upstreams.big]\nurl = '{upstream.url}'\n")
        with process(tmp_path, "serve", "--config", str(config)) as (running_process, port, _):
            found = []
            thread = threading.Thread(target=lambda: found.append(chat(port, "x", stream=True)))
            thread.start()
            wait_until(lambda: upstream.n == 1)
            time.sleep(0.3)
            running_process.send_signal(signal.SIGTERM)
            thread.join(10)
            assert found[0].events[-1]["error"]["code"] == "server_stopped"
            assert running_process.wait(10) == 0


def test_kill_9_under_load_loses_no_committed_row_and_assignment_stays(tmp_path, release):
    with Faulty() as upstream:
        upstream.behave = answers
        arguments = ("serve", release, "--incumbent", upstream.url, "--route", "split", "--share", "0.5")
        arms = []
        for _ in range(2):
            with process(tmp_path, *arguments) as (running_process, port, _):
                found = {f"u{i}": chat(port, "pear", user=f"u{i}") for i in range(30)}
                arms.append({user: one.headers["x-jettison-arm"] for user, one in found.items()})
                time.sleep(0.3)  # the stated window is 50 ms
                os.kill(running_process.pid, signal.SIGKILL)
                running_process.wait(10)
        assert arms[0] == arms[1]
        rows = [
            row
            for row in rows_in(tmp_path / "state" / "traffic", "records", Record)
            if row.role == "answer"
        ]
        assert len(rows) == 60
        # The salt outlives the process: one user is one key in all records.
        assert len({row.key for row in rows}) == 30


def test_readiness_is_false_while_it_lingers(tmp_path, release):
    config = tmp_path / "serve.toml"
    config.write_text(f"release = '{release}'\nlinger_s = 1.5\n")
    with process(tmp_path, "serve", "--config", str(config)) as (running_process, port, _):
        assert request(port, "GET", "/health/ready").status == 200
        running_process.send_signal(signal.SIGTERM)
        wait_until(lambda: request(port, "GET", "/health/ready").status == 503, 1)
        assert chat(port, "pear").status == 200  # who has not noticed yet is still served
        assert running_process.wait(10) == 0


def test_sighup_reloads(tmp_path, release):
    config = tmp_path / "serve.toml"
    config.write_text(f"release = '{release}'\nwatch = false\n")
    with process(tmp_path, "serve", "--config", str(config)) as (running_process, port, _):
        config.write_text(f"release = '{release}'\nwatch = false\nmodel = 'renamed'\n")
        time.sleep(0.7)
        assert request(port, "GET", "/v1/models").json["data"][0]["id"] == "fruit"
        running_process.send_signal(signal.SIGHUP)
        wait_until(lambda: request(port, "GET", "/v1/models").json["data"][0]["id"] == "renamed", 10)


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
