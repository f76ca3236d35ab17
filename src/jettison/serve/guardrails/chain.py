"""Asks several guardrails in order: each sees what the one before made of the text."""

from collections.abc import Sequence
from functools import cached_property

import msgspec

from jettison.serve.guardrails.opened import Opened
from jettison.serve.guardrails.verdict import Action, Verdict, Where, worst


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What a chain of guardrails came to."""

    action: Action
    """The severest of all."""
    text: str
    """What to go on with; of a blocked text, what the guardrails before made of it: never send it."""
    verdicts: tuple[Verdict, ...]
    """All but plain passes, in order."""


class Chain:
    """Guardrails in order. The first that blocks ends it.

    Args:
        guardrails: Opened ones, as `read_guardrails` gives.
    """

    def __init__(self, guardrails: Sequence[Opened]) -> None:
        self.guardrails = tuple(guardrails)

    @cached_property
    def aside(self) -> "Chain":
        """The same for what stands beside an answer: reasoning, refusals, calls of tools, descriptions."""
        return Chain([one for one in self.guardrails if not one.is_for_answers])

    def check(self, text: str, *, where: Where) -> Outcome:
        """Judge one text; never raises."""
        verdicts: list[Verdict] = []
        for guardrail in self.guardrails:
            verdict = guardrail.check(text, where=where)
            if verdict.action == "pass" and verdict.reason is None:
                continue
            verdicts.append(verdict)
            if verdict.action == "block":
                break
            if verdict.action == "redact" and verdict.text is not None:
                text = verdict.text
        return Outcome(action=worst(verdicts), text=text, verdicts=tuple(verdicts))
