"""What is in a request: the text of the task, the key that arms are assigned by, its bounds."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from jettison.serve.api_error import ApiError, bad_request
from jettison.serve.config import InputConfig

_ROLES = frozenset({"system", "developer", "user", "assistant", "tool", "function"})


def read_json(raw: bytes, *, depth: int) -> dict[str, Any]:
    """A JSON object, no deeper than allowed.

    Raises:
        ApiError: It is none.
    """
    try:
        body = msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise bad_request(f"the body must be JSON: {error}.", code="invalid_json") from error
    if not isinstance(body, dict):
        raise bad_request(
            f"the body must be a JSON object, got {type(body).__name__}.", code="invalid_json"
        )
    if raw.count(b"[") + raw.count(b"{") > depth and not _is_within(body, depth):
        raise bad_request(f"the body must be JSON of at most {depth} levels.", code="too_deep")
    return body


def _is_within(body: Any, depth: int) -> bool:
    """Whether a parsed value nests no deeper than that."""
    level = [body]
    for _ in range(depth):
        inner = [one for value in level for one in (value.values() if isinstance(value, dict) else value)]
        level = [one for one in inner if isinstance(one, dict | list)]
        if not level:
            return True
    return False


def check_chat(body: dict[str, Any]) -> None:
    """Check what every arm relies on.

    Raises:
        ApiError: Messages are missing or malformed, or a number is out of range.
    """
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise bad_request("messages must be a list of at least one message.", param="messages")
    for i, message in enumerate(messages):
        role = message.get("role") if isinstance(message, dict) else None
        if not isinstance(role, str) or role not in _ROLES:
            raise bad_request(f"messages[{i}] must be an object with a role.", param=f"messages[{i}]")
        content = message.get("content")
        if content is not None and not isinstance(content, str | list):
            raise bad_request(
                f"messages[{i}].content must be text or parts.", param=f"messages[{i}].content"
            )
    check_sampling(body)


def check_sampling(body: dict[str, Any]) -> None:
    """The fields that a local arm reads.

    Raises:
        ApiError: One is of the wrong type or out of range.
    """
    for name, value in body.items():
        check = _CHECKS.get(name)
        if check is not None and value is not None:
            check(name, value)


def check_model(body: dict[str, Any]) -> None:
    """The model's name is a text, where there is one."""
    if body.get("model") is not None:
        _check_text("model", body["model"])


def _check_text(name: str, value: Any) -> None:
    if not isinstance(value, str):
        raise bad_request(f"{name} must be a text.", param=name)


def _check_flag(name: str, value: Any) -> None:
    if not isinstance(value, bool):
        raise bad_request(f"{name} must be true or false.", param=name)


def _check_object(name: str, value: Any) -> None:
    if not isinstance(value, dict):
        raise bad_request(f"{name} must be an object.", param=name)


def _check_stop(name: str, value: Any) -> None:
    if isinstance(value, str):
        return
    if not (isinstance(value, list) and len(value) <= 16 and all(isinstance(one, str) for one in value)):
        raise bad_request("stop must be a text or at most 16 texts.", param=name)


def _number(low: float, high: float, *, whole: bool = False) -> Callable[[str, Any], None]:
    kinds = (int,) if whole else (int, float)
    kind = "a whole number" if whole else "a number"

    def check(name: str, value: Any) -> None:
        if isinstance(value, bool) or not isinstance(value, kinds) or not low <= value <= high:
            raise bad_request(f"{name} must be {kind} in {low}-{high}, got {str(value)[:40]}.", param=name)

    return check


_CHECKS: dict[str, Callable[[str, Any], None]] = {
    "max_tokens": _number(1, 10**7, whole=True),
    "max_completion_tokens": _number(1, 10**7, whole=True),
    "n": _number(1, 128, whole=True),
    "temperature": _number(0, 2),
    "top_logprobs": _number(0, 20, whole=True),
    "seed": _number(-(2**63), 2**63 - 1, whole=True),
    "stop": _check_stop,
    "stream": _check_flag,
    "echo": _check_flag,
    "response_format": _check_object,
    "stream_options": _check_object,
    "metadata": _check_object,
    "model": _check_text,
}


def text_of(content: Any) -> str | None:
    """Text of a message's content; None where it holds anything but text."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return None
    texts = []
    for part in content:
        if not isinstance(part, dict) or part.get("type", "text") not in (
            "text",
            "input_text",
            "output_text",
        ):
            return None
        text = part.get("text")
        if not isinstance(text, str):
            return None
        texts.append(text)
    return "".join(texts)


class TaskText:
    """Finds the text of the task in what a client wrote."""

    def __init__(self, config: InputConfig) -> None:
        self._prefix, _, self._suffix = config.template.partition("{input}")

    def of_chat(self, messages: Sequence[dict[str, Any]]) -> tuple[str | None, str]:
        """Text of the last message if it is the user's and fits the template, and why not."""
        last = messages[-1]
        if last.get("role") != "user":
            return None, "the last message is not the user's"
        text = text_of(last.get("content"))
        if text is None:
            return None, "the last message is not text alone"
        return self.of_text(text)

    def of_text(self, text: str) -> tuple[str | None, str]:
        """The input within a text that fits the template."""
        end = len(text) - len(self._suffix)
        fits = text.startswith(self._prefix) and text.endswith(self._suffix) and end >= len(self._prefix)
        if not fits:
            return None, "the message does not fit the task's template"
        return text[len(self._prefix) : end], ""


def sticky_key(
    sources: Sequence[str], headers: dict[bytes, bytes], body: dict[str, Any], fallback: str
) -> tuple[str, bool]:
    """What arms are assigned by, and whether it is the user's."""
    for kind, name in _places(tuple(sources)):
        found: Any
        if kind == "header":
            found = headers.get(name.encode())
            found = found.decode("latin-1") if found else None
        elif kind == "metadata":
            metadata = body.get("metadata")
            found = metadata.get(name) if isinstance(metadata, dict) else None
        else:
            found = body.get(name)
        if isinstance(found, str) and found:
            return found, True
    return fallback, False


@functools.lru_cache(maxsize=16)
def _places(sources: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    """Where each source is looked up, and under which name; settings do not change between requests."""
    found = []
    for source in sources:
        if source.startswith("header:"):
            found.append(("header", source[7:]))
        elif source.startswith("metadata."):
            found.append(("metadata", source[9:]))
        else:
            found.append(("body", source))
    return tuple(found)


def decision_text(given: Any) -> str:
    """Text of a decision's `input` or `state`: as it is, the messages' texts, or JSON.

    Raises:
        ApiError: There is none, or it holds an image.
    """
    if isinstance(given, str):
        return given
    if given is None:
        raise bad_request("input must be given.", param="input")
    if isinstance(given, list) and given and all(isinstance(one, dict) and "role" in one for one in given):
        texts = [text_of(one.get("content")) for one in given]
        if any(text is None for text in texts):
            raise ApiError(
                400, "unsupported", "input must be text; other parts are not read.", param="input"
            )
        return "\n".join(text for text in texts if text)
    return msgspec.json.encode(given).decode()
