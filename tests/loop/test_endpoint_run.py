"""The whole loop with a model behind an address: it is asked once, and a student takes its place."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from endpoint_server import QuietServer
from fake_runs import LABELS, TWO_POINTS, task_at
from jettison.decision import Verdict
from jettison.loop.config import RunConfig, read_config
from jettison.loop.run import run
from jettison.release import open_release
from jettison.task.from_logs import task_from_logs
from jettison.task.log_files import input_id


class Answering(BaseHTTPRequestHandler):
    """A language model that takes its time and sometimes rambles; it counts what it is asked."""

    protocol_version = "HTTP/1.1"
    asked: list[str]

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        text = body["messages"][-1]["content"].rsplit("Text:", 1)[-1]
        self.asked.append(text)
        threading.Event().wait(0.004)
        label = next(label for label in LABELS if label in text)
        rambles = sum(map(ord, text)) % 50 == 0
        content = "I would say it depends." if rambles else f"{label.capitalize()}."
        raw = json.dumps(
            {
                "choices": [{"message": {"content": content}, "finish_reason": "stop"}],
                "usage": {"prompt_tokens": 40, "completion_tokens": 3},
            }
        ).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def url() -> Iterator[str]:
    Answering.asked = []
    server = QuietServer(("127.0.0.1", 0), Answering)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()
    server.server_close()


def test_a_student_takes_the_place_of_a_model_behind_an_address(url: str, tmp_path: Path) -> None:
    task = task_at(tmp_path, n_test=600)
    config = RunConfig(
        task=str(task),
        incumbent=url,
        endpoint={
            "model": "large",
            "concurrency": 16,
            "usd_per_million_input": 1.0,
            "usd_per_million_output": 4.0,
        },
        output=str(tmp_path / "run"),
        recipes=[{"name": "linear", "steps": [{"step": "distill_linear", "epochs": 6}]}],
        gates=TWO_POINTS,
        usd_per_hour=0.1,
        n_cost_tasks=20,
        cost_s=0.6,
        cost_openings=1,
    )
    outcome = run(config)
    decision = outcome.decision
    assert decision.verdict is Verdict.SHIP
    assert "linear" in str(decision.chosen)
    report = next(r for r in decision.candidates if r.name == decision.chosen)
    assert report.cost.usd_ratio is not None
    assert report.cost.usd_ratio.high < 0.1
    incumbent = next(r for r in decision.candidates if r.role == "incumbent")
    # 40 tokens at one dollar a million and 3 at four.
    assert incumbent.cost.usd_per_1000 == pytest.approx(1000 * (40 * 1.0 + 3 * 4.0) / 1e6)
    assert incumbent.cost.cpu_ratio is None
    # Train, dev and test once each, whatever stages asked: every answer is paid for once.
    assert len(Answering.asked) == len(set(Answering.asked)) == 300 + 800 + 600
    assert open_release(outcome.release).path.is_dir()
    again = run(config)
    assert again.decision == decision
    assert len(Answering.asked) == 300 + 800 + 600


def log_line(row: dict[str, str]) -> dict[str, object]:
    asked = [{"role": "user", "content": f"Which of billing, delivery, refund?\n{row['text']}\nAnswer:"}]
    return {
        "request": {"model": "large-2026-01-31", "messages": asked},
        "response": {
            "choices": [{"message": {"content": row["label"].capitalize()}, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 40, "completion_tokens": 3},
        },
        "latency_ms": 80.0,
    }


@pytest.mark.slow
@pytest.mark.parametrize("is_priced", [True, False])
def test_where_every_answer_is_logged_its_tokens_decide_a_gate_on_money(
    url: str, tmp_path: Path, is_priced: bool
) -> None:
    task_at(tmp_path, n_test=2000)
    rows = [json.loads(line) for line in (tmp_path / "data.jsonl").read_text().splitlines()]
    log = tmp_path / "log.jsonl"
    log.write_text("".join(json.dumps(log_line(row)) + "\n" for row in rows))
    report = task_from_logs([log], tmp_path / "task", trust_answers=True)
    assert (report.kind, report.n_counted, report.n_timed) == ("classify", 3100, 3100)
    prices = "usd_per_million_input = 1.0\nusd_per_million_output = 4.0\n" if is_priced else ""
    (tmp_path / "jettison.toml").write_text(
        f"""format = 1
task = "task/task.toml"
incumbent = "{url}"
output = "run"
usd_per_hour = 0.1
n_cost_tasks = 20
cost_s = 0.6
cost_openings = 1
[endpoint]
model = "large"
logged = "task/incumbent_outputs.jsonl"
{prices}
[[recipes]]
name = "linear"
steps = [{{ step = "distill_linear", epochs = 6 }}]
[[gates]]
type = "not_worse"
margin = 0.02
[[gates]]
type = "at_most"
cost = "usd_per_1000"
limit = 0.01
"""
    )
    outcome = run(read_config(tmp_path / "jettison.toml"))
    assert not Answering.asked
    incumbent = next(r for r in outcome.decision.candidates if r.role == "incumbent")
    lean = next(r for r in outcome.decision.candidates if r.role == "nominee")
    assert outcome.decision.verdict is Verdict.SHIP
    assert incumbent.cost.latency_p50_s == pytest.approx(0.08)
    assert incumbent.cost.cpu_s is None
    if is_priced:
        assert incumbent.cost.usd_per_1000 == pytest.approx(1000 * (40 * 1.0 + 3 * 4.0) / 1e6)
        assert lean.cost.usd_ratio is not None
        assert "times less money per task" in outcome.decision.headline
    else:
        # Logged seconds still show that the student costs less, but not in money.
        assert (incumbent.cost.usd_per_1000, lean.cost.usd_ratio) == (None, None)
        assert "times less latency per task" in outcome.decision.headline


@pytest.mark.slow
def test_answers_of_logs_are_the_incumbents_and_are_not_asked_for_again(url: str, tmp_path: Path) -> None:
    task = task_at(tmp_path, n_test=600)
    rows = [json.loads(line) for line in (tmp_path / "data.jsonl").read_text().splitlines()]
    logged = [row for row in rows if row["split"] == "train" or row["id"].endswith(("0", "1"))]
    (tmp_path / "incumbent_outputs.jsonl").write_text(
        "".join(
            json.dumps({"id": input_id(row["text"]), "output": row["label"], "n": 1}) + "\n"
            for row in logged
        )
    )
    (tmp_path / "jettison.toml").write_text(
        f"""format = 1
task = "{task.name}"
incumbent = "{url}"
output = "run"
usd_per_hour = 0.1
n_cost_tasks = 20
cost_s = 0.6
cost_openings = 1
[endpoint]
model = "large"
concurrency = 16
usd_per_million_input = 1.0
usd_per_million_output = 4.0
logged = "incumbent_outputs.jsonl"
[[recipes]]
name = "linear"
steps = [{{ step = "distill_linear", epochs = 6 }}]
[[gates]]
type = "not_worse"
margin = 0.02
"""
    )
    outcome = run(read_config(tmp_path / "jettison.toml"))
    assert sorted(Answering.asked) == sorted(f" {row['text']}\nLabel:" for row in rows if row not in logged)
    # A fifth of dev is logged at a price that nobody knows; the rest tells what an answer costs.
    incumbent = next(r for r in outcome.decision.candidates if r.role == "incumbent")
    assert incumbent.cost.usd_per_1000 == pytest.approx(1000 * (40 * 1.0 + 3 * 4.0) / 1e6)
    assert incumbent.cost.latency_p50_s > 0.004
    assert outcome.decision.verdict is Verdict.SHIP
