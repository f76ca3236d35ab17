"""Guardrails before and after an inner route, on whole replies and on streams."""

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Callable
from typing import Any, Literal

import msgspec

from jettison.serve.api_error import ApiError
from jettison.serve.calls import Call, Reply
from jettison.serve.metrics import Metrics
from jettison.serve.reading import text_of
from jettison.serve.reply_body import replace_text
from jettison.serve.routing import Node
from jettison.serve.sse import DONE, data_of, read_chunk, text_in

QUICK = frozenset({"pii", "secrets", "length", "json_schema"})
"""Guardrails of ours that look at a text in well under a millisecond: asked without a thread."""
LONG_TEXT = 20_000


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

    async def answer(self, call: Call) -> Reply:
        """The inner route's answer, unless a guardrail is against it.

        Raises:
            ApiError: The input or the output was blocked.
        """
        reply = await self._inner.answer(await self._checked_input(call))
        if reply.frames is not None:
            reply.frames = self._guarded(reply.frames, reply, call)
            return reply
        text = reply.output
        if text is None or reply.is_label:
            return reply
        outcome = await self._check(text, "output", call)
        if outcome.action == "escalate" and not call.escalate:
            again = await self._inner.answer(dataclasses.replace(call, escalate=True))
            outcome = await self._check(again.output or "", "output", call)
            reply = again
        if outcome.action in ("block", "escalate"):
            raise _of_reply(_blocked("output", outcome), reply)
        if outcome.text != reply.output:
            _rewrite(reply, outcome.text)
        return reply

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
        """The stream with its text put through the guardrails; what is held back comes later.

        Text of a second choice or a call of a tool cannot be held back in step: it ends the stream.
        """
        guard = self._stream_guard()
        last: dict[str, Any] | None = None
        async for frame in frames:
            data = data_of(frame)
            chunk = None if data == DONE else read_chunk(data)
            if chunk is None or chunk.error is not None:
                if chunk is None and last is not None:
                    rest = await self._asked(guard.finish)
                    if guard.ended_by is None and rest:
                        yield _with_text(last, rest)
                    self._note_stream(guard, call)
                    if guard.ended_by is not None:
                        reply.error = "blocked_output"
                        yield _blocked_stream(guard).frame
                        return
                yield frame
                continue
            if any(choice.index != 0 for choice in chunk.choices) or _calls_tools(chunk):
                reply.error = "blocked_output"
                yield ApiError(
                    400,
                    "unguardable",
                    "a guarded stream has one choice and no calls of tools.",
                    should_retry=False,
                ).frame
                return
            text = text_in(chunk)
            body = msgspec.json.decode(data)
            finishes = any(choice.finish_reason is not None for choice in chunk.choices)
            if text or finishes:
                passed = await self._asked(guard.feed, text) if text else ""
                if finishes and guard.ended_by is None:
                    passed += await self._asked(guard.finish)
                    last = None
                if guard.ended_by is not None:
                    self._note_stream(guard, call)
                    reply.error = "blocked_output"
                    yield _blocked_stream(guard).frame
                    return
                if finishes:
                    self._note_stream(guard, call)
                else:
                    last = body
                if passed or finishes:
                    yield _with_text(body, passed)
            else:
                yield frame

    def _note_stream(self, guard: Any, call: Call) -> None:
        self._note(guard.verdicts, call)
        self._note_output(guard.verdicts, call)

    async def _asked(self, step: Callable[..., str], *text: str) -> str:
        return step(*text) if self._is_quick else await asyncio.to_thread(step, *text)


def texts_of(call: Call) -> list[str]:
    """Every text of a request that a model would read: messages of all roles, prompts, the task's text."""
    messages = call.body.get("messages")
    if call.operation == "chat" and isinstance(messages, list):
        return [text for one in messages if (text := text_of(one.get("content")))]
    prompt = call.body.get("prompt")
    if call.operation == "completion" and isinstance(prompt, str):
        return [prompt]
    if call.operation == "completion" and isinstance(prompt, list):
        return [one for one in prompt if isinstance(one, str)]
    return [call.text] if call.text else []


def with_texts(call: Call, texts: list[str], changed: dict[int, str]) -> Call:
    """The call with some of its texts replaced, in its body and for lean models alike."""
    by_old = {texts[i]: new for i, new in changed.items()}
    body = dict(call.body)
    if call.operation == "chat":
        body["messages"] = [
            {**one, "content": by_old[text]} if (text := text_of(one.get("content"))) in by_old else one
            for one in body["messages"]
        ]
    elif call.operation == "completion" and isinstance(body.get("prompt"), str):
        body["prompt"] = by_old.get(body["prompt"], body["prompt"])
    elif call.operation == "completion":
        body["prompt"] = [by_old.get(one, one) if isinstance(one, str) else one for one in body["prompt"]]
    elif isinstance(body.get("input"), str):
        body["input"] = by_old.get(body["input"], body["input"])
    text = call.text
    if text is not None:
        for old, new in by_old.items():
            # The task's text is a part of the message that was checked.
            text = new if text == old else _same_part(text, old, new)
    return dataclasses.replace(call, body=body, text=text)


def _same_part(text: str, old: str, new: str) -> str:
    """What a part of a text became when the whole was redacted; the whole, where that cannot be told."""
    start = old.find(text)
    if start < 0:
        return text
    prefix, suffix = old[:start], old[start + len(text) :]
    if new.startswith(prefix) and new.endswith(suffix) and len(new) >= len(prefix) + len(suffix):
        return new[len(prefix) : len(new) - len(suffix)]
    return new


def _rewrite(reply: Reply, text: str) -> None:
    reply.output = text
    if reply.answer is not None:
        reply.answer.text = text
    elif reply.body is not None:
        reply.body = replace_text(reply.body, text)


def _with_text(body: dict[str, Any], text: str) -> bytes:
    for choice in body["choices"]:
        if isinstance(choice.get("delta"), dict):
            choice["delta"]["content"] = text
        else:
            choice["text"] = text
        choice["logprobs"] = None
    return b"data: " + msgspec.json.encode(body) + b"\n\n"


def _calls_tools(chunk: Any) -> bool:
    return any(choice.delta is not None and choice.delta.tool_calls for choice in chunk.choices)


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
