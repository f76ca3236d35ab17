"""Two models asked until the verdict is certain."""

import json

import pytest

from fake_runs import LABELS, task_at
from jettison.candidate import write_candidate
from jettison.cli.main import main
from jettison.decision import Verdict
from jettison.errors import InvalidInput
from jettison.loop.sequential import compare_until_sure
from jettison.task import Example
from jettison.task.read import read_task


@pytest.fixture
def models(tmp_path):
    found = {}
    for name, accuracy in (("a", 0.95), ("same", 0.95), ("bad", 0.8)):
        folder = tmp_path / name
        folder.mkdir()
        write_candidate(folder, name=name, backend="fake", labels=LABELS, settings={"accuracy": accuracy})
        found[name] = str(folder)
    return found


def test_clear_cases_take_a_fraction_of_the_examples(tmp_path, models):
    task = read_task(task_at(tmp_path))
    examples = task.read_test(purpose="x").examples
    same = compare_until_sure(models["a"], models["same"], task, examples, margin=0.03)
    bad = compare_until_sure(models["a"], models["bad"], task, examples, margin=0.03)
    assert (same.verdict, bad.verdict) == (Verdict.SHIP, Verdict.BLOCK)
    assert max(same.n_asked, bad.n_asked) < 400
    assert same.saved_share > 0.7
    assert same.slices[0].settled_by == "betting"


def test_an_informed_comparison_asks_the_incumbent_where_it_tells_something(tmp_path, models):
    task = read_task(task_at(tmp_path))
    examples = task.read_test(purpose="x").examples
    plain = compare_until_sure(models["a"], models["same"], task, examples, margin=0.03)
    same = compare_until_sure(models["a"], models["same"], task, examples, margin=0.03, informed=True)
    bad = compare_until_sure(models["a"], models["bad"], task, examples, margin=0.03, informed=True)
    assert (same.verdict, bad.verdict) == (Verdict.SHIP, Verdict.BLOCK)
    assert plain.n_asked_incumbent == plain.n_asked
    assert same.n_asked_incumbent < plain.n_asked_incumbent / 2
    assert bad.slices[0].difference == pytest.approx(-0.15, abs=0.06)


def test_an_informed_comparison_asks_the_rest_where_the_examples_run_out(tmp_path, models):
    task = read_task(task_at(tmp_path))
    examples = task.read_test(purpose="x").examples[:190]
    plain = compare_until_sure(models["a"], models["same"], task, examples, margin=0.025)
    found = compare_until_sure(models["a"], models["same"], task, examples, margin=0.025, informed=True)
    assert found.slices == plain.slices
    assert found.n_asked_incumbent == plain.n_asked_incumbent == 190
    with pytest.raises(InvalidInput, match="looks must not be planned of an informed comparison"):
        compare_until_sure(models["a"], models["same"], task, examples, margin=0.03, looks=4, informed=True)


def test_where_examples_run_out_the_fixed_size_test_tells(tmp_path, models):
    task = read_task(task_at(tmp_path))
    examples = task.read_test(purpose="x").examples
    found = compare_until_sure(models["a"], models["same"], task, examples[:190], margin=0.025)
    assert (found.verdict, found.slices[0].settled_by, found.n_asked) == (Verdict.SHIP, "fixed", 190)
    few = compare_until_sure(models["a"], models["same"], task, examples[:50], margin=0.025)
    assert (few.verdict, few.slices[0].settled_by) == (Verdict.NOT_ENOUGH_DATA, "nothing")


def test_examples_of_one_group_are_refused(tmp_path, models):
    task = read_task(task_at(tmp_path))
    twins = [Example(id=str(i), input="x", expected="refund", group="g") for i in range(2)]
    with pytest.raises(InvalidInput, match="got group 'g' more than once"):
        compare_until_sure(models["a"], models["same"], task, twins, margin=0.1)


def test_the_command_says_what_it_saved(tmp_path, models, capsys):
    path = task_at(tmp_path)
    with pytest.raises(SystemExit) as end:
        main(
            f"compare {models['a']} {models['bad']} --task {path} --margin 0.03 --until-sure --json".split()
        )
    assert end.value.code == 1
    assert json.loads(capsys.readouterr().out)["verdict"] == "BLOCK"
    with pytest.raises(SystemExit) as end:
        main(f"compare {models['a']} {models['same']} --task {path} --margin 0.03 --until-sure".split())
    assert end.value.code == 0
    assert "saved" in capsys.readouterr().out


def test_planned_looks_stop_at_a_look_and_spend_alpha_once(tmp_path, models):
    task = read_task(task_at(tmp_path))
    examples = task.read_test(purpose="x").examples
    same = compare_until_sure(models["a"], models["same"], task, examples, margin=0.03, looks=4)
    assert same.verdict == Verdict.SHIP
    assert same.slices[0].settled_by in {"look 1 of 4", "look 2 of 4"}
    assert same.n_asked <= len(examples) / 2 + 32
    few = compare_until_sure(models["a"], models["same"], task, examples[:50], margin=0.025, looks=4)
    assert (few.verdict, few.slices[0].settled_by, few.n_asked) == (
        Verdict.NOT_ENOUGH_DATA,
        "nothing",
        50,
    )
    with pytest.raises(InvalidInput, match="looks must be 1 to 50, got 0"):
        compare_until_sure(models["a"], models["same"], task, examples, margin=0.03, looks=0)


def test_looks_without_until_sure_are_refused(tmp_path, models, capsys):
    path = task_at(tmp_path)
    with pytest.raises(SystemExit) as end:
        main(f"compare {models['a']} {models['same']} --task {path} --looks 3".split())
    assert end.value.code == 2
    assert "--looks must come with --until-sure, got --looks 3" in capsys.readouterr().err
