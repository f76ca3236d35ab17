"""An upstream as an arm: chats go as they came; a bare text is asked with the task's prompt."""

import dataclasses
from typing import Any

import msgspec

from jettison.errors import InvalidInput
from jettison.serve.api_error import ApiError, cannot_answer
from jettison.serve.calls import Answer, Call, Reply
from jettison.serve.decisions import is_answerable
from jettison.serve.upstream import Upstream
from jettison.task.prompt import Prompt


class UpstreamArm:
    """One upstream.

    Args:
        upstream: Who is asked.
        labels: Of the task, for answers that must be one of them.
        prompt: How a bare text is asked; None where nobody has said.

    Raises:
        InvalidInput: The prompt does not fit.
    """

    def __init__(self, upstream: Upstream, labels: tuple[str, ...], prompt: Any) -> None:
        self._upstream, self._labels = upstream, labels
        try:
            self._prompt = None if prompt is None else msgspec.convert(prompt, Prompt)
        except msgspec.ValidationError as error:
            raise InvalidInput(f"upstream {upstream.name!r}: prompt: {error}.") from error

    async def answer(self, call: Call) -> Reply:
        """The upstream's answer.

        Raises:
            ApiError: There is none.
        """
        is_asked = call.operation == "decision" and self._upstream.config.decisions == "prompt"
        if not (is_asked or call.operation == "infer"):
            reply = await self._upstream.answer(call)
            reply.is_label = reply.output in self._labels
            reply.model = reply.model or str(call.body.get("model") or self._upstream.name)
            return reply
        return await self._asked(call)

    async def _asked(self, call: Call) -> Reply:
        """A bare text through the prompt, and the label that the answer names."""
        if self._prompt is None or not self._labels or call.text is None:
            or_pass = ', or `decisions = "pass"`' if call.operation == "decision" else ""
            raise cannot_answer(
                f"upstream {self._upstream.name!r} has no prompt to ask a bare text with; "
                f"set `prompt`{or_pass}."
            )
        prompt = self._prompt
        messages = prompt.messages(call.text, (), self._labels)
        body = {
            "model": self._upstream.config.model or call.body.get("model") or "",
            "messages": [{"role": one.role, "content": one.content} for one in messages],
            "max_tokens": prompt.max_tokens,
            "temperature": 0,
        }
        asked = dataclasses.replace(
            call, operation="chat", path="/chat/completions", body=body, stream=False
        )
        reply = await self._upstream.answer(asked)
        label = self._label_in(reply.output or "")
        if label is None:
            raise ApiError(
                502, "bad_upstream_reply", "the upstream's answer names no label.", should_retry=False
            )
        reply.answer = Answer(
            text=label,
            labels=self._labels,
            confidence=reply.confidence,
            prompt_tokens=reply.prompt_tokens,
            completion_tokens=reply.completion_tokens,
        )
        reply.body, reply.output, reply.is_label = None, label, True
        reply.is_partial = not all(is_answerable(one, self._labels) for one in call.questions)
        return reply

    def _label_in(self, text: str) -> str | None:
        assert self._prompt is not None
        plain = text.casefold().strip().strip("\"'`*.:;!()[] ")
        by_word = {self._prompt.word(label).casefold().strip(): label for label in self._labels}
        if plain in by_word:
            return by_word[plain]
        named = [word for word in by_word if word and word in plain]
        # A longer label that holds a shorter one names only itself.
        named = [w for w in named if not any(w != other and w in other for other in named)]
        return by_word[named[0]] if len(named) == 1 else None
