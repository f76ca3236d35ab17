"""Options that are numbers within a range; `nan` is within any for click, and `inf` within open ones."""

import math
from typing import Any

import click


class FiniteRange(click.FloatRange):
    """A range of numbers, each finite."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """The number, refused where it is none that can be counted with."""
        found = float(super().convert(value, param, ctx))
        if not math.isfinite(found):
            self.fail(f"{value!r} is not a finite number.", param, ctx)
        return found
