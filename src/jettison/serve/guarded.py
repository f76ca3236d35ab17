"""Guardrails before and after an inner route, on whole replies and on streams."""

import asyncio
import dataclasses
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import Any, Literal

import msgspec

from jettison.serve.api_error import ApiError
from jettison.serve.calls import Call, Reply
from jettison.serve.guarded_texts import rewrite, texts_of, texts_of_reply, with_texts
from jettison.serve.metrics import Metrics
from jettison.serve.routing import Node
from jettison.serve.sse import DONE, data_of, read_chunk, text_in

QUICK = frozenset({"pii", "secrets", "length", "json_schema"})
"""Guardrails of ours that look at a text in well under a millisecond: asked without a thread."""
LONG_TEXT = 20_000
MOST_TEXT = 256 * 1024
"""Characters of a streamed answer that are kept for its record."""
NOT_GUARDED = ("reasoning_content", "reasoning")
"""Fields of a chunk that are left out of a guarded stream."""


class GuardedNode:
    """Looks at what goes in and at what comes out.

    Args:
        inner: Who answers.
        chain: `check(text, where=...)` → an outcome with `action`, `text` and `verdicts`.
        stream_guard: Makes a guard of one streamed output: `feed`, `finish`, `ended_by`, `verdicts`.
        metrics: Counts what fired.
        is_quick: Whether the chain may be asked within the event loop.
    """

    def __init__(
        self,
        inner: Node,
        *,
        chain: Any,
        stream_guard: Callable[[], Any],
        metrics: Metrics,
        is_quick: bool = False,
    ) -> None:
        self._inner, self._chain, self._stream_guard = inner, chain, stream_guard
        self._metrics, self._is_quick = metrics, is_quick
        self._looks_at_outputs = any("output" in one.settings.where for one in chain.guardrails)

    async def answer(self, call: Call) -> Reply:
        """The inner route's answer, unless a guardrail is against it.

        Raises:
            ApiError: The input or the output was blocked.
        """
        asked = await self._checked_input(call)
        reply = await self._inner.answer(asked)
        outcome = await self._checked_output(reply, call)
        if outcome is not None and outcome.action == "escalate" and not asked.escalate:
            # The fallback too sees no more of the input than the guardrails let through.
            reply = await self._inner.answer(dataclasses.replace(asked, escalate=True))
            outcome = await self._checked_output(reply, call)
        if outcome is not None and outcome.action in ("block", "escalate"):
            raise _of_reply(_blocked("output", outcome), reply)
        return reply

    async def _checked_output(self, reply: Reply, call: Call) -> Any:
        """The severest outcome of a whole reply's texts, or None; a redacted one is in the reply already.

        A stream gets its guard, and comes to nothing yet.
        """
        if not self._looks_at_outputs:
            return None
        if reply.frames is not None:
            reply.frames = self._guarded(reply.frames, reply, call)
            return None
        if reply.output is None or reply.is_label:
            return None
        texts = texts_of_reply(reply)
        outcomes = []
        for text in texts:
            outcomes.append(await self._check(text, "output", call))
            if outcomes[-1].action in ("block", "escalate"):
                return outcomes[-1]
        passed = [outcome.text for outcome in outcomes]
        if passed != texts:
            rewrite(reply, passed)
        return outcomes[-1]

    async def _checked_input(self, call: Call) -> Call:
        """The call as the inner route may see it."""
        texts = texts_of(call)
        if not texts:
            return call
        changed: dict[int, str] = {}
        for i, text in enumerate(texts):
            outcome = await self._check(text, "input", call)
            if outcome.action == "block":
                raise _blocked("input", outcome)
            if outcome.action == "escalate":
                call.escalate = True
            if outcome.text != text:
                changed[i] = outcome.text
        if not changed:
            return call
        return with_texts(call, texts, changed)

    async def _check(self, text: str, where: Literal["input", "output"], call: Call) -> Any:
        if self._is_quick and len(text) <= LONG_TEXT:
            outcome = self._chain.check(text, where=where)
        else:
            outcome = await asyncio.to_thread(self._chain.check, text, where=where)
        self._note(outcome.verdicts, call)
        if where == "output":
            self._note_output(outcome.verdicts, call)
        return outcome

    def _note(self, verdicts: Any, call: Call) -> None:
        for verdict in verdicts:
            did = "failed_open" if verdict.action == "pass" else verdict.action
            self._metrics.guardrail(verdict.guardrail, did)
            if verdict.action != "pass":
                call.notes[verdict.guardrail] = verdict.action

    def _note_output(self, verdicts: Any, call: Call) -> None:
        """Which guardrails looked at an output, and what they did: among how many answers a find is one."""
        did: dict[str, str] = {}
        for verdict in verdicts:
            if verdict.action != "pass" or verdict.guardrail not in did:
                did[verdict.guardrail] = verdict.action
        for one in self._chain.guardrails:
            if "output" not in one.settings.where:
                continue
            action = did.get(one.name, "pass")
            has_failed = action == "pass" and one.name in did
            if not has_failed and call.output_notes.get(one.name, "pass") == "pass":
                call.output_notes[one.name] = action
            if action == "block":  # those behind it were not asked
                return

    async def _guarded(
        self, frames: AsyncIterator[bytes], reply: Reply, call: Call
    ) -> AsyncIterator[bytes]:
        """The stream with its text put through the guardrails; the record has what went through.

        Reasoning is left out. Text of a second choice, a refusal, a call of a tool, or an event of another
        shape cannot be held back in step: it ends the stream.
        """
        sent: list[str] = []
        n_sent = 0
        passed = self._passed(frames, reply, call)
        try:
            async for frame, text in passed:
                if n_sent < MOST_TEXT:
                    sent.append(text)
                    n_sent += len(text)
                yield frame
        finally:
            await passed.aclose()
            close = getattr(frames, "aclose", None)
            if close is not None:  # at once: it writes into the reply what came, the text as it was too
                await close()
            reply.output = "".join(sent)

    async def _passed(
        self, frames: AsyncIterator[bytes], reply: Reply, call: Call
    ) -> AsyncGenerator[tuple[bytes, str], None]:
        """Frames that may go on, each with the text in it."""
        guard = self._stream_guard()
        last: dict[str, Any] | None = None
        async for frame in frames:
            data = data_of(frame)
            chunk = read_chunk(data) if data and data != DONE else None
            if data == DONE and last is not None:
                rest = await self._asked(guard.finish)
                self._note_stream(guard, call)
                if guard.ended_by is not None:
                    reply.error = "blocked_output"
                    yield _blocked_stream(guard).frame, ""
                    return
                if rest:
                    yield _with_text(last, rest), rest
                last = None
            if not data or data == DONE or (chunk is not None and chunk.error is not None):
                yield frame, ""
                continue
            if chunk is None or _is_more_than_text(chunk):
                reply.error = "blocked_output"
                yield _unguardable().frame, ""
                return
            text = text_in(chunk)
            body = msgspec.json.decode(data)
            finishes = any(choice.finish_reason is not None for choice in chunk.choices)
            if not text and not finishes:
                yield _without_reasoning(frame, body), ""
                continue
            through = await self._asked(guard.feed, text) if text else ""
            if finishes and guard.ended_by is None:
                through += await self._asked(guard.finish)
            if finishes or guard.ended_by is not None:
                self._note_stream(guard, call)
            if guard.ended_by is not None:
                reply.error = "blocked_output"
                yield _blocked_stream(guard).frame, ""
                return
            last = None if finishes else body
            if through or finishes:
                yield _with_text(body, through), through

    def _note_stream(self, guard: Any, call: Call) -> None:
        self._note(guard.verdicts, call)
        self._note_output(guard.verdicts, call)

    async def _asked(self, step: Callable[..., str], *text: str) -> str:
        return step(*text) if self._is_quick else await asyncio.to_thread(step, *text)


def _with_text(body: dict[str, Any], text: str) -> bytes:
    for choice in body["choices"]:
        if isinstance(choice.get("delta"), dict):
            _drop_reasoning(choice["delta"])
            choice["delta"]["content"] = text
        else:
            choice["text"] = text
        choice["logprobs"] = None
    return b"data: " + msgspec.json.encode(body) + b"\n\n"


def _without_reasoning(frame: bytes, body: dict[str, Any]) -> bytes:
    found = [
        _drop_reasoning(one["delta"])
        for one in body.get("choices", ())
        if isinstance(one.get("delta"), dict)
    ]
    if not any(found):
        return frame
    return b"data: " + msgspec.json.encode(body) + b"\n\n"


def _drop_reasoning(delta: dict[str, Any]) -> bool:
    found = [name for name in NOT_GUARDED if name in delta]
    for name in found:
        del delta[name]
    return bool(found)


def _is_more_than_text(chunk: Any) -> bool:
    deltas = [choice.delta for choice in chunk.choices if choice.delta is not None]
    has_other = any(delta.tool_calls or delta.refusal for delta in deltas)
    return has_other or any(choice.index != 0 for choice in chunk.choices)


def _unguardable() -> ApiError:
    message = "a guarded stream has one choice, text alone and no calls of tools."
    return ApiError(400, "unguardable", message, should_retry=False)


def _blocked(where: str, outcome: Any) -> ApiError:
    by = next((v for v in reversed(outcome.verdicts) if v.action in ("block", "escalate")), None)
    name = by.guardrail if by else "a guardrail"
    return ApiError(
        400,
        "content_filter",
        f"the {where} was blocked by guardrail {name!r}.",
        is_passable=False,
        should_retry=False,
    )


def _of_reply(error: ApiError, reply: Reply) -> ApiError:
    """The error in place of an answer, with whose it was."""
    error.arm, error.place, error.propensity = reply.arm, reply.place, reply.propensity
    return error


def _blocked_stream(guard: Any) -> ApiError:
    name = guard.ended_by.guardrail
    return ApiError(
        400, "content_filter", f"the output was blocked by guardrail {name!r}.", should_retry=False
    )
