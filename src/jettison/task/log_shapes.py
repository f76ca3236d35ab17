"""The shapes that a logged call comes in, each into the same request and answer."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from jettison.errors import InvalidInput
from jettison.files import decode_json
from jettison.task.log_use import Use, span_use, use_of

_REQUEST_KEYS = ("request", "request_body", "req", "body", "input", "kwargs")
_RESPONSE_KEYS = ("response", "response_body", "resp", "output", "completion", "result", "answer")
_ROLES = {"developer": "system", "human": "user", "ai": "assistant", "model": "assistant"}
_INPUT, _OUTPUT = "gen_ai.input.messages", "gen_ai.output.messages"
_SYSTEM = "gen_ai.system_instructions"


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """What a model was asked: a system message, earlier turns, and the last message of the user."""

    system: str
    turns: tuple[tuple[str, str], ...]
    """Role and text of what stands between."""
    user: str
    model: str | None = None
    max_tokens: int | None = None

    @property
    def said(self) -> list[Any]:
        """What makes two requests the same."""
        return [self.system, self.turns, self.user]


@dataclass(frozen=True, kw_only=True)
class Piece:
    """A call, or the half of one that `key` joins to the other."""

    request: Request | None = None
    answer: str | None = None
    key: str | None = None
    use: Use | None = None
    """What the answer took, where there is one."""


def pieces_of(item: Any) -> Iterator[Piece]:
    """The calls, or halves of calls, that one logged object holds.

    Raises:
        InvalidInput: It is of no known shape, failed, or is no text (the message is the reason alone).
    """
    if not isinstance(item, dict):
        raise InvalidInput(f"must be a JSON object, got {type(item).__name__}")
    spans = item.get("resourceSpans")
    if isinstance(spans, list):
        yield from _traces(spans)
        return
    if "custom_id" in item:
        yield _batch_half(item)
        return
    messages = item.get("messages")
    request = _first(item, _REQUEST_KEYS)
    response = _first(item, _RESPONSE_KEYS)
    if request is None and (messages is not None or "prompt" in item):
        request = item
    if request is None:
        raise InvalidInput(f"must hold a request, got the keys {sorted(item)[:8]}")
    if response is None and isinstance(messages, list) and messages:
        last = _message(messages[-1])
        if last[0] == "assistant":  # as in files for fine-tuning
            asked = _request({**item, "messages": messages[:-1]})
            yield Piece(request=asked, answer=last[1], use=use_of(item))
            return
    if response is None:
        raise InvalidInput("must hold a response, got none")
    yield Piece(request=_request(request), answer=_answer(response), use=_use(response, item))


def _first(item: dict[str, Any], keys: Sequence[str]) -> Any:
    return next((item[key] for key in keys if item.get(key) not in (None, "")), None)


def _batch_half(item: dict[str, Any]) -> Piece:
    """A line of a batch's input file (`body`) or of its output file (`response`)."""
    key = str(item["custom_id"])
    if isinstance(item.get("body"), dict):
        return Piece(key=key, request=_request(item["body"]))
    response = item.get("response")
    if item.get("error") or not isinstance(response, dict):
        raise InvalidInput(f"the request failed: {_reason(item.get('error'))}")
    if response.get("status_code", 200) != 200:
        raise InvalidInput(f"the request failed with status {response['status_code']}")
    # The times of a batch are those of its queue.
    body = _decoded(response.get("body", response))
    return Piece(key=key, answer=_answer(body), use=use_of(body))


def _reason(error: Any) -> str:
    """What a server says of a failure: its message, where it has one."""
    said = error.get("message") if isinstance(error, dict) else None
    return str(said or error)[:80]


def _request(value: Any) -> Request:
    value = _decoded(value)
    if isinstance(value, str):
        value = {"prompt": value}
    if isinstance(value, list):
        value = {"messages": value}
    if not isinstance(value, dict):
        raise InvalidInput(f"a request must be an object, got {type(value).__name__}")
    value = value.get("body") if isinstance(value.get("body"), dict) else value
    messages = value.get("messages", value.get("input", value.get("prompt")))
    if isinstance(messages, str):
        messages = [{"role": "user", "content": messages}]
    if not isinstance(messages, list) or not messages:
        raise InvalidInput(f"a request must have messages, got the keys {sorted(value)[:8]}")
    given = value.get("instructions")
    most = value.get("max_tokens", value.get("max_completion_tokens"))
    return _of_messages(
        [*([("system", given)] if isinstance(given, str) else []), *map(_message, messages)],
        model=value.get("model"),
        max_tokens=most if isinstance(most, int) else None,
    )


def _of_messages(said: Sequence[tuple[str, str]], *, model: Any, max_tokens: int | None) -> Request:
    system = "\n\n".join(text for role, text in said if role == "system")
    turns = [(role, text) for role, text in said if role != "system"]
    if not turns or turns[-1][0] != "user":
        raise InvalidInput("a request must end with a message of the user")
    return Request(
        system=system,
        turns=tuple(turns[:-1]),
        user=turns[-1][1],
        model=model if isinstance(model, str) else None,
        max_tokens=max_tokens,
    )


def _message(value: Any) -> tuple[str, str]:
    """Role and text; parts of text are joined, any other part is refused."""
    if not isinstance(value, dict) or not isinstance(value.get("role"), str):
        raise InvalidInput("a message must have a role")
    role = _ROLES.get(value["role"], value["role"])
    if role not in ("system", "user", "assistant"):
        raise InvalidInput(f"a message must be of system, user or assistant, got {value['role'][:40]!r}")
    content = value.get("content", value.get("parts"))
    return role, _text(content)


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise InvalidInput("a message must be text, got none")
    texts = []
    for part in content:
        kind = part.get("type", "text") if isinstance(part, dict) else "text"
        text = part.get("text", part.get("content")) if isinstance(part, dict) else part
        if kind not in ("text", "input_text", "output_text") or not isinstance(text, str):
            raise InvalidInput(f"a message must be text, got a part of type {str(kind)[:40]!r}")
        texts.append(text)
    return "".join(texts)


def _answer(value: Any) -> str:
    value = _decoded(value)
    if isinstance(value, str):
        return value
    if isinstance(value, dict) and isinstance(value.get("body"), dict):
        value = value["body"]
    if not isinstance(value, dict):
        raise InvalidInput(f"a response must be an object or text, got {type(value).__name__}")
    if value.get("error"):
        raise InvalidInput(f"the request failed: {_reason(value['error'])}")
    choices = value.get("choices")
    if isinstance(choices, list) and choices and isinstance(choices[0], dict):
        return _finished(choices[0])
    if isinstance(value.get("output"), list):  # OpenAI's responses
        return "".join(_text(one.get("content")) for one in value["output"] if one.get("type") == "message")
    inner = next(
        (value[key] for key in ("message", "output_text", "content", "text") if key in value), None
    )
    if isinstance(inner, dict):
        return _message({"role": "assistant", **inner})[1]
    if isinstance(inner, str | list):
        return _text(inner)
    raise InvalidInput(f"a response must hold an answer, got the keys {sorted(value)[:8]}")


def _use(response: Any, item: dict[str, Any]) -> Use:
    """What an answer took: its body says the tokens, and what stands around it the time."""
    response = _decoded(response)
    body = response.get("body") if isinstance(response, dict) else None
    body = _decoded(body)
    return use_of(body, response, item) if isinstance(body, dict) else use_of(response, item)


def _finished(choice: dict[str, Any]) -> str:
    """The answer of one choice; one that was cut off or filtered is none."""
    reason = choice.get("finish_reason")
    if reason in ("length", "content_filter"):
        raise InvalidInput(f"the answer was not finished ({reason})")
    message = choice.get("message")
    content = message.get("content") if isinstance(message, dict) else choice.get("text")
    if content is None:
        raise InvalidInput("the answer is no text (a call of a tool)")
    return _text(content)


def _decoded(value: Any) -> Any:
    """JSON inside a string, as gateways log bodies; other text stays as it is."""
    if isinstance(value, str) and value.lstrip()[:1] in ("{", "["):
        try:
            found = decode_json(value, Any)
        except msgspec.DecodeError:
            return value
        known = isinstance(found, dict) and {"messages", "choices", "prompt", "input", "error"} & set(found)
        is_chat = isinstance(found, list) and found and isinstance(found[0], dict) and "role" in found[0]
        return found if known or is_chat else value
    return value


def _traces(resource_spans: Sequence[Any]) -> Iterator[Piece]:
    """Spans of OTLP JSON that carry both messages, in their attributes or in those of an event."""
    for resource in resource_spans:
        for scope in resource.get("scopeSpans") or ():
            for span in scope.get("spans") or ():
                own = _attributes(span.get("attributes"))
                events = [_attributes(event.get("attributes")) for event in span.get("events") or ()]
                held = next((one for one in (own, *events) if _INPUT in one and _OUTPUT in one), None)
                if held is not None:
                    yield _span_call({**own, **held}, span)


def _span_call(held: dict[str, Any], span: dict[str, Any]) -> Piece:
    said = [_message(one) for one in _listed(held[_INPUT])]
    if _SYSTEM in held:
        said.insert(0, ("system", _text(_listed(held[_SYSTEM]))))
    answers = _listed(held[_OUTPUT])
    if not answers or not isinstance(answers[0], dict):
        raise InvalidInput("a span must have an output message, got none")
    if answers[0].get("finish_reason") in ("length", "content_filter"):
        raise InvalidInput(f"the answer was not finished ({answers[0]['finish_reason']})")
    most = held.get("gen_ai.request.max_tokens")
    request = _of_messages(
        said, model=held.get("gen_ai.request.model"), max_tokens=most if isinstance(most, int) else None
    )
    answer = _message({"role": "assistant", **answers[0]})[1]
    return Piece(request=request, answer=answer, use=span_use(held, span))


def _attributes(listed: Any) -> dict[str, Any]:
    return {
        str(one.get("key")): _value(one.get("value"))
        for one in listed or ()
        if isinstance(one, dict) and isinstance(one.get("value"), dict)
    }


def _value(value: Any) -> Any:
    """OTLP's AnyValue as plain JSON."""
    if not isinstance(value, dict):
        return value
    for key in ("stringValue", "boolValue", "doubleValue"):
        if key in value:
            return value[key]
    if "intValue" in value:  # 64-bit integers are strings in protobuf's JSON
        return int(value["intValue"])
    if "arrayValue" in value:
        return [_value(one) for one in value["arrayValue"].get("values") or ()]
    if "kvlistValue" in value:
        return _attributes(value["kvlistValue"].get("values"))
    return None


def _listed(value: Any) -> list[Any]:
    """Messages as a list, which is often the JSON text of one."""
    if isinstance(value, str):
        try:
            value = decode_json(value, Any)
        except msgspec.DecodeError as error:
            raise InvalidInput(f"messages of a span must be JSON: {error}") from error
    if not isinstance(value, list):
        raise InvalidInput(f"messages of a span must be a list, got {type(value).__name__}")
    return value
