"""A target behind an address: what it is sent and how its answers are read."""

import os
import re
from typing import Any, Literal
from urllib.parse import urlsplit

import msgspec

from jettison.errors import InvalidInput
from jettison.task import Input

Api = Literal["chat", "completions", "http"]
PLACE = "{input}"


class HttpTarget(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An OpenAI-compatible endpoint, or any address that answers a POST."""

    name: str
    url: str
    """The whole address that is posted to."""
    api: Api = "http"
    model: str | None = None
    """Its name on an OpenAI-compatible server."""
    prompt: str = PLACE
    """Of an OpenAI-compatible server: the text asked, with `{input}` in it."""
    body: str = '{"input": {input}}'
    """Of any other: JSON, in which `{input}` becomes the text as a JSON string."""
    answer: str = ""
    """Of any other: where in its JSON the answer is, as `output.label`; empty takes all of it."""
    max_tokens: int = 64
    stream: bool = False
    """Ask for the answer as it comes, which tells the time to the first token."""
    api_key_env: str | None = None
    """Environment variable that holds the key; None sends none."""
    timeout_s: float = 30.0
    """A request without a whole answer by then is a miss."""
    concurrency: int = 16
    """Requests under way at once, where the scenario leaves it open (offline)."""

    @property
    def is_here(self) -> bool:
        """Whether it is this machine that answers: its meters see that work."""
        return urlsplit(self.url).hostname in ("localhost", "127.0.0.1", "::1")


class Answer(msgspec.Struct, frozen=True):
    """What a whole body says."""

    text: str | None
    error: str | None
    prompt_tokens: int | None
    completion_tokens: int | None


def http_target(url: str, *, model: str | None = None, **given: Any) -> HttpTarget:
    """Describe the target at an address; nothing is sent.

    An address that ends in `/v1` or `/chat/completions` is asked as OpenAI's chat is, one that ends
    in `/completions` as the older one; any other gets `body` posted.

    Raises:
        InvalidInput: The address or another field is out of range, or `model` is missing.
    """
    parts = urlsplit(url)
    is_plain = parts.scheme in ("http", "https") and bool(parts.hostname) and not parts.fragment
    if not is_plain or "@" in parts.netloc or re.search(r"\s", url):
        shown = f"{parts.scheme}://{parts.hostname}" if parts.hostname else url[:60]
        raise InvalidInput(
            f"a target's address must be http(s)://host/path without user or key in it, got {shown!r}."
        )
    path = parts.path.rstrip("/")
    api: Api = "http"
    if path.endswith("/chat/completions") or re.search(r"/v\d+$", path):
        api = "chat"
        url = url.rstrip("/").removesuffix("/chat/completions") + "/chat/completions"
    elif path.endswith("/completions"):
        api = "completions"
    target = HttpTarget(
        name=given.pop("name", None) or model or f"{parts.netloc}{path}",
        url=url,
        api=api,
        model=model,
        **given,
    )
    _check(target)
    return target


def request_body(target: HttpTarget, asked: Input) -> bytes:
    """The JSON that is posted for one input."""
    text = asked if isinstance(asked, str) else "\n".join([asked.text, *asked.choices])
    text = text.encode("utf-8", "replace").decode("utf-8")
    if target.api == "http":
        return target.body.replace(PLACE, msgspec.json.encode(text).decode()).encode()
    said = target.prompt.replace(PLACE, text)
    body: dict[str, Any] = {"model": target.model, "max_tokens": target.max_tokens, "temperature": 0}
    body |= {"messages": [{"role": "user", "content": said}]} if target.api == "chat" else {"prompt": said}
    if target.stream:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    return msgspec.json.encode(body)


def headers_of(target: HttpTarget) -> dict[str, str]:
    """Headers of every request; the key comes from the environment and is in no message.

    Raises:
        InvalidInput: The variable is not set, or holds what no header can.
    """
    headers = {"Content-Type": "application/json", "Accept-Encoding": "identity"}
    if target.api_key_env is not None:
        key = os.environ.get(target.api_key_env, "").strip()
        if not re.fullmatch(r"[\x21-\x7e]+", key):
            raise InvalidInput(
                f"environment variable {target.api_key_env} must hold the key for {target.name}, "
                f"got {'nothing' if not key else 'characters that no key has'}."
            )
        headers["Authorization"] = f"Bearer {key}"
    return headers


def read_answer(target: HttpTarget, body: bytes) -> Answer:
    """The answer in a whole body; with `error` when it is none."""
    if target.api == "http" and not target.answer:
        return Answer(body.decode("utf-8", "replace"), None, None, None)
    try:
        found = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError):
        return Answer(None, "its answer is no JSON", None, None)
    if target.api == "http":
        for step in target.answer.split("."):
            found = _step(found, step)
        if found is None:
            return Answer(None, f"its answer has nothing at {target.answer!r}", None, None)
        return Answer(found if isinstance(found, str) else str(found), None, None, None)
    return read_chunk(found)


def read_chunk(found: Any) -> Answer:
    """Text and counts in the JSON of an answer, or of one chunk of a stream, in either API's shape."""
    if not isinstance(found, dict) or "error" in found:
        return Answer(None, "it answered with an error", None, None)
    usage = found.get("usage")
    usage = usage if isinstance(usage, dict) else {}
    choices = found.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], dict) else {}
    said = choice.get("delta") or choice.get("message")
    text = said.get("content") if isinstance(said, dict) else choice.get("text")
    counts = [
        n if isinstance(n, int) and not isinstance(n, bool) and n >= 0 else None
        for n in (usage.get("prompt_tokens"), usage.get("completion_tokens"))
    ]
    return Answer(text if isinstance(text, str) else None, None, counts[0], counts[1])


def _step(found: Any, name: str) -> Any:
    if isinstance(found, dict):
        return found.get(name)
    if isinstance(found, list) and name.isdigit() and int(name) < len(found):
        return found[int(name)]
    return None


def _check(target: HttpTarget) -> None:
    if target.api != "http" and not (target.model or "").strip():
        raise InvalidInput(
            f"an OpenAI-compatible address needs the model's name, got none for {target.url}. Give --model."
        )
    if target.api != "http" and PLACE not in target.prompt:
        raise InvalidInput(f"the prompt must hold {PLACE}, got {target.prompt[:60]!r}.")
    if target.api == "http":
        try:
            msgspec.json.decode(request_body(target, "text"))
        except msgspec.DecodeError as error:
            raise InvalidInput(
                f"the body must be JSON once {PLACE} is a string, got {target.body[:80]!r}: {error}."
            ) from error
    if target.api_key_env is not None and not re.fullmatch(r"[A-Z_][A-Z0-9_]*", target.api_key_env):
        raise InvalidInput("the key must be given as the NAME of an environment variable, never itself.")
    if not 0.01 <= target.timeout_s <= 3600 or not 1 <= target.concurrency <= 4096:
        raise InvalidInput(
            f"the time-out must be in 0.01-3600 s and the concurrency in 1-4096, got {target.timeout_s:g} "
            f"and {target.concurrency}."
        )
