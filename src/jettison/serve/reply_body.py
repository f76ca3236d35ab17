"""What is read of an upstream's whole answer: text, confidence, tokens, and whether it is one."""

import math
from typing import Any

import msgspec

from jettison.serve.calls import Operation


class _Message(msgspec.Struct, frozen=True):
    content: Any = None


class _TokenLogprob(msgspec.Struct, frozen=True):
    logprob: float | None = None


class _Logprobs(msgspec.Struct, frozen=True):
    content: list[_TokenLogprob] | None = None
    token_logprobs: list[float | None] | None = None


class _Choice(msgspec.Struct, frozen=True):
    message: _Message | None = None
    text: str | None = None
    logprobs: _Logprobs | None = None


class _Completion(msgspec.Struct, frozen=True):
    choices: list[_Choice]
    usage: Any = None


class _Listed(msgspec.Struct, frozen=True):
    data: list[Any]
    usage: Any = None


class _Any(msgspec.Struct, frozen=True):
    usage: Any = None


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What a record needs of an answer."""

    text: str | None = None
    confidence: float | None = None
    """Mean probability of the tokens taken (a geometric mean), where log-probabilities came."""
    prompt_tokens: int | None = None
    completion_tokens: int | None = None

    @classmethod
    def of_usage(cls, usage: Any) -> "Facts":
        """Tokens alone; what is no sane count is unknown."""
        return cls(
            prompt_tokens=_count(usage, "prompt_tokens", "input_tokens"),
            completion_tokens=_count(usage, "completion_tokens", "output_tokens"),
        )


_completion = msgspec.json.Decoder(_Completion).decode
_listed = msgspec.json.Decoder(_Listed).decode
_any = msgspec.json.Decoder(_Any).decode


def read_facts(operation: Operation, raw: bytes) -> Facts | None:
    """Facts of an answer; None where it is not of the operation's shape."""
    try:
        if operation in ("chat", "completion"):
            found = _completion(raw)
            if not found.choices:
                return None
            first = found.choices[0]
            if operation == "chat" and first.message is None:
                return None
            if operation == "completion" and first.text is None:
                return None
            content = first.message.content if first.message else first.text
            usage = Facts.of_usage(found.usage)
            return Facts(
                text=content if isinstance(content, str) else "",
                confidence=_mean_probability(first.logprobs),
                prompt_tokens=usage.prompt_tokens,
                completion_tokens=usage.completion_tokens,
            )
        if operation == "embedding":
            return Facts.of_usage(_listed(raw).usage)
        return Facts.of_usage(_any(raw).usage)
    except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError, RecursionError):
        return None


def _count(usage: Any, *names: str) -> int | None:
    for name in names:
        value = usage.get(name) if isinstance(usage, dict) else None
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 10**10:
            return value
    return None


def _mean_probability(logprobs: _Logprobs | None) -> float | None:
    if logprobs is None:
        return None
    given = (
        [one.logprob for one in logprobs.content]
        if logprobs.content is not None
        else list(logprobs.token_logprobs or ())
    )
    known = [one for one in given if one is not None]
    if not known:
        return None
    return math.exp(min(0.0, math.fsum(known) / len(known)))


def without_logprobs(raw: bytes) -> bytes:
    """The answer as it would have come had nobody asked for them."""
    body = msgspec.json.decode(raw)
    for choice in body["choices"]:
        choice["logprobs"] = None
    return msgspec.json.encode(body)


def is_error_body(raw: bytes) -> bool:
    """Whether an answer is an error in OpenAI's shape."""
    try:
        body = msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return isinstance(body, dict) and isinstance(body.get("error"), dict)


def is_object(raw: bytes) -> bool:
    """Whether an answer is a JSON object."""
    try:
        return isinstance(msgspec.json.decode(raw), dict)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
