"""A failure on an example is said and counted; a step that breaks is its recipe's failure alone."""

from types import SimpleNamespace
from typing import ClassVar

import msgspec
import pytest

from fake_runs import FakeLean, config_at
from jettison import registry
from jettison.candidate import AppliedStep, Candidate, write_candidate
from jettison.compress.step import Made, StepContext
from jettison.errors import BrokenArtifact
from jettison.loop.failures import check_incumbent_answers, failure_findings, failure_words
from jettison.loop.run import run
from jettison.loop.watcher import Silent
from jettison.record import Record


class ToFaulty(msgspec.Struct, frozen=True, kw_only=True):
    """Cheaper, and failing on a tenth of the texts."""

    name: ClassVar[str] = "to_faulty"
    code_version: ClassVar[int] = 1
    reads_data: ClassVar[bool] = False
    libraries: ClassVar[tuple[str, ...]] = ()

    def make(self, candidate: Candidate, context: StepContext) -> Made:
        return Made(settings={"accuracy": 0.97, "latency_s": 0.0002, "fails_on": "7:"})


class Heard(Silent):
    def __init__(self):
        self.said = []

    def found(self, message):
        self.said.append(message)


@pytest.fixture(autouse=True)
def _faulty():
    registry.register("steps", "to_faulty", ToFaulty)
    registry.register("steps", "fake_lean", FakeLean)


def faulty_config(folder, fails, *recipes):
    """Of a run whose incumbent fails on texts whose number ends so: dev holds 800, from 0 to 799."""
    config = config_at(folder, epsilons=(0.01,), n_shown=2)
    (folder / "faulty").mkdir()
    settings = {"accuracy": 0.97, "latency_s": 0.0008, "fails_on": f"{fails}:"}
    labels = Candidate.at(folder / "large").labels
    notes = {"warning": "it knows of several labels"}
    take_in = AppliedStep(step="take_in", settings={}, seed=0, versions={}, parents=(), notes=notes)
    write_candidate(
        folder / "faulty",
        name="faulty",
        backend="fake",
        labels=labels,
        settings=settings,
        lineage=[take_in],
    )
    given = [{"name": name, "steps": [{"step": name}]} for name in recipes]
    return msgspec.structs.replace(config, incumbent=str(folder / "faulty"), recipes=given)


def test_failed_examples_are_told_on_the_screen_and_in_the_report(tmp_path):
    heard = Heard()
    outcome = run(faulty_config(tmp_path, "77", "to_faulty"), watcher=heard)
    why = "examples failed, and count as wrong: IndexError: index out of range in self"
    assert "warning: incumbent: it knows of several labels" in heard.said
    assert f"warning: incumbent: 8 of 800 {why}" in heard.said  # 77, 177, ... 777
    assert f"warning: to_faulty: 80 of 800 {why}" in heard.said
    content = msgspec.json.decode((outcome.folder / "report.json").read_bytes())
    told = {f["message"]: f for f in content["findings"] if f["rule"] == "failed_examples"}
    assert f"incumbent, on dev: 8 of 800 {why}" in told
    assert told[f"to_faulty, on dev: 80 of 800 {why}"]["n_examples"] == 80
    assert "80 of 800 examples failed" in outcome.report.read_text()


def test_an_incumbent_that_fails_on_more_than_a_hundredth_of_dev_is_refused(tmp_path):
    config = faulty_config(tmp_path, "7", "to_faulty")
    wanted = r"the incumbent must answer at least 99% of the dev examples, got 80 of 800 .*IndexError"
    with pytest.raises(BrokenArtifact, match=wanted):
        run(config)


def test_a_step_that_raises_anything_fails_its_recipe_alone(tmp_path, monkeypatch):
    raised = IndexError("index out of\nrange")

    def breaks(*_):
        raise raised

    monkeypatch.setattr(ToFaulty, "make", breaks)
    config = faulty_config(tmp_path, "none", "to_faulty", "fake_lean")
    heard = Heard()
    outcome = run(config, watcher=heard)
    assert "to_faulty: failed: IndexError: index out of range" in heard.said
    content = msgspec.json.decode((outcome.folder / "report.json").read_bytes())
    tried = {one["name"]: (one["status"], one["reason"]) for one in content["tried"]}
    assert tried["to_faulty"] == ("failed", "failed: IndexError: index out of range")
    assert tried["fake_lean"][0] == "finalist"
    for raised in (MemoryError("it is full"), KeyboardInterrupt("stopped")):
        with pytest.raises(type(raised), match=str(raised)):
            run(config)


def test_a_language_model_may_fail_and_lost_answers_are_no_failures():
    failed = Record(candidate="c", example_id="1", split="dev", output=None, error="too long")
    lost = msgspec.structs.replace(failed, example_id="2", error="timeout", unanswered=True)
    assert failure_words((failed, lost)) == "1 of 2 examples failed, and count as wrong: too long"
    assert failure_words((lost,)) == ""
    one = SimpleNamespace(
        name="llm", records=(failed, lost), candidate=SimpleNamespace(backend="hf_causal", settings={})
    )
    check_incumbent_answers(one)
    (finding,) = failure_findings([one])
    assert (finding.n_examples, finding.examples) == (1, ("1",))
