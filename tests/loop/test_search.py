"""What the search looks at first."""

from collections import Counter
from types import SimpleNamespace

import pytest

from jettison.loop.search import N_FIRST_LOOK, first_look
from jettison.loop.watcher import Clock
from jettison.task import Example


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


def test_a_small_dev_split_is_looked_at_whole() -> None:
    workspace = space(N_FIRST_LOOK)
    assert first_look(workspace) == workspace.dev  # type: ignore[arg-type]


def test_no_more_time_is_said_to_be_left_than_the_budget_has() -> None:
    """An hour of recipes in a budget of ten minutes: what does not fit is left out."""
    assert Clock(600.0).left_s(3600.0, reserve_s=60.0) == pytest.approx(600, abs=1)
    assert Clock(600.0).left_s(120.0, reserve_s=60.0) == 180
    assert Clock(None).left_s(3600.0, reserve_s=60.0) == 3660
    assert Clock(30.0).left_s(3600.0, reserve_s=60.0) == 60
