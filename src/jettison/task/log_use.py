"""What a logged answer took: tokens that the server counted, and seconds, where the log says so.

A time is read only from a field whose name has its unit, or from a start and an end. `created`, a whole
second at which an answer was begun, and the times of a batch say nothing of one answer.
"""

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

import msgspec

_SECONDS = (
    "latency_s",
    "duration_s",
    "elapsed_s",
    "response_time_s",
    "latency_seconds",
    "duration_seconds",
)
_MILLISECONDS = ("latency_ms", "duration_ms", "elapsed_ms", "response_time_ms", "total_time_ms")
_STARTS = ("startTime", "start_time", "started_at")
_ENDS = ("endTime", "end_time", "completed_at", "finished_at")
_MOST_S = 86400.0
_LEAST_MILLISECONDS = 1e11
"""An epoch above it counts milliseconds: in seconds it would be the year 5138."""
_LEAST_MICROSECONDS = 1e14
"""One above that counts something finer, and which is not said."""


class Use(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Of one call. None is "the log does not say", never zero."""

    model: str | None = None
    """As the request names it, or else the answer."""
    prompt_tokens: int | None = None
    """Cached ones among them."""
    completion_tokens: int | None = None
    cached_tokens: int | None = None
    latency_s: float | None = None

    @property
    def is_counted(self) -> bool:
        """Whether the tokens of both sides are known, which a price needs."""
        return self.prompt_tokens is not None and self.completion_tokens is not None

    @property
    def n_known(self) -> int:
        return self.is_counted + (self.latency_s is not None)


def fuller(first: Use | None, second: Use) -> Use:
    """Of two calls with the same answer, the one that says more of what it took, else the first."""
    return second if first is None or second.n_known > first.n_known else first


def use_of(response: Any, *around: Any) -> Use:
    """What one answer took.

    Args:
        response: Decoded: a body with `usage`; anything else says nothing.
        around: Objects that hold it, in which gateways write times, the nearest first.
    """
    body = response if isinstance(response, dict) else {}
    counts = _dicts([one.get("usage") for one in (body, *_dicts(around))])
    usage = next(iter(counts), {})
    n_in, n_cached = _prompt_tokens(usage)
    model = body.get("model")
    return Use(
        model=model if isinstance(model, str) else None,
        prompt_tokens=n_in,
        completion_tokens=_first_count(usage, ("completion_tokens", "output_tokens")),
        cached_tokens=n_cached,
        latency_s=_latency_s([*_dicts(around), body]),
    )


def span_use(held: dict[str, Any], span: dict[str, Any]) -> Use:
    """Of a span with the attributes of OpenTelemetry's conventions, older names among them."""
    usage = {
        key.removeprefix("gen_ai.usage."): n for key, n in held.items() if key.startswith("gen_ai.usage.")
    }
    model = held.get("gen_ai.response.model")
    began, ended = (_nanoseconds(span.get(key)) for key in ("startTimeUnixNano", "endTimeUnixNano"))
    return Use(
        model=model if isinstance(model, str) else None,
        prompt_tokens=_first_count(usage, ("input_tokens", "prompt_tokens")),
        completion_tokens=_first_count(usage, ("output_tokens", "completion_tokens")),
        cached_tokens=_count(usage.get("cache_read.input_tokens")),
        latency_s=None if began is None or ended is None else _seconds((ended - began) / 1e9),
    )


def _prompt_tokens(usage: dict[str, Any]) -> tuple[int | None, int | None]:
    """Tokens of the prompt, and of these from a cache."""
    n_in = _first_count(usage, ("prompt_tokens", "input_tokens"))
    # Anthropic counts what the cache gave and took beside the others, OpenAI within them.
    beside = [_count(usage.get(f"cache_{what}_input_tokens")) for what in ("read", "creation")]
    if "prompt_tokens" not in usage and any(beside):
        return None if n_in is None else n_in + sum(n or 0 for n in beside), beside[0]
    details = [usage.get(f"{side}_tokens_details") for side in ("prompt", "input")]
    found = [_count(one.get("cached_tokens")) for one in _dicts(details)]
    return n_in, next((n for n in found if n is not None), beside[0])


def _latency_s(held: Sequence[dict[str, Any]]) -> float | None:
    """The first time that is said, the outermost object last but for the server's own count."""
    return next((value for one in held for value in _times(one) if value is not None), None)


def _times(held: dict[str, Any]) -> Iterator[float | None]:
    yield from (_seconds(held.get(key)) for key in _SECONDS)
    yield from (_seconds(held.get(key), 1e-3) for key in _MILLISECONDS)
    started = next((held[key] for key in _STARTS if held.get(key) is not None), None)
    ended = next((held[key] for key in _ENDS if held.get(key) is not None), None)
    begin, end = _epoch_s(started), _epoch_s(ended)
    yield None if begin is None or end is None else _seconds(end - begin)
    timings = held.get("timings")  # llama.cpp: reading and writing, without the queue
    if isinstance(timings, dict):
        parts = [_seconds(timings.get(key), 1e-3) for key in ("prompt_ms", "predicted_ms")]
        yield None if None in parts else sum(part for part in parts if part is not None)


def _epoch_s(value: Any) -> float | None:
    if isinstance(value, str):
        try:
            return datetime.fromisoformat(value).timestamp()
        except (ValueError, OverflowError, OSError):
            return None
    if isinstance(value, bool) or not isinstance(value, int | float) or value > _LEAST_MICROSECONDS:
        return None
    return value / 1e3 if value > _LEAST_MILLISECONDS else value


def _nanoseconds(value: Any) -> int | None:
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 21:
        return int(value)  # 64-bit integers are strings in protobuf's JSON
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**64 else None


def _seconds(value: Any, unit_s: float = 1.0) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value * unit_s if 0 < value <= _MOST_S / unit_s else None


def _first_count(usage: dict[str, Any], keys: Sequence[str]) -> int | None:
    return next((n for key in keys if (n := _count(usage.get(key))) is not None), None)


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**31 else None


def _dicts(values: Sequence[Any]) -> list[dict[str, Any]]:
    return [one for one in values if isinstance(one, dict)]
