"""`jettison serve` as a process: drained, killed, lingering, told to reload."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager

from gateways import Faulty, answers, completion, delta, request, rows_in, wait_until
from jettison.record import Record


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


def answered(tmp_path):
    """Rows of answers that are in the log."""
    rows = rows_in(tmp_path / "state" / "traffic", "records", Record)
    return [row for row in rows if row.role == "answer"]


def test_sigterm_answers_what_is_under_way_and_ends(tmp_path, release):
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
        assert len(answered(tmp_path)) == 8


def test_a_stream_past_the_end_of_the_drain_ends_in_an_error(tmp_path):
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
        for n_rows in (30, 60):
            with process(tmp_path, *arguments) as (running_process, port, _):
                found = {f"u{i}": chat(port, "pear", user=f"u{i}") for i in range(30)}
                arms.append({user: one.headers["x-jettison-arm"] for user, one in found.items()})
                # The stated window is 50 ms; a busy machine gets a second.
                wait_until(lambda n=n_rows: len(answered(tmp_path)) == n, within_s=1.0)
                os.kill(running_process.pid, signal.SIGKILL)
                running_process.wait(10)
        assert arms[0] == arms[1]
        rows = answered(tmp_path)
        assert len(rows) == 60
        # The salt outlives the process: one user is one key in all records.
        assert len({row.key for row in rows}) == 30


def test_readiness_is_false_while_it_lingers(tmp_path, release):
    config = tmp_path / "serve.toml"
    config.write_text(f"release = '{release}'\nlinger_s = 2.5\n")
    with process(tmp_path, "serve", "--config", str(config)) as (running_process, port, _):
        assert request(port, "GET", "/health/ready").status == 200
        running_process.send_signal(signal.SIGTERM)
        wait_until(lambda: request(port, "GET", "/health/ready").status == 503, 2)
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
