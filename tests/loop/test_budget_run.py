"""A run whose budget ends while a step is at work: it goes on with what there is, and says so."""

from functools import partial
from pathlib import Path
from typing import ClassVar

import msgspec
import pytest

from fake_runs import FakeLean, config_at
from jettison import registry
from jettison.candidate import CUT_NOTE, Candidate
from jettison.compress.step import Made, StepContext
from jettison.loop.config import RunConfig
from jettison.loop.run import Outcome, run
from jettison.loop.watcher import Clock, Silent


class FakeTraining(msgspec.Struct, frozen=True, kw_only=True):
    """A step on fakes that wants ten rounds, and is the better for each that it has time for."""

    name: ClassVar[str] = "fake_training"
    code_version: ClassVar[int] = 1
    reads_data: ClassVar[bool] = False
    libraries: ClassVar[tuple[str, ...]] = ()
    now_s: ClassVar[list[float]] = [0.0]
    """What the clock of the run says."""
    round_s: ClassVar[float] = 200.0

    def make(self, candidate: Candidate, context: StepContext) -> Made:
        n_rounds = 0
        while n_rounds < 10 and not (context.deadline is not None and context.deadline.is_over()):
            n_rounds += 1
            self.now_s[0] += self.round_s
        settings = {**candidate.settings, "accuracy": 0.95 + 0.002 * n_rounds, "latency_s": 0.0002}
        return Made(settings=settings, notes={"n_rounds": n_rounds})


class Heard(Silent):
    """A watcher that keeps what was found."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def found(self, message: str) -> None:
        self.said.append(message)


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunConfig:
    """Twenty minutes by a clock that training alone moves, of which about one is kept for what follows."""
    registry.register("steps", "fake_training", FakeTraining)
    registry.register("steps", "fake_lean", FakeLean)
    monkeypatch.setattr(FakeTraining, "now_s", [0.0])
    monkeypatch.setattr("jettison.loop.run.Clock", partial(Clock, now=lambda: FakeTraining.now_s[0]))
    return msgspec.structs.replace(config_at(tmp_path), budget="20m", epsilons=(0.01,))


def with_steps(config: RunConfig, *names: str) -> RunConfig:
    steps = [{"step": name} for name in names]
    return msgspec.structs.replace(config, recipes=[{"name": "trained", "steps": steps}])


def rounds(outcome: Outcome) -> tuple[int, bool]:
    """Rounds of the candidate that was put to the test, and whether they were cut short."""
    content = msgspec.json.decode((outcome.folder / "report.json").read_bytes())
    (notes,) = [s["notes"] for s in content["lineage"]["trained"] if s["step"] == "fake_training"]
    return notes["n_rounds"], notes.get(CUT_NOTE, False)


@pytest.mark.slow
def test_a_training_that_the_budget_ends_goes_on_to_the_test_and_is_not_taken_for_a_whole_one(
    config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rounds of 200 s: the sixth ends at 1,200, past the 1,140 or so that making has."""
    config = with_steps(config, "fake_training")
    heard = Heard()
    first = run(config, watcher=heard)
    assert rounds(first) == (6, True)
    assert "trained: fake_training was cut short by the budget" in heard.said
    assert "cut short by the budget" in (first.folder / "report.md").read_text()
    spent_s = FakeTraining.now_s[0]
    again = run(config)
    assert FakeTraining.now_s[0] == spent_s == 1200.0
    assert again.decision == first.decision
    monkeypatch.setattr(FakeTraining, "round_s", 10.0)
    whole = run(msgspec.structs.replace(config, budget="40m"))
    assert rounds(whole) == (10, False)
    assert rounds(run(config)) == (10, False)  # what is whole is better


def test_a_step_that_the_budget_has_no_time_for_is_told_and_made_in_the_next_run(config: RunConfig) -> None:
    config = with_steps(config, "fake_training", "fake_lean")
    late = run(config)
    assert late.decision.reasons == (
        "1 of 1 recipes had no time in the budget of 20m. Give it more with `--budget`, or `budget` in "
        "jettison.toml.",
    )
    (row,) = msgspec.json.decode((late.folder / "report.json").read_bytes())["tried"]
    assert (row["status"], row["reason"]) == (
        "dropped",
        "no time left in the budget: step 'fake_lean' must begin before the deadline, got no time left.",
    )
    resumed = run(config)
    assert rounds(resumed) == (6, True)
    assert FakeTraining.now_s[0] == 1200.0


@pytest.mark.slow
def test_a_training_ends_in_time_for_what_follows_it(
    config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 130 s about 15 are kept, and 5 for what follows: the seventh round ends at 112, past 110."""
    monkeypatch.setattr(FakeTraining, "round_s", 16.0)
    config = msgspec.structs.replace(with_steps(config, "fake_training", "fake_lean"), budget="130s")
    assert rounds(run(config)) == (7, True)
