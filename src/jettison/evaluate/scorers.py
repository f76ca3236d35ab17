"""A scorer judges one output against one example; a scorer that cannot tell says so with None."""

from typing import Protocol, runtime_checkable

import msgspec

from jettison.model import Output
from jettison.task import Example


class Score(msgspec.Struct, frozen=True, kw_only=True):
    """One judgement of one output."""

    value: float | None
    """1 is right, 0 is wrong; None where the scorer cannot tell."""
    reason: str | None = None
    """Why there is no value."""


@runtime_checkable
class Scorer(Protocol):
    """Judges one output. Built by its entry point with `out_of_scope=<label or None>`."""

    def score(self, example: Example, output: Output) -> Score:
        """Judge one output; must not raise on an output that carries an error."""


class LabelScorer:
    """1 when the label answered is exactly the label expected, else 0. No answer is a wrong answer."""

    def __init__(self, *, out_of_scope: str | None = None) -> None:
        self._out_of_scope = out_of_scope

    def score(self, example: Example, output: Output) -> Score:
        """Judge the label alone; confidence and flags play no part."""
        if example.expected is None:
            return Score(value=None, reason="nobody has said what the right label is")
        return Score(value=1.0 if output.error is None and output.label == example.expected else 0.0)


class OutOfScopeScorer:
    """1 when an out-of-scope input is flagged, or an in-scope input is not, else 0.

    It judges the flag, which comes of the confidence at the calibrated share of false
    alarms, and not the label: a classifier whose arg-max seldom is the out-of-scope
    label may still know well what it does not know. Its mean over in-scope examples is
    1 minus the share of false alarms; over out-of-scope examples, the share caught.
    """

    def __init__(self, *, out_of_scope: str | None = None) -> None:
        self._out_of_scope = out_of_scope

    def score(self, example: Example, output: Output) -> Score:
        """Judge the flag; None without an out-of-scope label, an expected label or a calibration."""
        if self._out_of_scope is None:
            return Score(value=None, reason="the task has no out-of-scope label")
        if example.expected is None:
            return Score(value=None, reason="nobody has said what the right label is")
        if output.error is not None:
            return Score(value=0.0)
        if output.in_scope is None:
            return Score(value=None, reason="the candidate is not calibrated for scope")
        return Score(value=float(output.flagged == (example.expected == self._out_of_scope)))
