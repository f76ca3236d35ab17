"""One `jettison run` that every fault of an endpoint interrupts in turn, and that ends as if none had."""

import json
import random
import time
from pathlib import Path
from typing import Any

import pytest

from endpoint_server import Behaviour, Server, hung_up, no_json, send, status, truncated, whole
from jettison.backends.endpoint_pace import SystemClock
from jettison.cli.main import main
from jettison.record import read_records

pytestmark = pytest.mark.slow
LABELS = ("billing", "delivery", "refund")
SIZES = {"train": 120, "dev": 240, "test": 300}


def silent_for_long(handler: Any, body: dict[str, Any], number: int) -> None:
    time.sleep(5.0)  # past first_byte_s
    handler.close_connection = True


STAYS: dict[str, Behaviour] = {
    "429 with retry-after": status(429, retry_after="1"),
    "500": status(500),
    "503": status(503),
    "time-out": silent_for_long,
    "truncated answer": truncated,
    "invalid JSON": no_json,
    "wrong model name": status(404),
    "dies": hung_up,
}
RUN = """format = 1
task = "task.toml"
incumbent = "{url}"
output = "run"
usd_per_hour = 0.1
n_cost_tasks = 20
cost_s = 0.2
[endpoint]
model = "small"
usd_per_million_input = 1.0
usd_per_million_output = 4.0
first_byte_s = 2.5
concurrency = 24
max_retries = 1
wait_s = 0.5
[[recipes]]
name = "linear"
steps = [{{ step = "distill_linear", epochs = 4 }}]
[[gates]]
type = "not_worse"
margin = 0.05
"""


class Interrupted:
    """Answers rightly until so many are paid for, and then has its fault."""

    def __init__(self) -> None:
        self.paid: list[str] = []
        self.allowed = 0
        self.fault: Behaviour | None = None

    def __call__(self, handler: Any, body: dict[str, Any], number: int) -> None:
        if self.fault is not None and len(self.paid) >= self.allowed:
            self.fault(handler, body, number)
            return
        self.paid.append(json.dumps(body, sort_keys=True))
        text = body["messages"][-1]["content"].rsplit("Text:", 1)[-1]
        send(handler, 200, whole(next(label for label in LABELS if label in text)))


def write_run(folder: Path, url: str) -> Path:
    rng = random.Random(0)
    rows = []
    for split, size in SIZES.items():
        for i in range(size):
            label = rng.choice(LABELS)
            text = f"{split} {i}: my {label} question about order {rng.randrange(10**9)}"
            rows.append({"id": f"{split}-{i}", "text": text, "label": label, "split": split})
    (folder / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "task.toml").write_text(
        'format = 1\nname = "questions"\nkind = "classify"\n[data]\npath = "data.jsonl"\n'
        '[data.columns]\ninput = "text"\nexpected = "label"\nid = "id"\nsplit = "split"\n'
    )
    (folder / "jettison.toml").write_text(RUN.format(url=url))
    return folder / "jettison.toml"


def test_a_run_that_every_fault_interrupts_resumes_and_pays_each_answer_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(SystemClock, "wait", lambda self, s: time.sleep(s / 100))
    monkeypatch.delenv("JETTISON_ANSWERS", raising=False)
    server = Server()
    server.behave = held = Interrupted()
    config = write_run(tmp_path, server.url)
    try:
        for number, (name, fault) in enumerate(STAYS.items(), start=1):
            held.fault, held.allowed = fault, 70 * number
            with pytest.raises(SystemExit) as stopped:
                main(["run", str(config)])
            said = capsys.readouterr().err
            assert stopped.value.code == 2, name
            wanted = "must have the model 'small'" if name == "wrong model name" else "inputs unanswered"
            assert wanted in said, (name, said)
            assert "Traceback" not in said
            # The last few that were under way when the fault set in may have been let through.
            assert held.allowed <= len(held.paid) <= held.allowed + 24, name
        held.fault = None
        with pytest.raises(SystemExit) as stopped:
            main(["run", str(config)])
    finally:
        server.close()
    assert stopped.value.code == 0, capsys.readouterr()
    assert len(held.paid) == len(set(held.paid)) == sum(SIZES.values())
    decision = json.loads((tmp_path / "run" / "decision.json").read_text())
    assert decision["verdict"] == "SHIP"
    # No fault was counted as a wrong answer of the incumbent, in any of its evaluations.
    mine = [r for file in (tmp_path / "run").rglob("*.parquet") for r in read_records(file)]
    priced = [record for record in mine if record.cost.price_usd is not None]
    assert priced
    assert all(record.scores["label"] == 1.0 and record.error is None for record in priced)
