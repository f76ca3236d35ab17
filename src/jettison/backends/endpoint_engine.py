"""The engine behind an endpoint: asks in parallel, pays once, never blames the model for the network."""

import contextlib
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from threading import Lock
from typing import Any, TypeVar

import msgspec
import numpy as np

from jettison.backends.answer_cache import AnswerCache, answer_key, answers_folder
from jettison.backends.endpoint_dialect import Dialect, chat_body, text_body
from jettison.backends.endpoint_http import Timeouts
from jettison.backends.endpoint_likelihood import likelihood_body, read_likelihood
from jettison.backends.endpoint_pace import Clock, Pace, SystemClock
from jettison.backends.endpoint_reply import check_choice, read_completion, read_cost
from jettison.backends.endpoint_settings import Endpoint, key_of
from jettison.backends.transport import Patience, Refused, Reply, Transport
from jettison.errors import Unanswered, Unsupported, WrongEndpoint
from jettison.language import Ask, Completion, Continuation, Likelihood
from jettison.record import Cost
from jettison.task.prompt import Message

T = TypeVar("T")
U = TypeVar("U")
CHARACTERS_A_TOKEN = 4
"""Rough, for the rate limit alone."""
EVERYBODYS = (401, 402, 403, 404)
"""Refusals that every other request would get too: of the key, the account or the model's name."""
MOST_REFUSED_AT_FIRST = 5
"""So many refusals before a first answer mean that a setting is wrong."""
OF_THE_INPUT = ("content_filter", "content_policy", "context_length")
"""Codes of refusals that are about one input, not about the settings."""


class EndpointEngine:
    """A language model behind an OpenAI-compatible address.

    Args:
        endpoint: Where, at what price, how fast.
        is_vllm: Whether it has vLLM's extras: likelihoods of given texts, begun answers, choices.
        clock: For waiting between tries.
    """

    def __init__(self, endpoint: Endpoint, *, is_vllm: bool = False, clock: Clock | None = None) -> None:
        self.endpoint = endpoint
        self._is_vllm = is_vllm
        clock = clock or SystemClock()
        self._transport = Transport(
            endpoint.url,
            key=key_of(endpoint),
            timeouts=Timeouts(
                connect_s=endpoint.connect_s,
                first_byte_s=endpoint.first_byte_s,
                total_s=endpoint.total_s,
            ),
            patience=Patience(
                max_retries=endpoint.max_retries,
                retry_share=endpoint.retry_share,
                wait_s=endpoint.wait_s,
            ),
            pace=Pace(
                requests_per_minute=endpoint.requests_per_minute,
                tokens_per_minute=endpoint.tokens_per_minute,
                clock=clock,
            ),
            clock=clock,
        )
        folder = Path(endpoint.answers) if endpoint.answers else answers_folder()
        self._cache = AnswerCache(folder) if endpoint.keep_answers else None
        self._pool = ThreadPoolExecutor(endpoint.concurrency, "endpoint")
        self._dialect = Dialect()
        self._lock = Lock()
        self._has_answered = False
        self._n_refused = 0
        self._is_checked = not is_vllm
        self._takes_text = True

    def complete(self, asks: Sequence[Ask]) -> list[Completion]:
        """Answers in the requests' order; one that was lost on the way is marked `unanswered`.

        Raises:
            WrongEndpoint: The key, the account, the model's name or a setting is wrong.
        """
        found = self._each(self._complete, asks)
        return [
            Completion(text="", finish="error", error=str(one), unanswered=True)
            if isinstance(one, Unanswered)
            else one
            for one in found
        ]

    def likelihoods(self, asked: Sequence[Continuation]) -> list[Likelihood]:
        """Likelihoods of given texts, from a server that gives a prompt back with its log-probabilities.

        Raises:
            Unsupported: The server cannot.
            Unanswered: Some requests got no answer; those that did are kept.
            WrongEndpoint: As of `complete`.
        """
        if not self._is_vllm:
            raise Unsupported("an OpenAI-compatible endpoint gives no likelihood of a given text.")
        found = self._each(self._likelihood, asked)
        lost = [one for one in found if isinstance(one, Unanswered)]
        if lost:
            raise Unanswered(
                f"{len(lost)} of {len(found)} requests were not answered: {lost[0]} "
                "The answers that came are kept; run it again to ask for the rest."
            )
        return [one for one in found if not isinstance(one, Unanswered)]

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

    def models(self) -> tuple[str, ...]:
        """Names of the models that the server says it has.

        Raises:
            Unanswered: It did not answer.
            Unsupported: It does not say.
        """
        try:
            listed = self._transport.get("/models").get("data")
        except Refused as refusal:
            raise Unsupported(f"{self.endpoint.url} does not list its models: {refusal}") from refusal
        rows = listed if isinstance(listed, list) else []
        return tuple(str(row["id"])[:200] for row in rows if isinstance(row, dict) and "id" in row)

    def close(self) -> None:
        """Close connections, threads and the file of answers. May be called twice."""
        self._transport.close()
        self._pool.shutdown(wait=False, cancel_futures=True)
        if self._cache is not None:
            self._cache.close()

    def _each(self, work: Callable[[T], U], items: Sequence[T]) -> list[U | Unanswered]:
        """Do it for every item, at most `concurrency` at once; a wrong setting ends it at once."""
        failures: list[Exception] = []

        def unless_ended(item: T) -> U:
            # Asked here, not by whoever waits for the answers: by then the next request would be out.
            if failures:
                raise failures[0]
            try:
                return work(item)
            except Unanswered:
                raise
            except Exception as error:  # whatever it is, it ends the others too
                failures.append(error)
                raise

        futures: list[Future[U]] = [self._pool.submit(unless_ended, item) for item in items]
        found: list[U | Unanswered] = []
        try:
            for future in futures:
                try:
                    found.append(future.result())
                except Unanswered as error:
                    found.append(error)
        except WrongEndpoint:
            # Answers on their way are paid for: they are waited for and kept, and nothing else is asked.
            self._transport.end()
            for future in futures:
                future.cancel()
            wait(futures)
            raise
        finally:
            for future in futures:
                future.cancel()
        return found

    def _complete(self, ask: Ask) -> Completion:
        endpoint = self.endpoint
        sample = ask.seed if ask.temperature else 0
        shape: dict[str, Any] = {
            "model": endpoint.model,
            "extra": endpoint.extra,
            "top_logprobs": endpoint.top_logprobs,
            "stream": endpoint.stream,
            "choice_field": endpoint.choices or ("structured_outputs" if self._is_vllm else None),
        }
        try:
            reply = None
            if ask.text is not None and self._takes_text:
                reply = self._text_reply(ask, text_body(ask, **shape), sample)
            if reply is None:
                body = chat_body(ask, **shape, continues=self._is_vllm)
                reply = self._asked("/chat/completions", body, sample)
        except Refused as refusal:
            self._check_refusal(refusal)
            return Completion(text="", finish="error", error=str(refusal))
        return read_completion(reply, ask, self._cost(reply))

    def _text_reply(self, ask: Ask, body: dict[str, Any], sample: int) -> Reply | None:
        """Completion of plain text; None from a server that has only chats."""
        try:
            return self._asked("/completions", body, sample)
        except Refused as refusal:
            if refusal.status not in (404, 405, 501):
                raise
            if not self._has_model():
                raise
            self._takes_text = False
            return None

    def _likelihood(self, asked: Continuation) -> Likelihood:
        body = likelihood_body(asked, model=self.endpoint.model, extra=self.endpoint.extra)
        try:
            reply = self._asked("/completions", body)
        except Refused as refusal:
            self._check_refusal(refusal)
            raise Unsupported(f"{self.endpoint.url} does not score given texts: {refusal}") from refusal
        return read_likelihood(reply.body, asked)

    def _asked(self, path: str, body: dict[str, Any], sample: int = 0) -> Reply:
        """The answer that is kept, or else the server's, which is then kept."""
        if self._cache is None:
            return self._sent(path, body)
        endpoint = self.endpoint
        key = answer_key(endpoint.model, endpoint.revision or endpoint.url, path, body, sample)
        kept = self._cache.get_or_ask(key, lambda: msgspec.to_builtins(self._sent(path, body)))
        self._has_answered = True
        try:
            return msgspec.convert(kept, Reply)
        except msgspec.ValidationError:  # of another version, or damaged
            reply = self._sent(path, body)
            self._cache.put(key, msgspec.to_builtins(reply))
            return reply

    def _sent(self, path: str, body: dict[str, Any]) -> Reply:
        """The server's answer, asked in the fields that it takes."""
        self._check_served()
        said = str(body.get("messages") or body.get("prompt"))
        n_tokens = len(said) // CHARACTERS_A_TOKEN + int(body.get("max_tokens", 0))
        while True:
            sent = self._dialect.said(body)
            try:
                reply = self._transport.post(path, sent, check=check_choice, n_tokens=n_tokens)
            except Refused as refusal:
                learned = refusal.status in (400, 422) and self._dialect.learn(str(refusal), sent)
                if not learned:
                    raise
            else:
                self._has_answered = True
                return reply

    def _check_served(self) -> None:
        """Ask once whether a vLLM server has the model at all."""
        with self._lock:
            if self._is_checked:
                return
            names: Sequence[str] = ()
            with contextlib.suppress(Unsupported, Unanswered):  # the request itself will tell
                names = self.models()
            if names and self.endpoint.model not in names:
                raise self._no_such_model(names)
            self._is_checked = True

    def _has_model(self) -> bool:
        try:
            return self.endpoint.model in self.models()
        except (Unsupported, Unanswered):
            return False

    def _check_refusal(self, refusal: Refused) -> None:
        """Say at once what every other request would run into as well.

        Raises:
            WrongEndpoint: It is of that kind.
        """
        endpoint = self.endpoint
        if refusal.status == 404:
            try:
                names = self.models()
            except (Unsupported, Unanswered):
                names = ()
            raise self._no_such_model(names, str(refusal)) from refusal
        if refusal.status == 402:
            raise WrongEndpoint(
                f"the account behind {endpoint.url} must have credit, got {refusal}. The answers that came "
                "are kept; run it again once it has."
            ) from refusal
        if refusal.status in EVERYBODYS:
            named = endpoint.api_key_env or "none; set `api_key_env`"
            raise WrongEndpoint(
                f"{endpoint.url} must accept the key (environment variable {named}), got {refusal}."
            ) from refusal
        if refusal.code.startswith(OF_THE_INPUT):
            return
        with self._lock:
            self._n_refused += 1
            hopeless = not self._has_answered and self._n_refused >= MOST_REFUSED_AT_FIRST
        if hopeless:
            raise WrongEndpoint(
                f"{endpoint.url} must take the requests, got {self._n_refused} refusals and no answer: "
                f"{refusal}. Check the fields of [endpoint]."
            ) from refusal

    def _no_such_model(self, names: Sequence[str], reason: str = "") -> WrongEndpoint:
        endpoint = self.endpoint
        got = f", got {reason}" if reason else ""
        has = f" It has {list(names[:10])}." if names else " Check the address and the name."
        return WrongEndpoint(f"{endpoint.url} must have the model {endpoint.model!r}{got}.{has}")

    def _cost(self, reply: Reply) -> Cost:
        endpoint = self.endpoint
        return read_cost(
            reply,
            usd_per_million_input=endpoint.usd_per_million_input,
            usd_per_million_output=endpoint.usd_per_million_output,
            usd_per_million_cached=endpoint.usd_per_million_cached,
        )
