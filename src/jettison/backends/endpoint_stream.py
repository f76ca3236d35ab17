"""An answer that comes as server-sent events, put together into the shape of a whole one."""

import time
from typing import Any

import msgspec

from jettison.backends.endpoint_http import Fault


class Stream:
    """Takes the lines as they come."""

    def __init__(self) -> None:
        self.started_s = time.perf_counter()
        self.first_token_s: float | None = None
        """From the start to the first text."""
        self.n_lines = 0
        self._chunks: list[dict[str, Any]] = []
        self._ended = False

    def take(self, line: bytes) -> None:
        """One line of the stream.

        Raises:
            Fault: It is no JSON, or says that the server failed.
        """
        self.n_lines += 1
        if not line.startswith(b"data:"):
            return
        data = line[5:].strip()
        if data == b"[DONE]":
            self._ended = True
            return
        try:
            chunk = msgspec.json.decode(data, type=dict[str, Any])
        except (msgspec.DecodeError, RecursionError) as error:
            raise Fault("a chunk of its stream is no JSON", "failed") from error
        if "error" in chunk:
            raise Fault("its stream broke off with an error", "failed")
        if self.first_token_s is None and _text_of(_choice(chunk)):
            self.first_token_s = time.perf_counter() - self.started_s
        self._chunks.append(chunk)

    def joined(self) -> dict[str, Any]:
        """The whole answer.

        Raises:
            Fault: It was cut off: neither `[DONE]` nor a reason to finish came.
        """
        choices = [_choice(chunk) for chunk in self._chunks]
        finish = next((c["finish_reason"] for c in reversed(choices) if c.get("finish_reason")), None)
        if not self._ended and finish is None:
            raise Fault("its stream was cut off", "failed")
        if not any(choices):
            return {}
        text = "".join(_text_of(choice) for choice in choices)
        whole: dict[str, Any] = {"message": {"content": text}, "text": text, "finish_reason": finish}
        if logprobs := _joined_logprobs(choices):
            whole["logprobs"] = logprobs
        usage = next((c["usage"] for c in reversed(self._chunks) if c.get("usage")), None)
        return {"choices": [whole], "usage": usage}


def _choice(chunk: dict[str, Any]) -> dict[str, Any]:
    choices = chunk.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else None
    return first if isinstance(first, dict) else {}


def _text_of(choice: dict[str, Any]) -> str:
    delta = choice.get("delta")
    text = (delta.get("content") if isinstance(delta, dict) else None) or choice.get("text")
    return text if isinstance(text, str) else ""


def _joined_logprobs(choices: list[dict[str, Any]]) -> dict[str, Any]:
    """Log-probabilities of all chunks, in the chat's shape (`content`) or the older one."""
    found: dict[str, Any] = {}
    for choice in choices:
        given = choice.get("logprobs")
        for name in ("content", "token_logprobs", "top_logprobs", "tokens"):
            part = given.get(name) if isinstance(given, dict) else None
            if isinstance(part, list):
                found.setdefault(name, []).extend(part)
    return found
