"""A teacher that the network hides ends the run for now; a recipe that fails by itself does not."""

from types import SimpleNamespace
from typing import Any

import pytest

from jettison.compress.recipe import Recipe
from jettison.errors import StepFailed, Unanswered
from jettison.loop.search import Making, _made

RECIPE = Recipe(name="r", steps=(), family="student", why="to see")


def making(error: Exception) -> Making:
    def make(*_: object, **__: object) -> None:
        raise error

    workspace: Any = SimpleNamespace(make=make)
    incumbent: Any = SimpleNamespace(candidate=None)
    return Making(workspace=workspace, incumbent=incumbent, threads=1, deadline=None)


def test_lost_answers_of_a_teacher_end_the_run():
    with pytest.raises(Unanswered, match="run it again"):
        _made(making(Unanswered("run it again")), RECIPE)


def test_a_recipe_that_fails_is_left_out():
    said = _made(making(StepFailed("it diverged")), RECIPE)
    assert said == "it diverged"
