"""Nomination: by predicted chance and cost, on dev alone."""

import random
from dataclasses import replace

import msgspec
import pytest

from jettison.candidate import Candidate
from jettison.compress.recipe import Recipe
from jettison.decision import AtMost, CostSummary, Interval, NotWorse
from jettison.loop.nominate import nominate, outlook
from jettison.loop.search import dominates, quick_version
from jettison.loop.watcher import Clock
from jettison.loop.workspace import Contender
from jettison.record import Record

N_DEV = 2000
GATE = NotWorse(margin=0.02)


def records(n_wrong: int, seed: int = 0) -> tuple[Record, ...]:
    """Dev records with this many wrong answers, at places drawn by the seed."""
    wrong = set(random.Random(seed).sample(range(N_DEV), n_wrong))
    return tuple(
        Record(
            candidate="c", example_id=str(i), split="dev", output="no" if i in wrong else "yes",
            expected="yes", scores={"label": 0.0 if i in wrong else 1.0},
        )
        for i in range(N_DEV)
    )  # fmt: skip


def contender(name, tmp_path, *, wrong, ratio, seed=0, members=(), width=0.02, family="given") -> Contender:
    interval = Interval(value=ratio, low=ratio * (1 - width), high=ratio * (1 + width))
    return Contender(
        candidate=Candidate(path=tmp_path, name=name, backend="fake", labels=("yes", "no"), digest=name),
        recipe=Recipe(name=name, steps=(), family=family),
        records=records(wrong, seed),
        cost=CostSummary(cpu_ratio=interval),
        members=members,
    )


def ballot(tmp_path, *contenders, gates=(GATE,), nominate_at=0.8):
    return nominate(
        contenders,
        contender("incumbent", tmp_path, wrong=100, ratio=1.0),
        gates,
        n_test={"all": 2000},
        nominate_at=nominate_at,
        n_shown=3,
        seed=0,
    )


def test_the_cheapest_that_will_likely_pass_is_nominated(tmp_path):
    found = ballot(
        tmp_path,
        contender("cheap and bad", tmp_path, wrong=200, ratio=0.01),
        contender("cheap and good", tmp_path, wrong=101, ratio=0.1),
        contender("dear and good", tmp_path, wrong=100, ratio=0.5),
    )
    assert found.nominee == "cheap and good"
    assert found.shown[0] == "cheap and bad"


def test_the_chance_is_of_the_margin_that_the_decision_will_judge_by(tmp_path):
    base, lean = (contender(name, tmp_path, wrong=n, ratio=0.1) for name, n in (("a", 100), ("b", 110)))
    base, lean = (
        replace(c, records=tuple(msgspec.structs.replace(r, slices={"lang": "de"}) for r in c.records))
        for c in (base, lean)
    )
    chances = [
        outlook(lean, base, [gate], n_test={"lang=de": 2000}, seed=0).chance
        for gate in (
            NotWorse(margin=0.01, slices=("lang=*",), margins={"lang=*": 0.03}),
            NotWorse(margin=0.03, slices=("lang=*",)),
            NotWorse(margin=0.01, slices=("lang=*",)),
        )
    ]
    assert chances[0] == chances[1] > chances[2]


def test_of_costs_that_cannot_be_told_apart_the_simplest_wins(tmp_path):
    found = ballot(
        tmp_path,
        contender("cascade", tmp_path, wrong=100, ratio=0.099, members=("a", "b")),
        contender("single", tmp_path, wrong=100, ratio=0.1),
    )
    assert found.nominee == "single"


def test_what_is_not_clearly_cheaper_is_not_eligible(tmp_path):
    found = ballot(tmp_path, contender("same", tmp_path, wrong=100, ratio=0.99, width=0.05))
    assert found.nominee is None
    assert found.shown == ("same",)


def test_without_a_likely_one_the_likeliest_is_nominated(tmp_path):
    found = ballot(
        tmp_path,
        contender("hopeless", tmp_path, wrong=300, ratio=0.01),
        contender("close", tmp_path, wrong=135, ratio=0.4, seed=3),
    )
    assert found.nominee == "close"


def test_without_a_likely_one_the_cheapest_of_those_as_likely_as_the_likeliest_is_nominated(tmp_path):
    """A flip fewer on dev is no reason to pay four times as much; a chance half as large is."""
    found = ballot(
        tmp_path,
        contender("doubtful", tmp_path, wrong=128, ratio=0.01, seed=3),
        contender("lean", tmp_path, wrong=105, ratio=0.1, seed=3),
        contender("dear", tmp_path, wrong=104, ratio=0.4, seed=3),
        nominate_at=1.0,
    )
    chance = {outlook.name: outlook.chance for outlook in found.outlooks}
    assert 0.9 * chance["dear"] < chance["lean"] < chance["dear"] < 1
    assert chance["doubtful"] < 0.5 * chance["dear"]
    assert (found.nominee, found.fallback) == ("lean", "dear")


def test_where_nobody_keeps_to_a_limit_of_cost_the_nominee_is_not_the_worst_there_is(tmp_path):
    """No latency was measured, so that no candidate can pass; one of them answers as the incumbent does."""
    found = ballot(
        tmp_path,
        contender("hopeless", tmp_path, wrong=300, ratio=0.01),
        contender("good", tmp_path, wrong=100, ratio=0.1),
        gates=(GATE, AtMost(cost="latency_p95_s", limit=0.02)),
    )
    assert [outlook.chance for outlook in found.outlooks] == [0.0, 0.0]
    assert found.nominee == "good"


def test_a_safer_candidate_stands_behind_the_nominee(tmp_path):
    found = ballot(
        tmp_path,
        contender("cheap", tmp_path, wrong=112, ratio=0.1, seed=1),
        contender("safe", tmp_path, wrong=100, ratio=0.5),
        nominate_at=0.05,
    )
    assert (found.nominee, found.fallback) == ("cheap", "safe")


def test_of_equally_safe_fallbacks_whose_costs_cannot_be_told_apart_the_simplest_is_taken(tmp_path):
    found = ballot(
        tmp_path,
        contender("cheap", tmp_path, wrong=112, ratio=0.1, seed=1),
        contender("cascade", tmp_path, wrong=100, ratio=0.49, members=("a", "b")),
        contender("single", tmp_path, wrong=100, ratio=0.5),
        nominate_at=0.05,
    )
    assert (found.nominee, found.fallback) == ("cheap", "single")


def test_the_chance_falls_as_dev_loses_more(tmp_path):
    incumbent = contender("incumbent", tmp_path, wrong=100, ratio=1.0)
    chances = [
        outlook(
            contender("c", tmp_path, wrong=wrong, ratio=0.1),
            incumbent,
            (GATE,),
            n_test={"all": 2000},
            seed=0,
        ).chance
        for wrong in (100, 120, 140, 160)
    ]
    assert chances == sorted(chances, reverse=True)
    assert chances[0] > 0.95
    assert chances[-1] < 0.05


def test_a_cost_limit_that_is_not_measured_cannot_be_passed(tmp_path):
    one = contender("c", tmp_path, wrong=100, ratio=0.1)
    gates = (GATE, AtMost(cost="energy_j", limit=1.0))
    found = outlook(
        one, contender("i", tmp_path, wrong=100, ratio=1.0), gates, n_test={"all": 2000}, seed=0
    )
    assert (found.chance, found.weakest) == (0.0, "energy_j")


def test_one_dominates_another_only_when_the_intervals_are_apart(tmp_path):
    good = contender("good", tmp_path, wrong=100, ratio=0.1)
    worse = contender("worse", tmp_path, wrong=110, ratio=0.2)
    near = contender("near", tmp_path, wrong=110, ratio=0.101)
    assert dominates(good, worse)
    assert not dominates(worse, good)
    assert not dominates(good, near)


def test_short_training_ends_at_the_training_step():
    steps = ({"step": "prune", "depth": 2}, {"step": "distill", "epochs": 8}, {"step": "export"})
    quick = quick_version(Recipe(name="r", steps=steps))
    assert quick is not None
    assert quick.steps == ({"step": "prune", "depth": 2}, {"step": "distill", "epochs": 2})
    assert quick_version(Recipe(name="r", steps=({"step": "quantize"},))) is None


def test_short_training_is_a_quarter_of_what_the_step_does_unasked():
    quick = quick_version(Recipe(name="r", steps=({"step": "distill"},)))
    assert quick is not None
    assert quick.steps == ({"step": "distill", "epochs": 1},)


def test_the_clock_learns_how_wrong_its_estimates_are():
    clock = Clock(budget_s=100.0)
    assert clock.corrected_s(10.0) == 10.0
    clock.learn(estimate_s=10.0, took_s=20.0)
    assert clock.corrected_s(10.0) == pytest.approx(20.0)
    assert clock.has_time_for(40.0)
    assert not clock.has_time_for(60.0)
    assert Clock(None).has_time_for(1e9)


def test_the_chance_of_grouped_examples_is_that_of_their_groups(tmp_path):
    def in_groups_of(size, made):
        rows = (msgspec.structs.replace(r, group=f"g{int(r.example_id) // size}") for r in made.records)
        return replace(made, records=tuple(rows))

    same = contender("twin", tmp_path, wrong=100, ratio=0.1)
    incumbent = contender("incumbent", tmp_path, wrong=100, ratio=1.0)
    chances = [
        outlook(
            in_groups_of(size, same), in_groups_of(size, incumbent), (GATE,), n_test={"all": 2000}, seed=0
        ).chance
        for size in (1, 4, 50)
    ]
    assert chances[0] > 0.95
    assert chances[1] > 0.9  # 500 groups: 194 would do
    assert chances[2] == 0.0  # 40 groups cannot certify 2 points


@pytest.mark.parametrize(("to", "is_likely"), [(0.995, True), (0.9, False)])
def test_the_chance_of_graded_scores_comes_of_the_scores_and_not_of_who_is_wholly_right(
    tmp_path, to, is_likely
):
    """Half of its answers lose half a point, or ten points: 0.25 or 5 in the mean."""
    gate = NotWorse(scorer="f1", margin=0.02)

    def graded(name, low):
        one = contender(name, tmp_path, wrong=0, ratio=0.5)
        scored = (
            msgspec.structs.replace(r, scores={"f1": low if i % 2 else 1.0})
            for i, r in enumerate(one.records)
        )
        return replace(one, records=tuple(scored))

    found = outlook(graded("a", to), graded("incumbent", 1.0), (gate,), n_test={"all": 2000}, seed=0)
    assert (found.chance > 0.9) == is_likely
    assert (found.chance < 0.1) != is_likely
