"""A teacher that the network hides ends the run for now; a recipe that fails by itself does not."""

from types import SimpleNamespace
from typing import Any

import pytest

from jettison.compress.recipe import Recipe
from jettison.errors import StepFailed, Unanswered
from jettison.loop.search import _made

RECIPE = Recipe(name="r", steps=(), family="student", why="to see")


def workspace(error: Exception) -> Any:
    def make(*_: object) -> None:
        raise error

    return SimpleNamespace(make=make)


def test_lost_answers_of_a_teacher_end_the_run():
    with pytest.raises(Unanswered, match="run it again"):
        _made(workspace(Unanswered("run it again")), SimpleNamespace(candidate=None), RECIPE, 1)


def test_a_recipe_that_fails_is_left_out():
    said = _made(workspace(StepFailed("it diverged")), SimpleNamespace(candidate=None), RECIPE, 1)
    assert said == "it diverged"
