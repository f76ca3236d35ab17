"""Every text of a request and of a reply that a guardrail must see, and how each is put back changed."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import msgspec

from jettison.serve.calls import Call, Reply

_IN_MESSAGE = ("content", "refusal", "reasoning_content", "reasoning")


def texts_of(call: Call) -> list[str]:
    """Every text of a request that a model would read: messages of all roles, prompts, the task's text."""
    messages = call.body.get("messages")
    if call.operation == "chat" and isinstance(messages, list):
        return [text for one in messages if (text := _content_text(one.get("content")))]
    if call.operation in ("completion", "embedding"):
        given = call.body.get("prompt" if call.operation == "completion" else "input")
        listed = given if isinstance(given, list) else [given]
        return [one for one in listed if isinstance(one, str)]
    return [call.text] if call.text else []


def with_texts(call: Call, texts: list[str], changed: dict[int, str]) -> Call:
    """The call with some of its texts replaced, in its body and for lean models alike."""
    by_old = {texts[i]: new for i, new in changed.items()}
    body = dict(call.body)
    if call.operation == "chat":
        body["messages"] = [
            {**one, "content": _with_content(one["content"], by_old[text])}
            if (text := _content_text(one.get("content"))) in by_old
            else one
            for one in body["messages"]
        ]
    elif call.operation in ("completion", "embedding"):
        name = "prompt" if call.operation == "completion" else "input"
        given = body.get(name)
        if isinstance(given, list):
            body[name] = [by_old.get(one, one) if isinstance(one, str) else one for one in given]
        elif isinstance(given, str):
            body[name] = by_old.get(given, given)
    inner = call.text
    if inner is not None:
        for old, new in by_old.items():
            # The task's text is a part of the message that was checked.
            inner = new if inner == old else _same_part(inner, old, new)
    if call.operation == "decision" and inner is not None:
        # Whatever else its input held, an upstream sees no more of it than the guardrails let through.
        name = "state" if call.path == "/systemone" else "input"
        given = body.get(name)
        body[name] = given.replace(call.text or "", inner) if isinstance(given, str) else inner
    return dataclasses.replace(call, body=body, text=inner)


def _content_text(content: Any) -> str:
    """Text of all parts that are text; pictures and sounds are no part of it."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return ""
    return "".join(text for part in content if (text := _part_text(part)) is not None)


def _part_text(part: Any) -> str | None:
    text = part.get("text") if isinstance(part, dict) else part
    return text if isinstance(text, str) else None


def _with_content(content: Any, text: str) -> Any:
    """The content with one text in place of all of its texts; other parts stay where they are."""
    if isinstance(content, str) or all(_part_text(part) is not None for part in content):
        return text
    parts, is_put = [], False
    for part in content:
        if _part_text(part) is None:
            parts.append(part)
        elif not is_put:
            parts.append({**part, "text": text} if isinstance(part, dict) else text)
            is_put = True
    return parts


def _same_part(text: str, old: str, new: str) -> str:
    """What a part of a text became when the whole was redacted; the whole, where that cannot be told."""
    start = old.find(text)
    if start < 0:
        return text
    prefix, suffix = old[:start], old[start + len(text) :]
    if new.startswith(prefix) and new.endswith(suffix) and len(new) >= len(prefix) + len(suffix):
        return new[len(prefix) : len(new) - len(suffix)]
    return new


def texts_of_reply(reply: Reply) -> list[str]:
    """Every text of a whole reply: of each choice, and what is asked of tools; at least one."""
    if reply.body is None:
        return [reply.output or ""]
    found = [str(holder[key]) for holder, key in _places(msgspec.json.decode(reply.body))]
    return found or [""]


def rewrite(reply: Reply, texts: list[str]) -> None:
    """Put other texts in the places of those that `texts_of_reply` gave."""
    if reply.body is None:
        reply.output = texts[0]
        if reply.answer is not None:
            reply.answer.text = texts[0]
        return
    body = msgspec.json.decode(reply.body)
    before: str | None = reply.output
    for (holder, key), text in zip(_places(body), texts, strict=True):
        if holder[key] == before:
            reply.output, before = text, None
        holder[key] = text
    for choice in body["choices"]:
        choice["logprobs"] = None
    reply.body = msgspec.json.encode(body)


def _places(body: Any) -> Iterator[tuple[Any, Any]]:
    """Where texts stand in the choices of an answer, as holder and key, in order."""
    for choice in body["choices"]:
        if isinstance(choice.get("text"), str):
            yield choice, "text"
        message = choice.get("message")
        if not isinstance(message, dict):
            continue
        for name in _IN_MESSAGE:
            if isinstance(message.get(name), str):
                yield message, name
        parts = message.get("content")
        for part in parts if isinstance(parts, list) else ():
            if isinstance(part, dict) and isinstance(part.get("text"), str):
                yield part, "text"
        yield from _asked_of_tools(message)


def _asked_of_tools(message: dict[str, Any]) -> Iterator[tuple[Any, Any]]:
    calls = message.get("tool_calls")
    listed = calls if isinstance(calls, list) else []
    asked = [one.get("function") for one in listed if isinstance(one, dict)]
    for function in (*asked, message.get("function_call")):
        if isinstance(function, dict) and isinstance(function.get("arguments"), str):
            yield function, "arguments"
