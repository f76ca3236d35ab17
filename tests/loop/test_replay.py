"""Answers that were given once are not asked for again, and come out as if they had been."""

from pathlib import Path

import msgspec
import numpy as np
import pytest

from fake_runs import LABELS, config_at
from jettison.backends.open import open_model
from jettison.candidate import write_candidate
from jettison.compress.recipe import Recipe
from jettison.evaluate.calibrate import calibrate
from jettison.evaluate.replay import calibrated_outputs
from jettison.evaluate.run import evaluate
from jettison.loop.cascades import _made, options_of
from jettison.loop.run import _open_workspace
from jettison.loop.search import first_contender
from jettison.loop.watcher import Silent
from jettison.loop.workspace import Contender, Workspace
from jettison.record import Cost, Record
from tiny import make_tiny_development


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return _open_workspace(config_at(tmp_path), Silent())


def contender(workspace: Workspace, name: str, **settings: float) -> Contender:
    folder = workspace.folder / name
    folder.mkdir(parents=True)
    made = write_candidate(folder, name=name, backend="fake", labels=LABELS, settings=settings)
    return first_contender(workspace, workspace.calibrated(made), Recipe(name=name, steps=()))


def without_time(records: list[Record] | tuple[Record, ...]) -> list[Record]:
    """Records but for when they were made and what that took, which no two evaluations share."""
    return [msgspec.structs.replace(record, time=None, cost=Cost()) for record in records]


def n_kept(workspace: Workspace, split: str) -> int:
    return len(list((workspace.cache / "records").glob(f"{split}-*.parquet")))


def test_a_cascade_composed_of_its_arms_answers_is_the_cascade_on_disk(workspace: Workspace) -> None:
    small, large = (
        contender(workspace, name, accuracy=a, seed=s)
        for name, a, s in (("small", 0.95, 3), ("large", 0.97, 0))
    )
    tiny = contender(workspace, "tiny", accuracy=0.9, seed=5)
    pairs = options_of(workspace, large, small, large)
    nested = options_of(workspace, large, tiny, pairs[-1])
    for option in (pairs[0], pairs[-1], nested[0]):
        made = _made(workspace, large, option)
        assert made.candidate.backend == "cascade"
        asked = evaluate(made.candidate, workspace.dev, split="dev", keep_logits=True)
        assert without_time(made.records) == without_time(asked)
        assert {record.escalated for record in asked} == {True, False}


def test_a_cascade_composed_of_answers_costs_what_its_arms_did(workspace: Workspace) -> None:
    small, large = contender(workspace, "small", accuracy=0.95, seed=3), contender(workspace, "large")
    made = _made(workspace, large, options_of(workspace, large, small, large)[0])
    lean, behind = ({record.example_id: record.cost for record in one.records} for one in (small, large))
    for record in made.records:
        arms = [lean[record.example_id], *([behind[record.example_id]] if record.escalated else [])]
        for name in ("latency_s", "cpu_s", "energy_j"):
            wanted = sum(getattr(cost, name) for cost in arms)
            assert getattr(record.cost, name) == pytest.approx(wanted, rel=1e-6), name


def test_a_fallback_is_asked_only_what_is_passed_on(workspace: Workspace) -> None:
    small, large = contender(workspace, "small", accuracy=0.95, seed=3), contender(workspace, "large")
    made = _made(workspace, large, options_of(workspace, large, small, large)[0])
    test = workspace.task.read_test(purpose="a test").examples
    found = workspace.records(made.candidate, test, "test")
    n_escalated = sum(record.escalated for record in found)
    assert 0 < n_escalated < len(test)
    # The cascade's own records, all of the lean arm's, and some of the fallback's.
    assert n_kept(workspace, "test") == 3
    assert not workspace.is_kept(large.candidate, test, "test")
    asked = evaluate(made.candidate, test, split="test")
    assert without_time(found) == without_time(asked)


def test_arms_that_have_answered_are_asked_nothing(workspace: Workspace) -> None:
    small, large = contender(workspace, "small", accuracy=0.95, seed=3), contender(workspace, "large")
    options = options_of(workspace, large, small, large)
    test = workspace.task.read_test(purpose="a test").examples
    for arm in (small, large):
        workspace.records(arm.candidate, test, "test", keep_logits=True)
    for n_made, option in enumerate(options[:3], start=1):
        made = _made(workspace, large, option)
        workspace.records(made.candidate, test, "test", keep_logits=True)
        assert n_kept(workspace, "test") == 2 + n_made


def test_a_first_look_is_read_off_a_look_at_all(workspace: Workspace) -> None:
    one = contender(workspace, "one")
    before = n_kept(workspace, "dev")
    assert workspace.records(one.candidate, workspace.dev[:50], "dev") == one.records[:50]
    assert n_kept(workspace, "dev") == before


@pytest.mark.parametrize("out_of_scope", [None, "b"])
def test_what_calibration_changes_is_computed_as_the_backend_would(
    tmp_path: Path, out_of_scope: str | None
) -> None:
    data = make_tiny_development(train=10, dev=80, unlabelled=0)
    folder = tmp_path / "model"
    folder.mkdir()
    labels = data.labels
    outside = None if out_of_scope is None else labels[1]
    raw = write_candidate(folder, name="m", backend="fake", labels=labels, out_of_scope=outside)
    records = evaluate(raw, data.dev, split="dev", keep_logits=True)
    made = calibrate(raw, data, cache=tmp_path / "a", records=records)
    assert made.calibration == calibrate(raw, data, cache=tmp_path / "b").calibration
    answered = open_model(made).predict([example.input for example in data.dev])
    computed = calibrated_outputs(records, made)
    assert computed is not None
    for ours, theirs in zip(computed, answered, strict=True):
        assert (ours.label, ours.confidence, ours.in_scope, ours.flagged) == (
            theirs.label,
            theirs.confidence,
            theirs.in_scope,
            theirs.flagged,
        )
        np.testing.assert_array_equal(ours.logits, theirs.logits)


def test_a_backend_that_may_answer_otherwise_is_asked(tmp_path: Path) -> None:
    data = make_tiny_development(train=10, dev=40, unlabelled=0)
    folder = tmp_path / "model"
    folder.mkdir()
    raw = write_candidate(folder, name="m", backend="fake", labels=data.labels)
    records = evaluate(raw, data.dev, split="dev", keep_logits=True)
    assert calibrated_outputs(records, msgspec.structs.replace(raw, backend="a-plugin")) is None
