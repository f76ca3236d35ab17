"""Cascades weighed on records must be the cascades that are made."""

from dataclasses import replace

import msgspec
import pytest

from fake_runs import LABELS, config_at
from jettison.candidate import write_candidate
from jettison.compress.recipe import Recipe
from jettison.decision import CUT_SHORT, CostSummary, Interval
from jettison.loop import cascades, search
from jettison.loop.cascade_pairs import cascade_pairs
from jettison.loop.cascades import (
    Plan,
    _made,
    epsilons_of,
    nested_options,
    options_of,
    short_names,
    shortlist,
)
from jettison.loop.run import _open_workspace
from jettison.loop.search import Findings, first_contender, traffic_weights
from jettison.loop.watcher import Silent
from jettison.loop.workspace import Contender


@pytest.fixture
def workspace(tmp_path):
    return _open_workspace(config_at(tmp_path), Silent())


def contender(workspace, name, ratio, **settings) -> Contender:
    folder = workspace.folder / name
    folder.mkdir(parents=True)
    made = write_candidate(folder, name=name, backend="fake", labels=LABELS, settings=settings)
    interval = Interval(value=ratio, low=ratio, high=ratio)
    found = first_contender(workspace, workspace.calibrated(made), Recipe(name=name, steps=()))
    return Contender(
        candidate=found.candidate,
        recipe=found.recipe,
        records=found.records,
        cost=CostSummary(cpu_ratio=interval),
    )


@pytest.fixture
def arms(workspace):
    return {
        "tiny": contender(workspace, "tiny", 0.01, accuracy=0.9, seed=5),
        "small": contender(workspace, "small", 0.1, accuracy=0.96, seed=3),
        "incumbent": contender(workspace, "incumbent", 1.0, accuracy=0.97),
    }


def test_a_weighed_cascade_answers_as_the_one_that_is_made(workspace, arms):
    options = options_of(workspace, arms["incumbent"], arms["small"], arms["incumbent"])
    assert {option.plan.combine for option in options} == {"fallback", "average"}
    for option in options:
        made = _made(workspace, arms["incumbent"], option)
        assert [r.output for r in made.records] == [r.output for r in option.records]
        assert [r.escalated for r in made.records] == [r.escalated for r in option.records]


def test_a_weighed_cascade_of_three_arms_answers_as_the_one_that_is_made(workspace, arms):
    inner = options_of(workspace, arms["incumbent"], arms["small"], arms["incumbent"])[-1]
    for option in options_of(workspace, arms["incumbent"], arms["tiny"], inner):
        made = _made(workspace, arms["incumbent"], option)
        assert [r.output for r in made.records] == [r.output for r in option.records]
        assert made.name == option.name


def test_expected_cost_is_the_lean_arms_and_the_fallbacks_share(workspace, arms):
    (option, *_) = options_of(workspace, arms["incumbent"], arms["small"], arms["incumbent"])
    escalated = sum(r.escalated for r in option.records) / len(option.records)
    assert option.ratio == pytest.approx(0.1 + escalated * 1.0)


def test_an_arm_that_is_no_cheaper_is_not_put_in_front(arms):
    pairs = cascade_pairs([arms["tiny"], arms["small"], arms["incumbent"]], arms["incumbent"], "label")
    names = {(lean.name, fallback.name) for lean, fallback in pairs}
    assert ("small", "incumbent") in names
    assert all(lean != "incumbent" for lean, _ in names)


def test_a_fallback_that_is_as_right_but_changes_more_answers_replaces_none(workspace, arms):
    """int8 stays behind where a narrower model is as right, but on other inputs."""
    near = contender(workspace, "near", 0.16, accuracy=0.97)
    far = contender(workspace, "far", 0.1, accuracy=0.97, seed=9)
    ordered = [arms["tiny"], far, near, arms["incumbent"]]
    names = {(a.name, b.name) for a, b in cascade_pairs(ordered, arms["incumbent"], "label")}
    assert {("tiny", "near"), ("far", "near")} <= names
    assert ("tiny", "incumbent") not in names


def test_a_fallback_of_twice_the_cost_of_one_as_right_is_left_out(workspace, arms):
    near = contender(workspace, "near", 0.16, accuracy=0.97)
    twin = contender(workspace, "twin", 0.45, accuracy=0.97, seed=9)
    pairs = cascade_pairs([arms["tiny"], near, twin, arms["incumbent"]], twin, "label")
    assert {fallback.name for _, fallback in pairs} == {"near"}


def test_every_much_leaner_arm_is_put_in_front_of_a_cascade(workspace, arms):
    config = msgspec.structs.replace(workspace.config, nominate_at=0.0)
    workspace = replace(workspace, config=config)
    between = contender(workspace, "between", 0.04, accuracy=0.93, seed=7)
    ordered = [arms["tiny"], between, arms["small"], arms["incumbent"]]
    inner = options_of(workspace, arms["incumbent"], arms["small"], arms["incumbent"])
    found = nested_options(workspace, arms["incumbent"], ordered, inner)
    assert {option.arms for option in found} == {"tiny→small→incumbent", "between→small→incumbent"}


def test_two_arms_are_put_in_front_of_a_cascade_of_two(workspace, arms, monkeypatch):
    """Weighed as it answers when it is made, four arms deep."""
    config = msgspec.structs.replace(workspace.config, nominate_at=0.0)
    workspace = replace(workspace, config=config)
    between = contender(workspace, "between", 0.04, accuracy=0.93, seed=7)
    weighed = []
    monkeypatch.setattr(cascades, "N_NESTED", 50)
    monkeypatch.setattr(cascades, "shortlist", lambda _, options: weighed.extend(options) or [])
    findings = Findings(contenders=[arms["tiny"], between, arms["small"]])
    cascades.add_cascades(workspace, arms["incumbent"], findings)
    deep = [option for option in weighed if option.arms == "tiny→between→small→incumbent"]
    assert deep
    made = _made(workspace, arms["incumbent"], deep[-1])
    assert [r.output for r in made.records] == [r.output for r in deep[-1].records]


def test_epsilons_follow_the_tightest_margin(workspace):
    assert epsilons_of(workspace.config) == (0.005, 0.01, 0.02, 0.03)


def test_without_a_likely_cascade_the_likeliest_is_made(workspace, arms):
    options = [
        replace(option, chance=0.1 * index)
        for index, option in enumerate(
            options_of(workspace, arms["incumbent"], arms["small"], arms["incumbent"])[:3]
        )
    ]
    assert [option.chance for option in shortlist(workspace, options)] == [0.2]


def test_without_a_scope_all_dev_examples_weigh_the_same(workspace):
    assert set(traffic_weights(workspace)) == {1.0}


def test_a_plan_says_what_it_is():
    assert Plan(0.01, "average").words == "@0.01 mean"


def test_a_cascade_is_called_by_its_arms(workspace, arms):
    inner = options_of(workspace, arms["incumbent"], arms["small"], arms["incumbent"])[-1]
    first, second, *_ = options_of(workspace, arms["incumbent"], arms["tiny"], inner)
    names = short_names([first, inner, second])
    assert names == ["tiny→small→incumbent", "small→incumbent", "tiny→small→incumbent #2"]
    made = _made(workspace, arms["incumbent"], second, name=names[2])
    assert (made.name, made.candidate.name) == (names[2], names[2])


def test_costs_of_another_processor_are_not_taken_for_this_ones(workspace, arms, monkeypatch):
    measured = []

    def costs_of(contenders, inputs, **options):
        measured.append(len(contenders))
        return [CostSummary() for _ in contenders]

    monkeypatch.setattr(search, "costs_of", costs_of)
    for model in ("this", "this", "another", "this"):
        monkeypatch.setattr(search, "answering_machine", lambda model=model: (model, "avx2"))
        search.with_costs(workspace, arms["incumbent"], [arms["small"]], thorough=False)
    assert measured == [2, 2]


def test_costs_that_a_budget_cut_short_are_measured_again_with_another_budget(workspace, arms, monkeypatch):
    measured = []
    said = CostSummary(marks=(f"{CUT_SHORT}: 1 of 6 openings in fresh processes.",))

    def costs_of(contenders, inputs, *, settings, **options):
        measured.append(settings["wall_s"])
        return [said if settings["wall_s"] == 5.0 else CostSummary() for _ in contenders]

    monkeypatch.setattr(search, "costs_of", costs_of)
    for budget, wall_s in (("3m", 5.0), ("3m", 100.0), ("5m", 100.0), ("3m", 5.0)):
        config = msgspec.structs.replace(workspace.config, budget=budget)
        _, (cost,) = search.with_costs(
            replace(workspace, config=config),
            arms["incumbent"],
            [arms["small"]],
            thorough=True,
            wall_s=wall_s,
        )
    assert measured == [5.0, 100.0]  # the second run of 3 m found its own, the last one the whole
    assert not search.is_cut_short(cost.cost)
