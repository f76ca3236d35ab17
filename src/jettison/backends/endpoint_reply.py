"""What an OpenAI-compatible server's answers say: text, probabilities, tokens, price."""

import math
from decimal import Decimal
from typing import Any

from jettison.backends.endpoint_http import Fault
from jettison.backends.transport import Reply
from jettison.language import Ask, Completion
from jettison.record import Cost


def check_choice(body: dict[str, Any]) -> None:
    """Whether there is an answer in it at all.

    Raises:
        Fault: There is none; a server that is sound does not answer so.
    """
    choice = _choice(body)
    if choice is None:
        raise Fault("its answer holds no choice", "failed")
    if not isinstance(choice.get("message"), dict) and not isinstance(choice.get("text"), str):
        raise Fault("its answer holds no message", "failed")


def read_completion(reply: Reply, ask: Ask, cost: Cost) -> Completion:
    """The answer to one request."""
    choice = _choice(reply.body) or {}
    tokens, top = _logprobs(choice)
    # Some servers stream fewer probabilities than tokens; the last token, the end, may well be silent.
    if tokens is not None and len(tokens) < (cost.completion_tokens or 0) - 1:
        tokens = None
    return Completion(
        text=_cut(_text(choice), ask.stop),
        finish="length" if choice.get("finish_reason") == "length" else "stop",
        token_logprobs=tokens,
        top_logprobs=top,
        cost=cost,
    )


def read_cost(
    reply: Reply,
    *,
    usd_per_million_input: float | None,
    usd_per_million_output: float | None,
    usd_per_million_cached: float | None = None,
) -> Cost:
    """What an answer took; what the server does not say is None."""
    given = reply.body.get("usage")
    usage = given if isinstance(given, dict) else {}
    n_in, n_out = _count(usage.get("prompt_tokens")), _count(usage.get("completion_tokens"))
    details = usage.get("prompt_tokens_details")
    n_cached = _count(details.get("cached_tokens")) if isinstance(details, dict) else None
    return Cost(
        latency_s=reply.latency_s,
        wire_bytes=reply.wire_bytes,
        prompt_tokens=n_in,
        completion_tokens=n_out,
        first_token_s=reply.first_token_s,
        price_usd=price_usd(
            n_in,
            n_out,
            n_cached=n_cached or 0,
            usd_per_million_input=usd_per_million_input,
            usd_per_million_output=usd_per_million_output,
            usd_per_million_cached=usd_per_million_cached,
        ),
    )


def price_usd(
    n_input: int | None,
    n_output: int | None,
    *,
    n_cached: int = 0,
    usd_per_million_input: float | None,
    usd_per_million_output: float | None,
    usd_per_million_cached: float | None = None,
) -> float | None:
    """Price of one answer, exact to the last digit of a float; None where a part of it is not known.

    Args:
        n_input: Tokens of the prompt, cached ones among them.
        n_output: Tokens of the answer.
        n_cached: Tokens of the prompt that the server had in its cache.
        usd_per_million_input: Price of a million tokens of prompts.
        usd_per_million_output: Price of a million tokens of answers.
        usd_per_million_cached: Price of a million cached tokens; None is that of the others.
    """
    if n_input is None or n_output is None:
        return None
    if usd_per_million_input is None or usd_per_million_output is None:
        return None
    cached = min(n_cached, n_input) if usd_per_million_cached is not None else 0
    total = (
        (n_input - cached) * _exact(usd_per_million_input)
        + cached * _exact(usd_per_million_cached or 0.0)
        + n_output * _exact(usd_per_million_output)
    )
    return float(total / 1_000_000)


def _exact(price: float) -> Decimal:
    # As it is written: 0.15 is fifteen hundredths, not the nearest float.
    return Decimal(repr(float(price)))


def _choice(body: dict[str, Any]) -> dict[str, Any] | None:
    choices = body.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else None
    return first if isinstance(first, dict) else None


def _text(choice: dict[str, Any]) -> str:
    message = choice.get("message")
    if not isinstance(message, dict):
        return str(choice.get("text") or "")
    content = message.get("content")
    if isinstance(content, list):  # parts, as some gateways write them
        content = "".join(str(part.get("text") or "") for part in content if isinstance(part, dict))
    return str(content or message.get("refusal") or "")


def _cut(text: str, stop: tuple[str, ...]) -> str:
    """The text up to the first string that ends an answer, for servers that take no or few of them."""
    ends = [place for place in (text.find(end) for end in stop if end) if place >= 0]
    return text[: min(ends)] if ends else text


def _logprobs(choice: dict[str, Any]) -> tuple[tuple[float, ...] | None, dict[str, float] | None]:
    """Log-probabilities of the tokens taken and of the likeliest first ones, from either API's shape."""
    given = choice.get("logprobs")
    if not isinstance(given, dict):
        return None, None
    content = given.get("content")
    if isinstance(content, list) and content and all(isinstance(one, dict) for one in content):
        tokens = [_number(one.get("logprob")) for one in content]
        listed = content[0].get("top_logprobs")
        pairs = [one for one in listed or () if isinstance(one, dict)] if isinstance(listed, list) else []
        top = {str(one.get("token")): _number(one.get("logprob")) for one in pairs}
    else:
        legacy, tops = given.get("token_logprobs"), given.get("top_logprobs")
        tokens = [_number(one) for one in legacy] if isinstance(legacy, list) else []
        first = tops[0] if isinstance(tops, list) and tops else None
        top = {str(t): _number(v) for t, v in first.items()} if isinstance(first, dict) else {}
    known = tuple(one for one in tokens if one is not None)
    likely = {token: one for token, one in top.items() if one is not None}
    # A probability that lacks for one token would make the others seem the whole answer.
    return known if known and len(known) == len(tokens) else None, likely or None


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return min(float(value), 0.0)


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53 else None
