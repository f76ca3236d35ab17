"""Clocks that tests set, and deadlines by them."""

from collections.abc import Callable
from itertools import chain, repeat

from jettison.compress.deadline import Deadline


def clock_of(*seconds: float) -> Callable[[], float]:
    """A clock that says these, one each time that it is looked at, and the last for ever."""
    left = chain(seconds, repeat(seconds[-1]))
    return lambda: next(left)


def over_once_begun() -> Deadline:
    """A deadline that is over from the second time on that somebody asks."""
    return Deadline(1.0, clock=clock_of(0.0, 2.0))
