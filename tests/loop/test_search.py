"""What the search looks at first."""

from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest

from jettison.candidate import write_candidate
from jettison.compress.recipe import Recipe, Surroundings, auto_recipes
from jettison.loop import search as searching
from jettison.loop.run import _auto
from jettison.loop.search import (
    N_FIRST_LOOK,
    NO_TIME,
    Findings,
    first_look,
    search,
)
from jettison.loop.time_plan import example_cpu_s, making_s, time_for_costs
from jettison.loop.watcher import Clock
from jettison.record import Cost, Record
from jettison.task import Example
from tiny import make_tiny_development


def space(n: int, seed: int = 0) -> SimpleNamespace:
    """A workspace of dev examples that come sorted by domain, as files often do."""
    dev = tuple(
        Example(
            id=f"e{i}", input=str(i), expected="a", slices={"domain": "movies" if 4 * i < n else "news"}
        )
        for i in range(n)
    )
    return SimpleNamespace(dev=dev, config=SimpleNamespace(seed=seed))


def test_the_first_look_is_drawn_from_all_of_dev_and_not_from_its_head() -> None:
    workspace = space(4000)
    found = first_look(workspace)  # type: ignore[arg-type]
    assert len(found) == N_FIRST_LOOK
    domains = Counter(example.slices["domain"] for example in found)
    assert 60 < domains["movies"] < 140  # a quarter of 400 is 100, its standard deviation 8
    assert found == first_look(workspace)  # type: ignore[arg-type]
    assert found != first_look(space(4000, seed=1))  # type: ignore[arg-type]
    assert list(found) == [example for example in workspace.dev if example in found]


@pytest.mark.parametrize(("family", "is_cut"), [("bert", True), ("albert", False)])
def test_automatic_recipes_cut_what_can_be_cut_and_any_name_may_be_skipped(
    tmp_path: Path, family: str, is_cut: bool
) -> None:
    (tmp_path / "config.json").write_text(f'{{"model_type": "{family}"}}')
    model = write_candidate(tmp_path, name="m", backend="hf", labels=("a", "b"), settings={"n_layers": 6})
    development = make_tiny_development(train=8, dev=8, unlabelled=0)
    config = SimpleNamespace(student=None, budget_s=None, training_threads=1, skip=["narrow-third-int8"])
    workspace = SimpleNamespace(task=SimpleNamespace(development=development), config=config)
    recipes = _auto(workspace, SimpleNamespace(candidate=model), 0.01)  # type: ignore[arg-type]
    steps = {step["step"] for recipe in recipes for step in recipe.steps}
    assert ({"prune", "narrow"} <= steps) is is_cut
    assert steps.isdisjoint({"prune", "narrow"}) is not is_cut
    assert "narrow-third-int8" not in {recipe.name for recipe in recipes}


def test_a_small_dev_split_is_looked_at_whole() -> None:
    workspace = space(N_FIRST_LOOK)
    assert first_look(workspace) == workspace.dev  # type: ignore[arg-type]


def test_no_more_time_is_said_to_be_left_than_the_budget_has() -> None:
    """An hour of recipes in a budget of ten minutes: what does not fit is left out."""
    assert Clock(600.0).left_s(3600.0, reserve_s=60.0) == pytest.approx(600, abs=1)
    assert Clock(600.0).left_s(120.0, reserve_s=60.0) == 180
    assert Clock(None).left_s(3600.0, reserve_s=60.0) == 3660
    assert Clock(30.0).left_s(3600.0, reserve_s=60.0) == 60


def test_a_short_budget_keeps_little_for_measuring_and_not_the_time_of_a_full_run() -> None:
    """Eight measured of 10 s each twice, 5 more openings of 5 models: 235 s. Of 180 s 0.3 x 0.3 of it."""

    def kept_s(budget_s: float | None) -> float:
        config = SimpleNamespace(n_shown=5, cost_s=8.0, cost_openings=6, budget_s=budget_s)
        return time_for_costs(SimpleNamespace(config=config))  # type: ignore[arg-type]

    assert [kept_s(None), kept_s(600.0), kept_s(180.0)] == pytest.approx([235.0, 235.0, 21.15])


def test_answers_found_again_say_what_they_took_when_they_were_given() -> None:
    """Two of 10 and 20 ms and one that nobody timed, read in no time; an endpoint is not timed here."""

    def record(i: int, cpu_s: float | None) -> Record:
        return Record(
            candidate="c", example_id=str(i), split="dev", output="a", cost=Cost(cpu_s=cpu_s, latency_s=9.0)
        )

    local = [record(i, cpu_s) for i, cpu_s in enumerate((0.01, 0.02, None))]
    assert example_cpu_s(local, took_s=0.0) == pytest.approx(0.015)
    elsewhere = [record(i, None) for i in range(4)]
    assert example_cpu_s(elsewhere, took_s=0.02) == pytest.approx(0.005)
    assert example_cpu_s(elsewhere, took_s=0.0) == 1e-4


def test_what_two_students_share_is_spent_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """10 + 60 s, then 30 of the second's 90; with 12 of 120 kept there is no room for 20 more."""
    tried: list[tuple[str, float]] = []
    monkeypatch.setattr(
        searching, "_try", lambda making, recipe, _: tried.append((recipe.name, recipe.estimate_s))
    )
    monkeypatch.setattr(searching, "time_for_costs", lambda workspace: 0.0)
    clock = Clock(120.0)
    clock.spent_s = lambda: sum(s for _, s in tried)  # type: ignore[method-assign]
    watcher = SimpleNamespace(stage=lambda *_: None, found=lambda *_: None)
    task, config = SimpleNamespace(n_test=0), SimpleNamespace(budget=120, budget_s=120.0)
    workspace = SimpleNamespace(clock=clock, watcher=watcher, task=task, config=config, dev=())
    recipes = [
        Recipe(name="linear", steps=(), estimate_s=70.0, shared_s=60.0),
        Recipe(name="static", steps=(), estimate_s=90.0, shared_s=60.0),
        Recipe(name="third", steps=(), estimate_s=20.0),
    ]
    found = search(workspace, None, recipes, training_threads=1, example_s=0.0)  # type: ignore[arg-type]
    assert tried == [("linear", 70.0), ("static", 30.0)]
    assert [(one.name, one.reason) for one in found.tried] == [("third", NO_TIME)]


def test_a_slow_conversion_says_little_of_trainings_and_nothing_once_one_is_measured() -> None:
    """A conversion took 40 s instead of 10. Of a student not seen yet that weighs beside 30 s as estimated:
    (30 + 40) / (30 + 10) = 1.75."""
    clock = Clock(200.0)
    assert clock.corrected_s(100.0, work="student") == 100.0
    clock.learn(estimate_s=10.0, took_s=40.0, work="conversion")
    assert clock.corrected_s(100.0, work="conversion") == clock.corrected_s(100.0) == 400.0
    assert clock.corrected_s(100.0, work="student") == 175.0
    assert clock.has_time_for(100.0, work="student")
    assert not clock.has_time_for(100.0, work="conversion")
    clock.learn(estimate_s=50.0, took_s=60.0, work="student")
    assert clock.corrected_s(100.0, work="student") == pytest.approx(120.0)
    assert clock.corrected_s(100.0) == pytest.approx(100 * 100 / 60)  # of all work together


def test_with_less_time_than_planned_a_recipe_learns_from_fewer_texts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of 200 s 20 are kept. 190 s for 40,000 texts do not fit, 100 s for 20,000 do; 90 s more do not."""
    tried: list[Recipe] = []
    monkeypatch.setattr(searching, "_try", lambda making, recipe, findings: tried.append(recipe))
    monkeypatch.setattr(searching, "time_for_costs", lambda workspace: 5.0)
    clock, told = Clock(200.0), list[str]()
    clock.spent_s = lambda: sum(one.estimate_s for one in tried)  # type: ignore[method-assign]
    watcher = SimpleNamespace(stage=lambda *_: None, found=told.append)
    task, config = SimpleNamespace(n_test=0), SimpleNamespace(budget_s=200.0, budget="200s")
    workspace = SimpleNamespace(clock=clock, watcher=watcher, task=task, config=config, dev=())

    def recipe(name: str, n_texts: int, estimate_s: float, *fewer: Recipe) -> Recipe:
        return Recipe(
            name=name, steps=(), estimate_s=estimate_s, most_texts=n_texts, of_texts=90_000, fewer=fewer
        )

    given = [
        recipe("linear", 40_000, 190.0, recipe("linear", 20_000, 100.0)),
        recipe("static", 40_000, 95.0, recipe("static", 20_000, 90.0)),
    ]
    found = search(workspace, None, given, training_threads=1, example_s=0.0)  # type: ignore[arg-type]
    assert [(one.name, one.most_texts) for one in tried] == [("linear", 20_000)]
    assert told == [
        "linear: learned from 20,000 of 90,000 texts, since the budget is short",
        "static: left out, no time in the budget",
    ]
    assert [(one.name, one.reason) for one in found.tried] == [("static", NO_TIME)]


def test_time_for_making_is_what_reading_asking_measuring_and_deciding_leave() -> None:
    """600 s but 235 for costs, 15 + 1.5 x 20 to decide, 12 to ask 3,000 of dev and 6 to read 100,000."""
    config = SimpleNamespace(n_shown=5, cost_s=8.0, cost_openings=6, budget_s=600.0)
    workspace = SimpleNamespace(config=config, task=SimpleNamespace(n_test=5000), dev=[None] * 3000)
    assert making_s(workspace, 0.004, 100_000) == pytest.approx(600 - 235 - 45 - 12 - 6)  # type: ignore[arg-type]
    config.budget_s = None
    assert making_s(workspace, 0.004, 100_000) is None  # type: ignore[arg-type]


def test_of_four_rivals_two_stay_after_short_training_where_there_is_time_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looks = {"a": 0.7, "b": 0.9, "c": None, "d": "it ran out of memory"}
    monkeypatch.setattr(searching, "_short_look", lambda making, recipe: looks[recipe.name])
    told: list[str] = []
    steps = ({"step": "distill", "epochs": 8},)
    recipes = [Recipe(name=name, steps=steps, family="own", estimate_s=100.0) for name in looks]

    def halved(budget_s: float) -> tuple[list[str], dict[str, tuple[str, float | None, str]]]:
        workspace = SimpleNamespace(clock=Clock(budget_s), watcher=SimpleNamespace(found=told.append))
        making = searching.Making(workspace=workspace, incumbent=None, threads=1, deadline=None)  # type: ignore[arg-type]
        findings = Findings()
        planned = searching._halved(making, recipes, findings, reserve_s=30.0)
        return [r.name for r in planned], {
            t.name: (t.status, t.dev_score, t.reason) for t in findings.tried
        }

    assert halved(140.0) == (
        ["a", "b"],
        {
            "c": ("dropped", None, "behind its rivals after short training (not judged on dev)"),
            "d": ("failed", None, "it ran out of memory"),
        },
    )
    assert told == ["d: it ran out of memory"]
    assert halved(120.0) == (["a", "b", "c", "d"], {})  # a quarter of 400 s, and 30 to keep


@pytest.mark.parametrize("slowness", [1.0, 1.5])
def test_three_minutes_on_fifteen_thousand_texts_try_int8_and_both_students(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, slowness: float
) -> None:
    """CLINC150 and a MiniLM, 4 ms a text: 12 s to ask it dev, then each recipe as long as estimated."""
    incumbent = write_candidate(tmp_path, name="incumbent", backend="hf", labels=("a", "b"))
    around = Surroundings(
        installed=frozenset({"torch", "onnx"}), n_train=15_000, n_layers=6, example_s=0.004, budget_s=180.0
    )
    clock, spent = Clock(180.0), [12.0 * slowness]
    clock.spent_s = lambda: sum(spent)  # type: ignore[method-assign]
    tried: list[str] = []

    def take_time(making: object, recipe: Recipe, findings: object) -> None:
        tried.append(recipe.name)
        spent.append(slowness * recipe.estimate_s)

    monkeypatch.setattr(searching, "time", SimpleNamespace(monotonic=clock.spent_s))
    monkeypatch.setattr(searching, "_try", take_time)
    config = SimpleNamespace(budget="3m", budget_s=180.0, n_shown=5, cost_s=8.0, cost_openings=6)
    watcher = SimpleNamespace(stage=lambda *_: None, found=lambda *_: None)
    workspace = SimpleNamespace(
        clock=clock, watcher=watcher, task=SimpleNamespace(n_test=5500), config=config, dev=()
    )
    recipes = auto_recipes(incumbent, around)
    search(workspace, None, recipes, training_threads=1, example_s=0.004)  # type: ignore[arg-type]
    assert {"onnx-int8", "linear", "static"} <= set(tried)
    assert clock.corrected_s(100.0) == pytest.approx(100 * slowness)  # of all that a try takes
