"""Guardrails before and after an inner route, on whole replies and on streams."""

import dataclasses
from typing import Any

import msgspec

from jettison.serve.api_error import ApiError
from jettison.serve.calls import Call, Reply, took_of
from jettison.serve.guarded_stream import GuardedStream
from jettison.serve.guarded_texts import (
    breaks_arguments,
    has_token_ids,
    rewrite,
    texts_of,
    texts_of_reply,
    with_texts,
)
from jettison.serve.rails import LONG_TEXT, Rails
from jettison.serve.records import record_of
from jettison.serve.routing import Node


class GuardedNode:
    """Looks at what goes in and at what comes out.

    Args:
        inner: Who answers.
        rails: Who looks.
    """

    def __init__(self, inner: Node, rails: Rails) -> None:
        self._inner, self._rails = inner, rails
        self._looks_at_inputs, self._looks_at_outputs = rails.look_at("input"), rails.look_at("output")

    async def answer(self, call: Call) -> Reply:
        """The inner route's answer, unless a guardrail is against it.

        Raises:
            ApiError: The input or the output was blocked.
        """
        asked = await self._checked_input(call)
        reply = await self._inner.answer(asked)
        outcome = await self._checked_output(reply, call)
        if outcome is not None and outcome.action == "escalate" and not (asked.escalate or reply.escalated):
            reply.escalated = True
            lean = record_of(asked, reply, role="lean")
            call.side.append(msgspec.structs.replace(lean, output=None))  # it was caught: nobody reads it
            # The fallback too sees no more of the input than the guardrails let through.
            reply = await self._inner.answer(dataclasses.replace(asked, escalate=True))
            outcome = await self._checked_output(reply, call)
        if outcome is not None and outcome.action in ("block", "escalate"):
            raise _of_reply(_blocked("output", outcome), reply)
        return reply

    async def _checked_input(self, call: Call) -> Call:
        """The call as the inner route may see it."""
        if not self._looks_at_inputs:
            return call
        if has_token_ids(call):
            message = "guardrails read no token ids. Send text."
            raise ApiError(400, "unguardable", message, is_passable=False, should_retry=False)
        places = texts_of(call)
        is_long = sum(len(place.text) for place in places) > LONG_TEXT
        changed: dict[int, str] = {}
        for i, place in enumerate(places):
            text = place.text
            found = await self._rails.check(text, "input", call, is_aside=place.is_aside, is_long=is_long)
            if found.action == "block":
                raise _blocked("input", found)
            if found.action == "escalate":
                call.escalate = True
            if found.text != text:
                if breaks_arguments(place, found.text):
                    raise _no_arguments()
                changed[i] = found.text
        return with_texts(call, changed) if changed else call

    async def _checked_output(self, reply: Reply, call: Call) -> Any:
        """The severest outcome of a whole reply's texts, or None; a redacted one is in the reply already.

        A stream gets its guard, and comes to nothing yet.
        """
        if not self._looks_at_outputs:
            return None
        if reply.frames is not None:
            reply.frames = GuardedStream(self._rails, reply, call).through(reply.frames)
            return None
        if reply.output is None or reply.is_label:
            return None
        places = texts_of_reply(reply)
        texts = [place.text for place in places]
        is_long = sum(map(len, texts)) > LONG_TEXT
        passed = []
        for place, text in zip(places, texts, strict=True):
            found = await self._rails.check(text, "output", call, is_aside=place.is_aside, is_long=is_long)
            if found.action in ("block", "escalate"):
                return found
            if breaks_arguments(place, found.text):
                raise _of_reply(_no_arguments(), reply)
            passed.append(found.text)
        if passed != texts:
            rewrite(reply, passed)
        return None


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


def _no_arguments() -> ApiError:
    message = "what a guardrail leaves of a tool's arguments is no JSON any more."
    return ApiError(400, "content_filter", message, is_passable=False, should_retry=False)


def _of_reply(error: ApiError, reply: Reply) -> ApiError:
    """The error in place of an answer, with whose it was."""
    error.arm, error.place, error.propensity = reply.arm, reply.place, reply.propensity
    error.took = took_of(reply)
    return error
