"""The loop end to end on the fake backend: real data flow, real statistics, no weights."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest

from fake_runs import LABELS, FakeLean, config_at
from jettison import registry
from jettison.backends.released import open_release_model
from jettison.decide.costs import judge_at_most
from jettison.decide.render import read_decision
from jettison.decision import AtMost, NotWorse, Verdict
from jettison.errors import CannotWrite
from jettison.loop.config import check_config
from jettison.loop.run import run
from jettison.loop.watcher import Silent
from jettison.release import verify_release
from jettison.task.read import read_task

FEW_CASCADES = {"epsilons": (0.01,), "n_shown": 2}


@pytest.fixture(autouse=True)
def _fake_step():
    registry.register("steps", "fake_lean", FakeLean)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run of a lean, a careless and a broken recipe: its settings and what it came to."""
    registry.register("steps", "fake_lean", FakeLean)
    config = config_at(
        tmp_path_factory.mktemp("finished"),
        {"name": "lean", "accuracy": 0.968, "latency_s": 0.0002},
        {"name": "careless", "accuracy": 0.85, "latency_s": 0.0001},
        **FEW_CASCADES,
    )
    broken = {"name": "broken", "steps": [{"step": "export", "target": "onnx"}]}
    config = msgspec.structs.replace(config, recipes=[*config.recipes, broken])
    return config, run(config)


def test_the_cheapest_candidate_that_holds_is_released_and_answers(finished):
    _, outcome = finished
    decision = outcome.decision
    assert decision.verdict is Verdict.SHIP
    assert decision.chosen == "lean"
    reports = {report.name: report for report in decision.candidates}
    assert reports["careless"].verdict is Verdict.BLOCK
    assert reports["lean"].cost.cpu_ratio.value == pytest.approx(0.2, abs=0.15)
    assert outcome.release is not None
    verify_release(outcome.release)
    answer = open_release_model(outcome.release).predict(["a refund question"])[0]
    assert answer.label in LABELS
    assert outcome.report.stat().st_size > 5_000
    assert (outcome.folder / "decision.junit.xml").exists()


def test_what_a_step_costs_is_not_measured_again_where_it_was_the_last(finished):
    _, outcome = finished
    content = msgspec.json.decode((outcome.folder / "report.json").read_bytes())
    (lean,) = (one for one in content["tried"] if one["name"] == "lean")
    assert [stage["cpu_ratio"] for stage in lean["stages"]] == [lean["cpu_ratio"]]
    assert lean["cpu_ratio"] is not None
    assert not list((outcome.folder / "cache" / "costs").glob("stages-*"))


@pytest.mark.slow
def test_when_nothing_holds_the_run_says_so_and_releases_nothing(tmp_path):
    careless = {"name": "careless", "accuracy": 0.9, "latency_s": 0.0001}
    outcome = run(config_at(tmp_path, careless, **FEW_CASCADES))
    assert outcome.decision.verdict is Verdict.BLOCK
    assert outcome.decision.chosen is None
    assert outcome.release is None
    assert not (outcome.folder / "release").exists()


@pytest.mark.slow
def test_a_candidate_that_is_not_cheaper_never_earns_its_place(tmp_path):
    outcome = run(config_at(tmp_path, {"name": "same", "accuracy": 0.97, "latency_s": 0.0008}))
    assert outcome.decision.chosen is None


@pytest.mark.slow
def test_a_cost_limit_blocks_a_candidate_that_is_too_slow(tmp_path):
    gates = (NotWorse(margin=0.02), AtMost(cost="latency_p95_s", limit=1e-6))
    outcome = run(config_at(tmp_path, {"name": "lean", "accuracy": 0.97, "latency_s": 0.0002}, gates=gates))
    assert outcome.decision.chosen is None
    reports = {report.name: report for report in outcome.decision.candidates}
    verdicts = {gate.metric: gate.verdict for gate in reports["lean"].gates}
    assert verdicts["label"] is Verdict.SHIP
    assert verdicts["latency_p95_s"] is Verdict.BLOCK


def test_a_limit_relative_to_the_incumbent_is_judged_alike_on_any_machine(finished):
    """It takes about 0.25 of the incumbent's time: at most half of it holds, a hundredth does not."""
    config, first = finished
    for limit, verdict in ((0.5, Verdict.SHIP), (0.01, Verdict.BLOCK)):
        gates = (NotWorse(margin=0.02), AtMost(cost="cpu_ratio", limit=limit))
        check_config(msgspec.structs.replace(config, gates=gates), "here")
        cost = next(c.cost for c in first.decision.candidates if c.name == "lean")
        result = judge_at_most(gates[1], cost)
        assert (result.metric, result.verdict) == ("cpu_ratio", verdict)


def test_a_second_run_repeats_nothing_and_decides_the_same(finished):
    config, first = finished
    before = os.times()
    second = run(config)
    after = os.times()
    assert sum(after[:4]) - sum(before[:4]) < 3.0  # CPU-seconds of this process and its children
    assert second.decision == first.decision
    assert second.decision.n_test_reads == 1
    assert second.release == first.release


@pytest.mark.slow
def test_a_later_run_that_has_more_to_show_and_nominates_the_same_asks_the_same_question(tmp_path):
    lean = {"name": "lean", "accuracy": 0.968, "latency_s": 0.0002}
    config = config_at(tmp_path, lean, **FEW_CASCADES)
    first = run(config)
    surer = {"name": "surer", "steps": [{"step": "fake_lean", "accuracy": 0.99, "latency_s": 0.0006}]}
    second = run(msgspec.structs.replace(config, recipes=[*config.recipes, surer]))
    assert {c.name for c in second.decision.candidates} - {c.name for c in first.decision.candidates}
    assert second.decision.chosen == first.decision.chosen == "lean"
    assert second.decision.n_test_reads == 1


def test_where_every_recipe_fails_the_decision_says_why(tmp_path):
    broken = {"name": "broken", "steps": [{"step": "export", "target": "onnx"}]}
    config = msgspec.structs.replace(config_at(tmp_path), recipes=[broken])
    heard = Heard()
    (tmp_path / "run" / "release").mkdir(parents=True)  # of an earlier decision
    outcome = run(config, watcher=heard)
    (reason,) = outcome.decision.reasons
    assert reason.startswith("None of 1 recipes could be made; the first, broken: ")
    assert any("release is of an earlier decision" in said for said in heard.said)


def test_where_the_budget_is_short_a_student_learns_from_a_draw_and_the_report_says_so(
    tmp_path, monkeypatch
):
    monkeypatch.setattr("jettison.compress.recipe_texts.FEWEST_TEXTS", 40)
    monkeypatch.setattr("jettison.compress.recipe_texts.LEARNING_SHARE", 1e-6)
    config = config_at(tmp_path, **FEW_CASCADES)
    heard = Heard()
    outcome = run(
        msgspec.structs.replace(config, recipes="auto", budget="10m", skip=["static"]), watcher=heard
    )
    n_texts = len(read_task(config.task).train)
    said = f"learned from 40 of {n_texts} texts, since the budget is short"
    assert f"linear: {said}" in heard.said
    content = msgspec.json.decode((outcome.folder / "report.json").read_bytes())
    (linear,) = (one for one in content["tried"] if one["name"] == "linear")
    assert linear["reason"].endswith(said)
    assert any(step.startswith("distill linear (most_texts 40,") for step in linear["steps"])


def test_a_full_disk_ends_the_run_and_is_not_told_as_a_recipe_that_fails(tmp_path, monkeypatch):
    def full(*_):
        raise CannotWrite("it cannot be written: the disk is full.")

    monkeypatch.setattr(FakeLean, "make", full)
    config = config_at(tmp_path, {"name": "lean", "accuracy": 0.968, "latency_s": 0.0002})
    with pytest.raises(CannotWrite, match="the disk is full"):
        run(config)


class Heard(Silent):
    """A watcher that keeps what was found."""

    def __init__(self):
        self.said = []

    def found(self, message):
        self.said.append(message)


def test_a_failing_recipe_is_told_and_does_not_end_the_run(finished):
    _, outcome = finished
    assert outcome.decision.chosen == "lean"
    assert "broken" in (outcome.folder / "report.md").read_text()


@pytest.mark.slow
def test_killed_at_any_moment_it_goes_on_and_ends_with_the_same_decision(tmp_path):
    config = config_at(tmp_path, {"name": "lean", "accuracy": 0.968, "latency_s": 0.0002}, **FEW_CASCADES)
    settings = tmp_path / "settings.json"
    settings.write_bytes(msgspec.json.encode(config))
    script = (
        "import sys, msgspec\n"
        f"sys.path.insert(0, {str(Path(__file__).parents[1])!r})\n"
        "import fake_runs\nfrom jettison import registry\n"
        "registry.register('steps', 'fake_lean', fake_runs.FakeLean)\n"
        "from jettison.loop.run import run\n"
        "run(msgspec.json.decode(open(sys.argv[1], 'rb').read(), type=fake_runs.RunConfig))\n"
    )
    command = [sys.executable, "-c", script, str(settings)]
    rng = random.Random(1)
    for _ in range(4):
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL, start_new_session=True)
        time.sleep(rng.uniform(0.5, 2.5))
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    decision = read_decision(tmp_path / "run" / "decision.json")
    assert (decision.verdict, decision.chosen) == (Verdict.SHIP, "lean")
    verify_release(tmp_path / "run" / "release")
    assert decision.n_test_reads == 1


def test_a_run_with_nothing_to_test_says_why_and_spends_no_reading_of_the_test_split(tmp_path):
    lean = {"name": "lean", "accuracy": 0.968, "latency_s": 0.0002}
    config = config_at(tmp_path, lean, **FEW_CASCADES)
    hasty = run(msgspec.structs.replace(config, budget="1s", output=str(tmp_path / "hasty")))
    assert hasty.decision.verdict is Verdict.NOT_ENOUGH_DATA
    assert hasty.decision.reasons == (
        "1 of 1 recipes had no time in the budget of 1s. Give it more with `--budget`, or `budget` in "
        "jettison.toml.",
    )
    assert not (hasty.folder / "cache" / "costs").exists()  # nothing to compare with, and no time for it
    assert not (tmp_path / ".jettison" / "test_reads.jsonl").exists()
    patient = run(config)
    assert (patient.decision.n_test_reads, patient.decision.chosen) == (1, "lean")
