"""Every text of a request and of a reply that a guardrail must see, and how each is put back changed."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import msgspec

from jettison.serve.calls import Call, Reply

_NO_TEXT = frozenset({"role", "type", "id", "name", "index", "object", "tool_call_id", "detail", "format"})
"""Keys of a message whose values are names and kinds."""
_MEDIA = frozenset({"data", "file_data", "b64_json", "input_audio", "image_url", "file"})
"""Keys of pictures, sounds and files, which no guardrail reads."""


class Place:
    """Where one text stands, within a body that may be changed."""

    def __init__(self, holder: Any, key: Any, *, is_aside: bool = False) -> None:
        self._holder, self._key = holder, key
        self.is_aside = is_aside
        """Whether it stands beside what is asked or answered: reasoning, a refusal, a call of a tool."""

    @property
    def text(self) -> str:
        """As it stands there now."""
        return str(self._holder[self._key])

    @property
    def is_arguments(self) -> bool:
        """Whether a program reads it as JSON."""
        return bool(self._key == "arguments")

    def put(self, text: str) -> None:
        """Put another in its place."""
        self._holder[self._key] = text


class _Parts(Place):
    """All parts of a message's content that are text, read as one, for what stands across them."""

    @property
    def text(self) -> str:
        return "".join(text for part in self._holder[self._key] if (text := _part_text(part)) is not None)

    def put(self, text: str) -> None:
        """Put it in place of the first; other parts stay where they are."""
        content, parts, is_put = self._holder[self._key], [], False
        for part in content:
            if _part_text(part) is None:
                parts.append(part)
            elif not is_put:
                parts.append({**part, "text": text} if isinstance(part, dict) else text)
                is_put = True
        self._holder[self._key] = parts


def texts_of(call: Call) -> list[Place]:
    """Places of every text of a request that a model would read: to be looked at, not to be changed."""
    return list(_places_of_call(call, call.body))


def has_token_ids(call: Call) -> bool:
    """Whether it holds a text as token ids, which no guardrail reads."""
    if call.operation not in ("completion", "embedding"):
        return False
    given = call.body.get("prompt" if call.operation == "completion" else "input")
    return isinstance(given, list) and any(not isinstance(one, str) for one in given)


def with_texts(call: Call, changed: dict[int, str]) -> Call:
    """The call with some of the texts of `texts_of` replaced, for lean models and upstreams alike."""
    body = msgspec.json.decode(msgspec.json.encode(call.body))  # a copy, however deep
    inner = call.text
    held = {"text": inner}
    for i, place in enumerate(list(_places_of_call(call, body, held))):
        if i not in changed:
            continue
        old, new = place.text, changed[i]
        place.put(new)
        if inner is not None and not place.is_aside:
            # The task's text is a part of the message that was checked.
            inner = new if inner == old else _same_part(inner, old, new)
    if call.operation == "decision" and inner is not None and inner != call.text:
        # Whatever else its input held, an upstream sees no more of it than the guardrails let through.
        name = "state" if call.path == "/systemone" else "input"
        given = body.get(name)
        body[name] = given.replace(call.text or "", inner) if isinstance(given, str) else inner
    return dataclasses.replace(call, body=body, text=inner)


def _places_of_call(call: Call, body: Any, held: dict[str, Any] | None = None) -> Iterator[Place]:
    if call.operation == "chat":
        for message in body["messages"]:
            yield from _of_message(message)
        for name in ("tools", "functions", "response_format"):
            yield from _described(body.get(name))
        if isinstance(body.get("prediction"), dict):
            yield from _of_content(body["prediction"])
    elif call.operation in ("completion", "embedding"):
        name = "prompt" if call.operation == "completion" else "input"
        yield from _listed(body, name)
        if call.operation == "completion" and isinstance(body.get("suffix"), str):
            yield Place(body, "suffix")
    else:
        if call.text:
            yield Place(held or {"text": call.text}, "text")
        if call.operation == "decision":
            questions = body.get("questions")
            listed = questions.values() if isinstance(questions, dict) else questions or ()
            for question in listed:
                if isinstance(question, dict) and "instructions" in question:
                    yield from aside_places(question, only="instructions")


def _listed(body: Any, name: str) -> Iterator[Place]:
    given = body.get(name)
    if isinstance(given, str):
        yield Place(body, name)
    elif isinstance(given, list):
        for i, one in enumerate(given):
            if isinstance(one, str):
                yield Place(given, i)


def _of_message(message: dict[str, Any]) -> Iterator[Place]:
    yield from _of_content(message)
    for key in message:
        if key != "content" and key not in _NO_TEXT:
            yield from aside_places(message, only=key)


def _of_content(message: dict[str, Any]) -> Iterator[Place]:
    content = message.get("content")
    if isinstance(content, str):
        if content:
            yield Place(message, "content")
    elif isinstance(content, list):
        if any(_part_text(part) for part in content):
            yield _Parts(message, "content")
        for part in content:
            if _part_text(part) is None:
                yield from aside_places(part)


def aside_places(value: Any, *, only: Any = None) -> Iterator[Place]:
    """Every text within a value, but names, kinds and media; `only` looks at what is under one key."""
    waiting = [value]
    while waiting:  # no recursion: an upstream may nest as deeply as it likes
        holder = waiting.pop()
        nested = []
        for key in _keys(holder) if only is None else [only]:
            inner = holder[key]
            if isinstance(inner, dict | list):
                nested.append(inner)
            elif isinstance(inner, str) and inner and not inner.startswith("data:"):
                yield Place(holder, key, is_aside=True)
        waiting += reversed(nested)
        only = None


def _keys(holder: Any) -> list[Any]:
    if isinstance(holder, dict):
        return [key for key in holder if key not in _NO_TEXT and key not in _MEDIA]
    return list(range(len(holder))) if isinstance(holder, list) else []


def _described(value: Any) -> Iterator[Place]:
    """Every description within a value: what models read of tools and of forms."""
    waiting = [value]
    while waiting:
        holder = waiting.pop()
        if isinstance(holder, dict) and isinstance(holder.get("description"), str):
            yield Place(holder, "description", is_aside=True)
        if isinstance(holder, dict | list):
            waiting += reversed(list(holder.values() if isinstance(holder, dict) else holder))


def _part_text(part: Any) -> str | None:
    text = part.get("text") if isinstance(part, dict) else part
    return text if isinstance(text, str) else None


def _same_part(text: str, old: str, new: str) -> str:
    """What a part of a text became when the whole was redacted; the whole, where that cannot be told."""
    start = old.find(text)
    if start < 0:
        return text
    prefix, suffix = old[:start], old[start + len(text) :]
    if new.startswith(prefix) and new.endswith(suffix) and len(new) >= len(prefix) + len(suffix):
        return new[len(prefix) : len(new) - len(suffix)]
    return new


def texts_of_reply(reply: Reply) -> list[Place]:
    """Places of all texts of a whole reply, in a copy: to be looked at; at least one."""
    if reply.body is None:
        return [Place({"text": reply.output or ""}, "text")]
    found = list(_places_of_choices(msgspec.json.decode(reply.body)))
    return found or [Place({"text": ""}, "text")]


def rewrite(reply: Reply, texts: list[str]) -> None:
    """Put other texts in the places that `texts_of_reply` gave."""
    if reply.body is None:
        reply.output = texts[0]
        if reply.answer is not None:
            reply.answer.text = texts[0]
        return
    body = msgspec.json.decode(reply.body)
    before: str | None = reply.output
    for place, text in zip(list(_places_of_choices(body)), texts, strict=True):
        if place.text == before and not place.is_aside:
            reply.output, before = text, None
        place.put(text)
    for choice in body["choices"]:
        choice["logprobs"] = None
    reply.body = msgspec.json.encode(body)


def _places_of_choices(body: Any) -> Iterator[Place]:
    for choice in body["choices"]:
        if isinstance(choice.get("text"), str):
            yield Place(choice, "text")
        if isinstance(choice.get("message"), dict):
            yield from _of_message(choice["message"])


def breaks_arguments(place: Place, text: str) -> bool:
    """Whether a changed text would no longer be the JSON that a program expects there."""
    return place.is_arguments and _is_json(place.text) and not _is_json(text)


def _is_json(text: str) -> bool:
    try:
        msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return False
    return True
