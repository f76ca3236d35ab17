"""What an OpenAI-compatible server is sent, and how it is asked when it knows fewer fields than others."""

import re
import threading
from typing import Any, Literal

from jettison.language import Ask
from jettison.task.prompt import Message

ChoiceField = Literal["structured_outputs", "guided_choice"]
"""Field by which vLLM holds an answer to a list: since 0.11, and before 0.12."""
OPTIONAL = (
    "logprobs",
    "top_logprobs",
    "temperature",
    "seed",
    "stop",
    "response_format",
    "stream_options",
    "structured_outputs",
    "guided_choice",
)
"""Fields that a server may refuse: it is then asked without them."""


class Dialect:
    """The fields that a server takes, learned from what it refuses."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._refused: set[str] = set()
        self._renames_max_tokens = False

    def said(self, body: dict[str, Any]) -> dict[str, Any]:
        """A request in the fields that the server is known to take."""
        found = {name: value for name, value in body.items() if name not in self._refused}
        if self._renames_max_tokens and "max_tokens" in found:
            found["max_completion_tokens"] = found.pop("max_tokens")
        return found

    def learn(self, message: str, sent: dict[str, Any]) -> bool:
        """Learn from a refusal; whether asking in other fields is worth a try."""
        with self._lock:
            if "max_completion_tokens" in message and "max_tokens" in sent:
                self._renames_max_tokens = True
                return True
            named = {name for name in OPTIONAL if name in sent and _names(message, name)}
            if named & {"logprobs", "top_logprobs"}:
                named |= {"logprobs", "top_logprobs"}
            self._refused |= named
            return bool(named)


def _names(message: str, field: str) -> bool:
    stem = "logprob" if "logprob" in field else rf"\b{field}\b"
    return re.search(stem, message, re.IGNORECASE) is not None


def chat_body(
    ask: Ask,
    *,
    model: str,
    extra: dict[str, Any],
    top_logprobs: int,
    stream: bool,
    choice_field: ChoiceField | None,
    continues: bool = False,
) -> dict[str, Any]:
    """The request for a chat completion.

    Args:
        ask: What is wanted; plain text becomes a user's message.
        model: Name on the server.
        extra: Further fields.
        top_logprobs: Likeliest tokens to ask for at each place; 0 asks for no probabilities.
        stream: Whether the answer is to come as events.
        choice_field: How the server is held to `ask.choices`; None does not hold it.
        continues: Whether the server goes on from a begun answer, as vLLM does.
    """
    turns = ask.messages or (Message(role="user", content=ask.text or ""),)
    body = _shared(ask, model, extra)
    body["messages"] = [{"role": turn.role, "content": utf8(turn.content)} for turn in turns]
    if continues and ask.answer_prefix:
        body["messages"].append({"role": "assistant", "content": utf8(ask.answer_prefix)})
        body |= {"add_generation_prompt": False, "continue_final_message": True}
    if ask.json_schema is not None:
        schema = {"name": "answer", "schema": ask.json_schema}
        body["response_format"] = {"type": "json_schema", "json_schema": schema}
    if top_logprobs:
        body |= {"logprobs": True, "top_logprobs": top_logprobs}
    return {**body, **_held(ask, choice_field), **_streamed(stream), **extra}


def text_body(
    ask: Ask,
    *,
    model: str,
    extra: dict[str, Any],
    top_logprobs: int,
    stream: bool,
    choice_field: ChoiceField | None,
) -> dict[str, Any]:
    """The request to go on from plain text; arguments as of `chat_body`."""
    body = {**_shared(ask, model, extra), "prompt": utf8(ask.text or "")}
    if top_logprobs:
        body["logprobs"] = top_logprobs
    return {**body, **_held(ask, choice_field), **_streamed(stream), **extra}


def utf8(text: str) -> str:
    """The text without what no JSON can carry: half of a surrogate pair becomes a question mark."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _shared(ask: Ask, model: str, extra: dict[str, Any]) -> dict[str, Any]:
    body: dict[str, Any] = {"model": model, "temperature": ask.temperature}
    if "max_completion_tokens" not in extra:
        body["max_tokens"] = ask.max_tokens
    if ask.temperature:
        body["seed"] = ask.seed
    if ask.stop:
        body["stop"] = [utf8(end) for end in ask.stop[:4]]
    return body


def _held(ask: Ask, field: ChoiceField | None) -> dict[str, Any]:
    if not ask.choices or field is None or ask.json_schema is not None:
        return {}
    choices = [utf8(choice) for choice in ask.choices]
    return {field: choices if field == "guided_choice" else {"choice": choices}}


def _streamed(stream: bool) -> dict[str, Any]:
    return {"stream": True, "stream_options": {"include_usage": True}} if stream else {}
