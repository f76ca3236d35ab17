"""The guardrails of one route as requests, replies and streams ask them: noted, counted, off the loop."""

import asyncio
from collections.abc import Callable
from typing import Any, Literal

from jettison.serve.calls import Call
from jettison.serve.metrics import Metrics

QUICK = frozenset({"pii", "secrets", "length", "json_schema"})
"""Guardrails of ours that look at a text in well under a millisecond: asked without a thread."""
LONG_TEXT = 20_000
"""Characters, of all texts together, from which even these are asked in a thread."""


class Rails:
    """Guardrails in order.

    Args:
        chain: `check(text, where=...)` → an outcome with `action`, `text` and `verdicts`; its `aside` is
            the same for what stands beside answers.
        stream_guard: Makes of guardrails a guard of one streamed output: `feed`, `finish`, `ended_by`,
            `verdicts`.
        metrics: Counts what fired.
        is_quick: Whether they may be asked within the event loop.
    """

    def __init__(
        self, chain: Any, *, stream_guard: Callable[[Any], Any], metrics: Metrics, is_quick: bool = False
    ) -> None:
        self._chain, self._make_guard = chain, stream_guard
        self._metrics, self._is_quick = metrics, is_quick

    def look_at(self, where: str) -> bool:
        """Whether any of them looks at inputs, or at outputs."""
        return any(where in one.settings.where for one in self._chain.guardrails)

    async def check(
        self,
        text: str,
        where: Literal["input", "output"],
        call: Call,
        *,
        is_aside: bool = False,
        is_long: bool = False,
    ) -> Any:
        """The outcome of one text, noted in the call.

        Args:
            text: As it stands.
            where: What it is.
            call: Whose it is.
            is_aside: Whether it stands beside the answer: guardrails that judge answers alone pass over it.
            is_long: Whether it is one of many, which would hold up the event loop together.
        """
        chain = self._chain.aside if is_aside else self._chain
        if self._is_quick and not is_long and len(text) <= LONG_TEXT:
            outcome = chain.check(text, where=where)
        else:
            outcome = await asyncio.to_thread(chain.check, text, where=where)
        self._note(outcome.verdicts, call)
        if where == "output":
            self._note_output(chain, outcome.verdicts, call)
        return outcome

    def stream_guard(self, *, is_aside: bool = False) -> Any:
        """A guard of one streamed text."""
        chain = self._chain.aside if is_aside else self._chain
        return self._make_guard(chain.guardrails)

    async def step(self, step: Callable[..., str], *text: str) -> str:
        """One step of such a guard."""
        return step(*text) if self._is_quick else await asyncio.to_thread(step, *text)

    def note_stream(self, guard: Any, call: Call, *, is_aside: bool = False) -> None:
        """Note what a guard of a stream has said, once it has ended."""
        self._note(guard.verdicts, call)
        self._note_output(self._chain.aside if is_aside else self._chain, guard.verdicts, call)

    def _note(self, verdicts: Any, call: Call) -> None:
        for verdict in verdicts:
            did = "failed_open" if verdict.action == "pass" else verdict.action
            self._metrics.guardrail(verdict.guardrail, did)
            if verdict.action != "pass":
                call.notes[verdict.guardrail] = verdict.action

    def _note_output(self, chain: Any, verdicts: Any, call: Call) -> None:
        """Which guardrails looked at an output, and what they did: among how many answers a find is one."""
        did: dict[str, str] = {}
        for verdict in verdicts:
            if verdict.action != "pass" or verdict.guardrail not in did:
                did[verdict.guardrail] = verdict.action
        for one in chain.guardrails:
            if "output" not in one.settings.where:
                continue
            action = did.get(one.name, "pass")
            has_failed = action == "pass" and one.name in did
            if not has_failed and call.output_notes.get(one.name, "pass") == "pass":
                call.output_notes[one.name] = action
            if action == "block":  # those behind it were not asked
                return
