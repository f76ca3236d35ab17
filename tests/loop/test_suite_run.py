"""`[suites]` in `jettison.toml`: one command builds the tiers, gates them and shows them."""

import msgspec
import pytest

from fake_runs import FakeLean, config_at, task_at
from jettison import registry
from jettison.decide.report_types import read_report_content
from jettison.decision import NotWorse
from jettison.errors import InvalidInput
from jettison.loop.config import RunConfig, SuiteSettings
from jettison.loop.run import run
from jettison.loop.suite_run import gates_of, with_suites
from jettison.task.ledger import read_ledger
from jettison.task.read import read_task


def test_gates_on_all_become_gates_on_what_users_wrote(tmp_path) -> None:
    task = read_task(task_at(tmp_path, n_test=60))
    config = RunConfig(
        task="", incumbent="", output=str(tmp_path / "run"), gates=(NotWorse(margin=0.02),),
        suites=SuiteSettings(gates=("perturbed",), per_example=1),
    )  # fmt: skip
    suite, built = with_suites(config, task)
    assert built is not None
    assert built.n["perturbed"] == built.n["in_domain"] == 60
    assert with_suites(config, task)[0].test_digest == suite.test_digest  # taken as it is
    assert [gate.slices for gate in gates_of(config, suite, "label")] == [
        ("tier=in_domain",),
        ("tier=perturbed",),
    ]


def test_an_unknown_tier_is_refused_before_any_work(tmp_path) -> None:
    task = read_task(task_at(tmp_path, n_test=60))
    config = RunConfig(
        task="", incumbent="", output=str(tmp_path / "run"), suites=SuiteSettings(tiers=("typos",))
    )
    with pytest.raises(InvalidInput, match=r"a tier must be one of .*got 'typos'"):
        with_suites(config, task)


@pytest.mark.slow
def test_one_command_builds_gates_attacks_and_shows(tmp_path) -> None:
    registry.register("steps", "fake_lean", FakeLean)
    lean = {"name": "lean", "accuracy": 0.968, "latency_s": 0.0002}
    config = config_at(tmp_path, lean, epsilons=(0.01,), n_shown=0)
    suites = SuiteSettings(gates=("perturbed",), per_example=1, attacked=30, budget=6)
    outcome = run(msgspec.structs.replace(config, suites=suites))
    content = read_report_content(outcome.folder)
    lean_report = next(c for c in content.decision.candidates if c.name == "lean")
    assert {"tier=in_domain", "tier=perturbed"} <= {gate.slice for gate in lean_report.gates}
    assert {one.slice for one in content.suites.comparisons} >= {"tier=perturbed", "perturbation=casing"}
    assert {one.candidate for one in content.suites.attacks} == {
        c.name for c in content.decision.candidates
    }
    assert len(content.suites.curves) == len(content.decision.candidates)
    checks = [(one.dev, one.test) for one in content.suites.curves]
    assert all(dev is not None and test is not None and dev.n < test.n for dev, test in checks)
    # The task's own ledger counts the reading too: a suite made anew does not forget it.
    assert len(read_ledger(tmp_path / ".jettison" / "test_reads.jsonl")) == 1
