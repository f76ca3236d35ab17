"""A streamed reply on its way through the guardrails: every choice, its refusal, what it asks of tools."""

from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

import msgspec

from jettison.serve.api_error import ApiError
from jettison.serve.calls import Call, Reply
from jettison.serve.guarded_texts import aside_places, breaks_arguments
from jettison.serve.rails import Rails
from jettison.serve.shapes import DONE as DONE_FRAME
from jettison.serve.sse import DONE, data_of, read_chunk

MOST_TEXT = 256 * 1024
"""Characters of an answer that are kept for its record, and of calls of tools that are held back."""
MOST_CHOICES, MOST_DEPTH = 128, 8
_HEAD = ("id", "object", "created", "model", "system_fingerprint", "service_tier")
"""Fields of an event that go on; others, in which any text could stand, do not."""
_TEXTS = ("content", "refusal")
_GROWING = ("arguments", "input")
"""Fields of a call of a tool that come in pieces."""


class GuardedStream:
    """One stream. Text goes on as far as guardrails let it; calls of tools are held until they are whole.

    Reasoning, log-probabilities and fields that are not known here are left out. What cannot be read ends
    the stream.

    Args:
        rails: Who looks.
        reply: Gets the text that went through, and how the stream ended.
        call: Gets the notes.
    """

    def __init__(self, rails: Rails, reply: Reply, call: Call) -> None:
        self._rails, self._reply, self._call = rails, reply, call
        self._choices: dict[int, _Choice] = {}
        self._head: dict[str, Any] = {}

    async def through(self, frames: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """Frames that may go on; the record has what went through."""
        passed = self._passed(frames)
        try:
            async for frame in passed:
                yield frame
        finally:
            await passed.aclose()
            close = getattr(frames, "aclose", None)
            if close is not None:  # at once: it writes into the reply what came, the text as it was too
                await close()
            first = self._choices.get(0)
            self._reply.output = "" if first is None else "".join(first.sent)

    async def _passed(self, frames: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
        try:
            async for frame in frames:
                data = data_of(frame)
                if data == DONE:
                    for one in await self._rest():
                        yield one
                    yield DONE_FRAME
                elif data:  # an event without data says nothing to a client
                    for one in await self._event(data):
                        yield one
        except _Ended as ended:
            self._reply.error = "blocked_output"
            yield ended.error.frame

    async def _event(self, data: bytes) -> list[bytes]:
        """What goes on of one event.

        Raises:
            _Ended: Nothing does any more.
        """
        chunk = read_chunk(data)
        if chunk is None:
            raise _Ended(_unguardable("event of another shape"))
        body = msgspec.json.decode(data)
        if chunk.error is not None:
            told = {"error": body["error"]}
            await self._look_at(told)
            return [b"data: " + msgspec.json.encode(told) + b"\n\n"]
        self._head = {name: body[name] for name in _HEAD if name in body}
        found: list[list[dict[str, Any]]] = []
        for given in body.get("choices") or ():
            found += [[one] for one in await self._choice(given)]
        used = {"usage": counts} if (counts := _counts(body.get("usage"))) else {}
        if not found and used:
            found = [[]]
        last = len(found) - 1
        return [self._frame(one, **(used if i == last else {})) for i, one in enumerate(found)]

    async def _rest(self) -> list[bytes]:
        """What was held back of choices that never said that they had finished."""
        found = []
        for choice in self._choices.values():
            if not choice.is_finished:
                found += [self._frame([one]) for one in await self._finished(choice, None)]
        return found

    async def _choice(self, given: dict[str, Any]) -> list[dict[str, Any]]:
        """What goes on of one choice of an event."""
        index = given.get("index", 0)
        choice = self._choices.get(index)
        if choice is None:
            if len(self._choices) == MOST_CHOICES:
                raise _Ended(_unguardable(f"more choices than {MOST_CHOICES}"))
            choice = self._choices[index] = _Choice(index, is_chat="delta" in given)
        delta = given.get("delta") if choice.is_chat else {"content": given.get("text")}
        delta = delta if isinstance(delta, dict) else {}
        through = {"role": delta["role"]} if isinstance(delta.get("role"), str) else {}
        for name in _TEXTS:
            if isinstance(delta.get(name), str):
                text = await self._fed(choice, name, delta[name])
                if text or not delta[name]:
                    through[name] = text
        choice.hold(delta)
        found = [choice.told(through)] if through else []
        if given.get("finish_reason") is not None:
            found += await self._finished(choice, given["finish_reason"])
        return found

    async def _fed(self, choice: "_Choice", name: str, text: str) -> str:
        """What may go on of a text's next piece."""
        if not text:
            return ""
        guard = choice.guards.get(name)
        if guard is None:
            guard = choice.guards[name] = self._rails.stream_guard(is_aside=name != "content")
        through = await self._rails.step(guard.feed, text)
        self._check_ended(guard, name)
        choice.keep(name, through)
        return through

    async def _finished(self, choice: "_Choice", reason: str | None) -> list[dict[str, Any]]:
        """The rest of a choice: its texts, its calls of tools once looked at, and that it has finished."""
        choice.is_finished = True
        asked = choice.held()
        if not asked and not choice.guards:  # an answer of no words is one too
            choice.guards["content"] = self._rails.stream_guard()
        rest: dict[str, Any] = {}
        for name, guard in choice.guards.items():
            text = await self._rails.step(guard.finish)
            self._check_ended(guard, name)
            self._rails.note_stream(guard, self._call, is_aside=name != "content")
            choice.keep(name, text)
            if text:
                rest[name] = text
        await self._look_at(asked)
        rest |= asked
        found = [choice.told(rest)] if rest else []
        return found if reason is None else [*found, choice.told({}, finish=reason)]

    def _check_ended(self, guard: Any, name: str) -> None:
        if guard.ended_by is not None:
            self._rails.note_stream(guard, self._call, is_aside=name != "content")
            raise _Ended(_blocked(guard.ended_by.guardrail))

    async def _look_at(self, told: dict[str, Any]) -> None:
        """Look at every text of what is told beside an answer; what is redacted is so afterwards.

        Raises:
            _Ended: A guardrail is against it.
        """
        for place in list(aside_places(told)):
            found = await self._rails.check(place.text, "output", self._call, is_aside=True)
            if found.action in ("block", "escalate") or breaks_arguments(place, found.text):
                raise _Ended(_blocked(found.verdicts[-1].guardrail))
            place.put(found.text)

    def _frame(self, choices: list[dict[str, Any]], **more: Any) -> bytes:
        return b"data: " + msgspec.json.encode({**self._head, "choices": choices, **more}) + b"\n\n"


class _Choice:
    """One choice of a stream: its guards, what it asks of tools so far, what went through."""

    def __init__(self, index: int, *, is_chat: bool) -> None:
        self._index, self.is_chat = index, is_chat
        self.guards: dict[str, Any] = {}
        """Of each of its texts, from the first piece on."""
        self.is_finished = False
        self.sent: list[str] = []
        self._n_sent = self._n_held = 0
        self._calls: dict[int, dict[str, Any]] = {}
        self._function: dict[str, Any] = {}

    def keep(self, name: str, text: str) -> None:
        """Keep for the record what went through of the answer."""
        if name == "content" and self._n_sent < MOST_TEXT:
            self.sent.append(text)
            self._n_sent += len(text)

    def hold(self, delta: dict[str, Any]) -> None:
        """Join a piece of calls of tools to what came before.

        Raises:
            _Ended: They are beyond all bounds.
        """
        calls = delta.get("tool_calls")
        for i, piece in enumerate(calls if isinstance(calls, list) else ()):
            if isinstance(piece, dict):
                number = piece.get("index")
                at = number if isinstance(number, int) else i
                self._n_held += _join(self._calls.setdefault(at, {}), piece)
        if isinstance(delta.get("function_call"), dict):
            self._n_held += _join(self._function, delta["function_call"])
        if self._n_held > MOST_TEXT:
            raise _Ended(_unguardable(f"calls of tools over {MOST_TEXT} characters"))

    def held(self) -> dict[str, Any]:
        """All that was held back, given out once."""
        found: dict[str, Any] = {}
        if self._calls:
            found["tool_calls"] = [{"index": i, **one} for i, one in self._calls.items()]
        if self._function:
            found["function_call"] = self._function
        self._calls, self._function = {}, {}
        return found

    def told(self, delta: dict[str, Any], *, finish: str | None = None) -> dict[str, Any]:
        """As a choice of an event."""
        said = {"delta": delta} if self.is_chat else {"text": delta.get("content", "")}
        return {"index": self._index, **said, "logprobs": None, "finish_reason": finish}


def _join(held: dict[str, Any], piece: dict[str, Any], *, depth: int = 0) -> int:
    """Add a piece to a call of a tool; how many characters it has."""
    n = 0
    for name, value in piece.items():
        before = held.get(name)
        if isinstance(value, dict) and depth < MOST_DEPTH:
            held[name] = before if isinstance(before, dict) else {}
            n += _join(held[name], value, depth=depth + 1)
        elif name in _GROWING and isinstance(value, str):
            held[name] = before + value if isinstance(before, str) else value
            n += len(value)
        elif value is not None:
            held[name] = value
            n += len(value) if isinstance(value, str) else 1
    return n


def _counts(usage: Any, *, depth: int = 0) -> dict[str, Any]:
    """Of a usage what is counts, and nothing that could be a text."""
    found: dict[str, Any] = {}
    if isinstance(usage, dict) and depth < MOST_DEPTH:
        for name, value in usage.items():
            if isinstance(value, int | float):
                found[name] = value
            elif isinstance(value, dict):
                found[name] = _counts(value, depth=depth + 1)
    return found


class _Ended(Exception):
    """A guardrail, or what none can read, ends the stream."""

    def __init__(self, error: ApiError) -> None:
        super().__init__(error.message)
        self.error = error


def _unguardable(what: str) -> ApiError:
    message = f"a guarded stream holds no {what}."
    return ApiError(400, "unguardable", message, should_retry=False)


def _blocked(name: str) -> ApiError:
    return ApiError(
        400, "content_filter", f"the output was blocked by guardrail {name!r}.", should_retry=False
    )
