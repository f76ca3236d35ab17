"""The watcher as a process, and alerts at real addresses."""

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import msgspec
import numpy as np
import pytest

from endpoint_server import QuietServer
from jettison.cli.main import main
from jettison.errors import BrokenArtifact, InvalidInput
from jettison.monitor.alerts import Alert, AlertmanagerSink, Alerts, FileSink, WebhookSink, sink_from
from jettison.monitor.audit import AuditPlan
from jettison.monitor.conduct import start_experiment
from jettison.monitor.plan import ExperimentPlan, Metric, read_outcome
from jettison.monitor.steer import read_control
from jettison.monitor.watch import STATE_FILE, Watch
from jettison.testing.traffic import Arm, TrafficWriter, simulate_cascade, simulate_split

PLAN = ExperimentPlan(name="e", kind="split", metrics=(Metric(name="label"),))
GOOD, BAD = Arm(accuracy=0.95), Arm(accuracy=0.75)
ALERT = Alert(name="threshold_broken", subject="a", severity="critical", message="3 of 100", time=100.0)


@pytest.fixture
def server() -> Iterator[tuple[str, list]]:
    got: list = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            got.append((self.path, body))
            self.send_response(200 if not self.path.startswith("/down") else 503)
            self.end_headers()

        def log_message(self, *args: object) -> None:
            pass

    running = QuietServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=running.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{running.server_address[1]}", got
    running.shutdown()
    running.server_close()
    thread.join()


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str]:
    with pytest.raises(SystemExit) as stopped:
        main([str(one) for one in arguments])
    said = capsys.readouterr()
    return int(stopped.value.code or 0), said.out + said.err


def test_the_process_rolls_back_within_seconds_and_says_so(tmp_path: Path) -> None:
    start_experiment(tmp_path, PLAN)
    with TrafficWriter(tmp_path / "traffic") as writer:
        command = [sys.executable, "-m", "jettison.cli", "monitor", str(tmp_path), "--every", "0.2"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            try:
                for one in simulate_split(np.random.default_rng(0), 3000, control=GOOD, treatment=BAD):
                    writer.write(one.records, one.feedback)
                since = time.monotonic()
                while read_outcome(tmp_path, "e") is None and time.monotonic() - since < 30:
                    time.sleep(0.1)
                assert read_outcome(tmp_path, "e") is not None
            finally:
                process.terminate()
                process.wait(timeout=30)
            assert process.returncode == 0
    assert read_control(tmp_path).routes[""].treatment_share == 0.0
    (line,) = (tmp_path / "alerts.jsonl").read_text().splitlines()
    told = json.loads(line)
    assert (told["name"], told["severity"]) == ("experiment_rolled_back", "critical")
    assert told["evidence"]["metrics"][0]["verdict"] == "broken"


def test_a_broken_threshold_is_tightened_once_and_after_a_restart_not_again(tmp_path: Path) -> None:
    plans = (AuditPlan(threshold=0.8, epsilon=0.03),)
    with TrafficWriter(tmp_path / "traffic") as writer:
        for one in simulate_cascade(np.random.default_rng(0), 4000, audit_share=0.1, harm=0.15):
            writer.write(one.records)
        watch = Watch(tmp_path, audits=plans, alerts=Alerts((FileSink(tmp_path / "a.jsonl"),)))
        ((), (status,)) = watch.look(1.0)
        assert status.verdict == "BROKEN"
        assert read_control(tmp_path).routes[""].threshold == status.threshold_wanted
        watch.save()
        again = Watch(tmp_path, audits=plans, alerts=Alerts((FileSink(tmp_path / "a.jsonl"),)))
        ((), (after,)) = again.look(2.0)
        assert (after.verdict, after.threshold) == ("OPEN", status.threshold_wanted)
        assert len((tmp_path / "a.jsonl").read_text().splitlines()) == 1
    (tmp_path / STATE_FILE).write_bytes(b"\xc1")
    with pytest.raises(BrokenArtifact, match="the log holds everything"):
        Watch(tmp_path, audits=plans, alerts=Alerts(()))


def test_the_same_alert_is_told_once_until_it_is_due_again(tmp_path: Path) -> None:
    alerts = Alerts((FileSink(tmp_path / "a.jsonl"),), repeat_s=60)
    later = [msgspec.structs.replace(ALERT, time=moment) for moment in (100.0, 130.0, 161.0)]
    assert [alerts.tell(one) for one in later] == [True, False, True]
    assert Alerts((), repeat_s=60, told=alerts.state()).tell(later[2]) is False
    lines = [msgspec.json.decode(x, type=Alert) for x in (tmp_path / "a.jsonl").read_bytes().splitlines()]
    assert lines == [later[0], later[2]]


def test_a_webhook_and_alertmanager_get_the_evidence(server: tuple[str, list]) -> None:
    address, got = server
    alerts = Alerts((WebhookSink(f"{address}/hook"), AlertmanagerSink(address)))
    alerts.tell(msgspec.structs.replace(ALERT, evidence={"n": 3}))
    (hook, told), (manager, sent) = got
    assert (hook, manager) == ("/hook", "/api/v2/alerts")
    assert told["text"] == "[critical] threshold_broken a: 3 of 100"
    assert told["evidence"] == {"n": 3}
    assert sent[0]["labels"] == {"alertname": "threshold_broken", "subject": "a", "severity": "critical"}
    assert sent[0]["startsAt"].startswith("1970-01-01T00:01:40")


def test_what_cannot_be_delivered_waits_and_is_sent_again(server: tuple[str, list]) -> None:
    address, got = server
    alerts = Alerts((WebhookSink(f"{address}/down"),))
    assert alerts.tell(ALERT)
    assert alerts.n_failed == 1
    alerts.sinks[0].url = f"{address}/up"  # type: ignore[attr-defined]
    alerts.retry()
    alerts.retry()
    assert [path for path, _ in got] == ["/down", "/up"]


def test_an_address_of_another_kind_is_refused() -> None:
    with pytest.raises(InvalidInput, match=r"must be http:// or https://, got ftp://host"):
        sink_from("ftp://host/x")


def test_the_command_line_from_start_to_stop(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    at = ("--state", tmp_path)
    code, said = run(
        capsys, "experiment", "start", "small", *at, "--metric", "label:primary:0.01",
        "--metric", "latency_s:guardrail:0.2:0.9", "--ramp", "1%, 50% after 1h",
    )  # fmt: skip
    assert code == 0, said
    assert "a loss of 4 points is found within" in said
    assert read_control(tmp_path).routes[""].treatment_share == 0.01
    with TrafficWriter(tmp_path / "traffic") as writer:
        for one in simulate_split(
            np.random.default_rng(0), 300, control=GOOD, treatment=GOOD, share=0.2, experiment="small"
        ):
            writer.write(one.records, one.feedback)
        code, said = run(capsys, "experiment", "status", "small", *at)
        assert (code, "RUNNING" in said, "300 keys" in said) == (0, True, True), said
        code, said = run(capsys, "monitor", tmp_path, "--once", "--json", "--audit", ":0.9:0.02")
        assert json.loads(said)["experiments"][0]["n_units"] == 300
        assert json.loads(said)["audits"][0]["verdict"] == "OPEN"
        assert run(capsys, "experiment", "ramp", "small", "25%", *at)[0] == 0
        assert read_control(tmp_path).routes[""].treatment_share == 0.25
        assert run(capsys, "experiment", "stop", "small", *at)[0] == 0
        assert read_control(tmp_path).routes[""].treatment_share == 0.0
        code, said = run(capsys, "experiment", "list", *at, "--json")
        assert json.loads(said) == [{"name": "small", "kind": "split", "verdict": "STOPPED"}]
        code, said = run(capsys, "experiment", "ramp", "small", "25%", *at)
        assert (code, "must be running" in said) == (2, True)


REFUSED = {
    "no log": (("monitor", "."), "must hold a traffic log"),
    "share": (("experiment", "ramp", "e", "half"), "the experiment must be one of"),
    "metric": (("experiment", "start", "x", "--metric", "label:boss"), "--metric must be NAME"),
    "ramp": (("experiment", "start", "x", "--ramp", "later"), "a step of --ramp must be like"),
    "audit": (("monitor", ".", "--audit", "0.9"), "--audit must be PLACE:THRESHOLD:EPSILON"),
    "every": (("monitor", ".", "--every", "0"), "--every must be positive"),
    "unknown": (("experiment", "status", "nosuch"), "must be one of"),
}


@pytest.mark.parametrize("case", REFUSED.values(), ids=REFUSED.keys())
def test_bad_input_is_one_line(
    case: tuple[tuple[str, ...], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    code, said = run(capsys, *case[0])
    assert code == 2
    assert case[1] in said
    assert "Traceback" not in said
