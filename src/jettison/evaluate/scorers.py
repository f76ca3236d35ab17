"""A scorer judges one output against one example; a scorer that cannot tell says so with None."""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import msgspec

from jettison import registry
from jettison.errors import InvalidInput
from jettison.model import Output
from jettison.task import Example


class Score(msgspec.Struct, frozen=True, kw_only=True):
    """One judgement of one output."""

    value: float | None
    """1 is right, 0 is wrong; None where the scorer cannot tell."""
    reason: str | None = None
    """Why there is no value, or what the value comes of."""


@runtime_checkable
class Scorer(Protocol):
    """Judges one output. Built by its entry point with `out_of_scope=<label or None>` and its settings.

    A scorer that is quicker at many may also have `score_all`, as `score_all` below calls it; one whose
    judgement depends on the machine may have `facts()`, which the evidence keeps; one that holds a
    model, `close()`; one that compares with right answers, `needs_right_answer`, true.
    """

    def score(self, example: Example, output: Output) -> Score:
        """Judge one output; must not raise on an output that carries an error."""


Scorers = Sequence[str] | Mapping[str, Mapping[str, Any]]
"""Names of scorer plugins; or a name to score under → settings, with the plugin's name as `scorer` where
the two differ: `{"f1": {}, "phone": {"scorer": "regex", "pattern": "Call (.*)"}}`."""


def open_scorers(scorers: Scorers, *, out_of_scope: str | None = None) -> dict[str, Scorer]:
    """Build scorers, each under the name that its scores go by.

    Raises:
        UnknownName: No installed package declares one of them.
        InvalidInput: A setting is unknown, missing or out of range.
    """
    return {
        name: _open(name, dict(settings), out_of_scope) for name, settings in with_settings(scorers).items()
    }


def check_right_answers(scorers: Mapping[str, Scorer], examples: Sequence[Example]) -> None:
    """Refuse a scorer that compares with right answers where no example has one.

    Raises:
        InvalidInput: There is one; unit tests are no right answers.
    """
    if not examples or any(one.expected is not None or one.references for one in examples):
        return
    for name, scorer in scorers.items():
        if getattr(scorer, "needs_right_answer", False):
            tested = any(one.tests for one in examples)
            has = "unit tests alone, which are none" if tested else "no right answer at all"
            raise InvalidInput(
                f"scorer {name!r} must have right answers to compare with, got examples with {has}. Write "
                f"solutions into the column that `expected` names, or leave {name!r} out of `scorers`."
            )


def close_scorers(scorers: Mapping[str, Scorer]) -> None:
    """Let go of what scorers hold open."""
    for scorer in scorers.values():
        getattr(scorer, "close", lambda: None)()


def with_settings(scorers: Scorers) -> dict[str, dict[str, Any]]:
    """Name → settings, whichever way the scorers were given."""
    if isinstance(scorers, Mapping):
        return {name: dict(settings) for name, settings in scorers.items()}
    return {name: {} for name in scorers}


def score_all(scorer: Scorer, pairs: Sequence[tuple[Example, Output]]) -> list[Score]:
    """Judge many outputs, by the scorer's own way where it has one; in their order."""
    together = getattr(scorer, "score_all", None)
    if together is not None:
        found: list[Score] = together(pairs)
        return found
    return [scorer.score(example, output) for example, output in pairs]


def _open(name: str, settings: dict[str, Any], out_of_scope: str | None) -> Scorer:
    plugin = str(settings.pop("scorer", name))
    factory = registry.load("scorers", plugin)
    taken = inspect.signature(factory).parameters
    known = [key for key in taken if key != "out_of_scope"]
    if any(kind.kind is inspect.Parameter.VAR_KEYWORD for kind in taken.values()):
        known += list(settings)
    for key in settings:
        if key not in known:
            raise InvalidInput(f"a setting of scorer {plugin!r} must be one of {known}, got {key!r}.")
    for key in known:
        if key in taken and taken[key].default is inspect.Parameter.empty and key not in settings:
            raise InvalidInput(f"scorer {plugin!r} must be given {key!r}, got {sorted(settings)}.")
    try:
        opened: Scorer = factory(out_of_scope=out_of_scope, **settings)
    except (TypeError, AttributeError) as error:
        raise InvalidInput(
            f"a setting of scorer {plugin!r} is of the wrong kind: {error}. Got {settings}."
        ) from error
    return opened


LOST = "the answer was lost on the way"
"""Why no scorer judges an output that is `unanswered`."""


class LabelScorer:
    """1 when the label answered is exactly the label expected, else 0. No answer is a wrong answer,
    unless it was lost on the way."""

    def __init__(self, *, out_of_scope: str | None = None) -> None:
        self._out_of_scope = out_of_scope

    def score(self, example: Example, output: Output) -> Score:
        """Judge the label alone; confidence and flags play no part."""
        if example.expected is None:
            return Score(value=None, reason="nobody has said what the right label is")
        if output.unanswered:
            return Score(value=None, reason=LOST)
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
        if output.unanswered:
            return Score(value=None, reason=LOST)
        if output.error is not None:
            return Score(value=0.0)
        if output.in_scope is None:
            return Score(value=None, reason="the candidate is not calibrated for scope")
        return Score(value=float(output.flagged == (example.expected == self._out_of_scope)))
