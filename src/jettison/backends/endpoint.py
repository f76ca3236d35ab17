"""OpenAI-compatible endpoints: asked in parallel, paid once, never blamed for the network.

A candidate folder holds `endpoint.json`. The key is read from the environment variable it names,
and is in no file, log or error. Every answer is kept (see `jettison.backends.answer_cache`), so that
a killed run asks only for what it has not got.
"""

import os
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from jettison.backends.answer_cache import AnswerCache, answer_key, answers_folder
from jettison.backends.prompted import PromptedModel, open_prompted
from jettison.backends.transport import Limits, Refused, Reply, Transport
from jettison.candidate import AppliedStep, Candidate, library_versions, write_candidate
from jettison.errors import InvalidInput, Unanswered, Unsupported
from jettison.files import read_json, write_json
from jettison.language import Ask, Completion, Continuation, Likelihood
from jettison.record import Cost
from jettison.task.prompt import Message

MANIFEST = "endpoint.json"
CHARACTERS_A_TOKEN = 4
"""Rough, for the rate limit alone."""
MOST_FATAL = (401, 403, 404)


class Endpoint(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`endpoint.json`: where a model is, what it costs, and how fast it may be asked."""

    url: str
    """Base address, as `https://host/v1`."""
    model: str
    api_key_env: str | None = None
    """Environment variable that holds the key; None sends none."""
    usd_per_million_input: float | None = None
    usd_per_million_output: float | None = None
    concurrency: int = 8
    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None
    connect_s: float = 10.0
    read_s: float = 120.0
    max_retries: int = 6
    stream: bool = False
    """Read the answer as it comes, which tells the time to the first token."""
    legacy: bool = False
    """Plain text over `/completions` instead of chats."""
    logprobs: bool = True
    """Ask for the probabilities of the answer's tokens; a server that refuses is asked without."""
    extra: dict[str, Any] = msgspec.field(default_factory=dict)
    """Further fields of every request, as `{"reasoning_effort": "low"}`."""


def endpoint_candidate(
    folder: Path,
    *,
    url: str,
    model: str,
    labels: Sequence[str] = (),
    out_of_scope: str | None = None,
    settings: Mapping[str, Any] | None = None,
    backend: str = "openai",
    name: str | None = None,
    **given: Any,
) -> Candidate:
    """Write a candidate that is a model behind an address.

    Args:
        folder: Where; it must be there.
        url: Base address, as `https://host/v1`.
        model: Its name there.
        labels: Of the task, for kind `classify`.
        out_of_scope: The label that means "none of these".
        settings: `kind`, `prompt` and the like; see `jettison.backends.prompted`.
        backend: `openai`, or `vllm` for a server that also scores given texts.
        name: Of the candidate; None is the model's.
        given: Further fields of `Endpoint`.

    Raises:
        InvalidInput: A field is unknown or out of range.
    """
    if "backend" in given:
        backend = given.pop("backend")
    try:
        endpoint = msgspec.convert({"url": url.rstrip("/"), "model": model, **given}, Endpoint)
    except msgspec.ValidationError as error:
        raise InvalidInput(f"[endpoint]: {error}.") from error
    check_endpoint(endpoint)
    if backend not in ("openai", "vllm"):
        raise InvalidInput(f"[endpoint] backend must be 'openai' or 'vllm', got {backend!r}.")
    write_json(folder / MANIFEST, endpoint)
    return write_candidate(
        folder,
        name=name or model.rsplit("/", 1)[-1],
        backend=backend,
        labels=labels,
        out_of_scope=out_of_scope,
        settings=settings,
        lineage=[
            AppliedStep(
                step="take_in",
                settings={"source": f"{endpoint.url}#{model}"},
                seed=0,
                versions=library_versions(),
                parents=(),
            )
        ],
    )


def check_endpoint(endpoint: Endpoint) -> None:
    """Check ranges that types cannot say.

    Raises:
        InvalidInput: A field is out of range, or the address holds a key.
    """
    rules: list[tuple[bool, str, str, object]] = [
        (
            re.match(r"https?://[^/@\s]+", endpoint.url) is not None and "@" not in endpoint.url,
            "url",
            "an address as https://host/v1, without a user or key in it",
            endpoint.url.split("@")[-1],
        ),
        (bool(endpoint.model.strip()), "model", "the model's name", endpoint.model),
        (1 <= endpoint.concurrency <= 256, "concurrency", "in 1-256", endpoint.concurrency),
        (0 <= endpoint.max_retries <= 20, "max_retries", "in 0-20", endpoint.max_retries),
        (endpoint.connect_s > 0, "connect_s", "above 0", endpoint.connect_s),
        (endpoint.read_s > 0, "read_s", "above 0", endpoint.read_s),
        (
            endpoint.api_key_env is None
            or re.fullmatch(r"[A-Z_][A-Z0-9_]*", endpoint.api_key_env) is not None,
            "api_key_env",
            "the NAME of an environment variable, never the key",
            "something else",
        ),
    ]
    for field in (
        "usd_per_million_input",
        "usd_per_million_output",
        "requests_per_minute",
        "tokens_per_minute",
    ):
        value = getattr(endpoint, field)
        rules.append((value is None or value >= 0, field, "0 or more", value))
    for holds, name, rule, value in rules:
        if not holds:
            raise InvalidInput(f"[endpoint] {name} must be {rule}, got {value!r}.")


def open_endpoint(candidate: Candidate) -> PromptedModel:
    """Open an endpoint behind the candidate's prompt; nothing is sent yet.

    Raises:
        InvalidInput: `endpoint.json` is missing or malformed, or the key's variable is not set.
    """
    return open_prompted(EndpointEngine(candidate), candidate)


def open_vllm(candidate: Candidate) -> PromptedModel:
    """The same for a server that also gives the likelihood of given texts, as vLLM does."""
    return open_prompted(EndpointEngine(candidate, scores_texts=True), candidate)


class EndpointEngine:
    """A language model behind an OpenAI-compatible address."""

    def __init__(self, candidate: Candidate, *, scores_texts: bool = False) -> None:
        endpoint = read_json(candidate.path / MANIFEST, Endpoint)
        check_endpoint(endpoint)
        self.endpoint = endpoint
        limits = Limits(
            connect_s=endpoint.connect_s,
            read_s=endpoint.read_s,
            max_retries=endpoint.max_retries,
            requests_per_minute=endpoint.requests_per_minute,
            tokens_per_minute=endpoint.tokens_per_minute,
        )
        self._transport = Transport(endpoint.url, _key(endpoint), limits)
        self._cache = AnswerCache(answers_folder())
        self._pool = ThreadPoolExecutor(endpoint.concurrency, "endpoint")
        self._logprobs = endpoint.logprobs
        self._scores_texts = scores_texts

    def complete(self, asks: Sequence[Ask]) -> list[Completion]:
        """Answers in the requests' order.

        Raises:
            Unanswered: Some requests got no answer; those that did are kept.
            InvalidInput: The key or the model's name is wrong.
        """
        return self._each(self._complete, asks)

    def likelihoods(self, asked: Sequence[Continuation]) -> list[Likelihood]:
        """Likelihoods of given texts, from a server that echoes a prompt with its log-probabilities.

        Raises:
            Unsupported: The endpoint is not said to be able to.
        """
        if not self._scores_texts:
            raise Unsupported("an OpenAI-compatible endpoint gives no likelihood of a given text.")
        return self._each(self._likelihood, asked)

    def render(self, messages: Sequence[Message], *, answer_prefix: str = "") -> str:
        """Not to be had: the template is the server's.

        Raises:
            Unsupported: Always.
        """
        raise Unsupported("an endpoint does not show its chat template.")

    def logits(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Not to be had.

        Raises:
            Unsupported: Always.
        """
        raise Unsupported("an endpoint does not show its logits.")

    def close(self) -> None:
        """Close connections, threads and the file of answers."""
        self._transport.close()
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._cache.close()

    def _each(self, work: Any, items: Sequence[Any]) -> list[Any]:
        """Run requests in parallel; what was answered is kept before the first failure is raised."""
        futures = [self._pool.submit(work, item) for item in items]
        found: list[Any] = []
        failures: list[Unanswered] = []
        fatal: InvalidInput | None = None
        for future in futures:
            try:
                found.append(future.result())
            except Unanswered as error:
                failures.append(error)
            except InvalidInput as error:
                fatal = fatal or error
                for other in futures:
                    other.cancel()
                break
        if fatal is not None:
            raise fatal
        if failures:
            raise Unanswered(
                f"{len(failures)} of {len(items)} requests were not answered: {failures[0]} The answers "
                "that came are kept; run it again to ask for the rest."
            )
        return found

    def _complete(self, ask: Ask) -> Completion:
        body = self._body(ask)
        sample = ask.seed if ask.temperature else 0
        path = "/completions" if "prompt" in body else "/chat/completions"
        try:
            reply = self._asked(path, body, sample)
        except Refused as refusal:
            if refusal.status == 400 and self._logprobs and "logprob" in str(refusal).casefold():
                self._logprobs = False
                return self._complete(ask)
            self._check_fatal(refusal)
            return Completion(text="", finish="error", error=str(refusal))
        return self._completion(reply)

    def _body(self, ask: Ask) -> dict[str, Any]:
        endpoint = self.endpoint
        body: dict[str, Any] = {
            "model": endpoint.model,
            "max_tokens": ask.max_tokens,
            "temperature": ask.temperature,
            **({"seed": ask.seed} if ask.temperature else {}),
            **({"stop": list(ask.stop)} if ask.stop else {}),
            **endpoint.extra,
        }
        if ask.text is not None and endpoint.legacy:
            return {**body, "prompt": ask.text, **({"logprobs": 5} if self._logprobs else {})}
        turns = ask.messages or (Message(role="user", content=ask.text or ""),)
        body["messages"] = [{"role": turn.role, "content": turn.content} for turn in turns]
        if ask.json_schema is not None:
            body["response_format"] = {
                "type": "json_schema",
                "json_schema": {"name": "answer", "schema": ask.json_schema},
            }
        if self._logprobs:
            body |= {"logprobs": True, "top_logprobs": 5}
        if endpoint.stream:
            body |= {"stream": True, "stream_options": {"include_usage": True}}
        return body

    def _asked(self, path: str, body: dict[str, Any], sample: int = 0) -> Reply:
        key = answer_key(self.endpoint.url + path, body, sample)
        kept = self._cache.get(key)
        if kept is not None:
            return msgspec.convert(kept, Reply)
        content = str(body.get("messages") or body.get("prompt"))
        n_tokens = len(content) // CHARACTERS_A_TOKEN + int(body.get("max_tokens", 0))
        reply = self._transport.post(path, body, n_tokens=n_tokens)
        self._cache.put(key, msgspec.to_builtins(reply))
        return reply

    def _check_fatal(self, refusal: Refused) -> None:
        """A wrong key or model name is said at once: every other request would fail as well."""
        if refusal.status not in MOST_FATAL:
            return
        endpoint = self.endpoint
        if refusal.status != 404:
            named = endpoint.api_key_env or "none: set `api_key_env`"
            raise InvalidInput(
                f"{endpoint.url} must accept the key (environment variable {named}), got {refusal}."
            )
        raise InvalidInput(
            f"{endpoint.url} must have the model {endpoint.model!r}, got {refusal}.{self._models()}"
        )

    def _models(self) -> str:
        try:
            listed = self._transport.get("/models").get("data") or []
            names = [str(one.get("id")) for one in listed if isinstance(one, dict)][:10]
        except (Refused, Unanswered):
            return ""
        return f" It has {names}." if names else ""

    def _completion(self, reply: Reply) -> Completion:
        choices = reply.body.get("choices")
        first = choices[0] if isinstance(choices, list) and choices else None
        if not isinstance(first, dict):
            return Completion(
                text="",
                finish="error",
                error="the endpoint answered without a choice",
                cost=self._cost(reply),
            )
        message = first.get("message") or {}
        text = message.get("content") if "message" in first else first.get("text")
        finish = "length" if first.get("finish_reason") == "length" else "stop"
        tokens, top = _logprobs_of(first)
        return Completion(
            text=str(text or ""),
            finish="length" if finish == "length" else "stop",
            token_logprobs=tokens,
            top_logprobs=top,
            cost=self._cost(reply),
        )

    def _cost(self, reply: Reply) -> Cost:
        usage = reply.body.get("usage") or {}
        n_in, n_out = _whole(usage.get("prompt_tokens")), _whole(usage.get("completion_tokens"))
        prices = (self.endpoint.usd_per_million_input, self.endpoint.usd_per_million_output)
        price = None
        if None not in (*prices, n_in, n_out):
            price = ((n_in or 0) * (prices[0] or 0.0) + (n_out or 0) * (prices[1] or 0.0)) / 1e6
        return Cost(
            latency_s=reply.latency_s,
            wire_bytes=reply.wire_bytes,
            prompt_tokens=n_in,
            completion_tokens=n_out,
            price_usd=price,
            first_token_s=reply.first_token_s,
        )

    def _likelihood(self, asked: Continuation) -> Likelihood:
        body = {
            "model": self.endpoint.model,
            "prompt": asked.context + asked.text,
            "max_tokens": 1,
            "temperature": 0.0,
            "echo": True,
            "logprobs": 1,
            **self.endpoint.extra,
        }
        try:
            reply = self._asked("/completions", body)
        except Refused as refusal:
            self._check_fatal(refusal)
            raise Unsupported(f"{self.endpoint.url} does not score given texts: {refusal}") from refusal
        try:
            given = reply.body["choices"][0]["logprobs"]
            offsets, logprobs, tops = given["text_offset"], given["token_logprobs"], given["top_logprobs"]
            # The one token generated after the text is not asked for.
            rows = [
                i
                for i, o in enumerate(offsets)
                if len(asked.context) <= o < len(asked.context + asked.text)
            ]
            best = [max((tops[i] or {"": -1e9}).values()) for i in rows]
            total = sum(float(logprobs[i]) for i in rows)
        except (KeyError, IndexError, TypeError) as error:
            raise Unsupported(
                f"{self.endpoint.url} echoes a prompt without its log-probabilities."
            ) from error
        return Likelihood(
            logprob=total,
            n_tokens=len(rows),
            n_characters=len(asked.text),
            greedy=all(logprobs[i] >= top - 1e-6 for i, top in zip(rows, best, strict=True)),
        )


def _logprobs_of(choice: dict[str, Any]) -> tuple[tuple[float, ...] | None, dict[str, float] | None]:
    """Log-probabilities of the answer's tokens and of the likeliest first ones, in either API's shape."""
    given = choice.get("logprobs")
    if not isinstance(given, dict):
        return None, None
    content = given.get("content")
    if isinstance(content, list) and content:
        tokens = tuple(float(one["logprob"]) for one in content if one.get("logprob") is not None)
        top = content[0].get("top_logprobs") or []
        likely = {str(one["token"]): float(one["logprob"]) for one in top}
        return tokens or None, likely or None
    legacy = given.get("token_logprobs")
    if isinstance(legacy, list) and legacy:
        tops = given.get("top_logprobs") or [None]
        return tuple(float(x) for x in legacy if x is not None) or None, tops[0]
    return None, None


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _key(endpoint: Endpoint) -> str | None:
    if endpoint.api_key_env is None:
        return None
    key = os.environ.get(endpoint.api_key_env, "").strip()
    if not key:
        raise InvalidInput(
            f"environment variable {endpoint.api_key_env} must hold the key for {endpoint.url}, "
            "got nothing."
        )
    return key
