"""Checks a step's numeric settings against the plainest rules, with one message for each."""

import math
from collections.abc import Callable
from typing import Any

from jettison.errors import InvalidInput


def check_settings(
    step: Any,
    *,
    at_least_1: tuple[str, ...] = (),
    at_least_0: tuple[str, ...] = (),
    above_0: tuple[str, ...] = (),
    shares: tuple[str, ...] = (),
) -> None:
    """Refuse a setting outside its range; None, where a step allows it, passes.

    Args:
        step: The record of settings, with its `name`.
        at_least_1: Names of settings that must be 1 or more.
        at_least_0: Of those that must not be negative.
        above_0: Of those that must be positive.
        shares: Of those that must be in [0, 1).

    Raises:
        InvalidInput: One is not, or is no finite number.
    """
    rules: list[tuple[tuple[str, ...], str, Callable[[float], bool]]] = [
        (at_least_1, "at least 1", lambda value: value >= 1),
        (at_least_0, "at least 0", lambda value: value >= 0),
        (above_0, "above 0", lambda value: value > 0),
        (shares, "in [0, 1)", lambda value: 0 <= value < 1),
    ]
    for names, rule, holds in rules:
        for name in names:
            value = getattr(step, name)
            if value is not None and not (math.isfinite(value) and holds(value)):
                raise InvalidInput(f"{name} of {step.name} must be {rule}, got {value}.")
