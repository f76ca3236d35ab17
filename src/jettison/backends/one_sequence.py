"""Language models whose runtime keeps one cache of keys and values: what all of them do alike.

A request winds the cache back to what it shares with the one before, so that requests with a common
beginning compute it once.
"""

import time
from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np

from jettison.backends.language_tokens import LanguageTokens, apply_template
from jettison.errors import Unsupported
from jettison.language import Ask, Completion, Continuation, Likelihood
from jettison.record import Cost
from jettison.task.prompt import Message


class OneSequence(ABC):
    """Answers one request after another, by what its runtime says of the next token."""

    def __init__(
        self, tokenizer: Any, *, add_bos: bool | None, max_context: int, ends: Collection[int]
    ) -> None:
        self._tokenizer = tokenizer
        self._tokens = LanguageTokens(tokenizer, add_bos=add_bos, max_context=max_context)
        self._max_context = max_context
        self._ends = set(ends)
        self._held: list[int] = []
        """Tokens whose keys and values are kept."""

    def complete(self, asks: Sequence[Ask]) -> list[Completion]:
        """Greedy or sampled completions, one after another."""
        return [self._complete(ask) for ask in asks]

    def likelihoods(self, asked: Sequence[Continuation]) -> list[Likelihood]:
        """Likelihood of each continuation; in the order of their tokens, so that beginnings are shared."""
        pairs = self._tokens.pairs(asked)
        found: dict[int, Likelihood] = {}
        for row in sorted(range(len(asked)), key=lambda i: pairs[i]):
            context, ending = pairs[row]
            total, greedy = 0.0, True
            for place, token in enumerate(ending):
                logprobs = self._next([*context, *ending[:place]])
                total += float(logprobs[token])
                greedy = greedy and int(logprobs.argmax()) == token
            found[row] = Likelihood(
                logprob=total, n_tokens=len(ending), n_characters=len(asked[row].text), greedy=greedy
            )
        return [found[row] for row in range(len(asked))]

    def render(self, messages: Sequence[Message], *, answer_prefix: str = "") -> str:
        """The chat by the model's own template, up to where the assistant answers.

        Raises:
            Unsupported: The tokenizer has no chat template.
        """
        if not getattr(self._tokenizer, "chat_template", None):
            raise Unsupported("the model has no chat template.")
        return apply_template(self._tokenizer, messages) + answer_prefix

    def logits(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Log-probabilities of every next token, shape (n_tokens - 1, n_vocabulary), float32."""
        return [self._whole(ids[: self._max_context]) for ids in self._tokens.encode(texts)]

    def token_ids(self, text: str) -> list[int]:
        """Ids of a text as `logits` reads it."""
        return self._tokens.encode([text])[0][: self._max_context]

    @abstractmethod
    def close(self) -> None:
        """Drop the weights."""

    @abstractmethod
    def _extended(self, n_shared: int, ids: Sequence[int]) -> np.ndarray:
        """Wind the cache back to so many tokens, read others, and say the logits after the last of them.

        Returns:
            Shape (n_vocabulary,), float64.
        """

    @abstractmethod
    def _whole(self, ids: Sequence[int]) -> np.ndarray:
        """Log-probabilities after each token but the last, shape (n_tokens - 1, n_vocabulary), float32."""

    def _next(self, ids: Sequence[int]) -> np.ndarray:
        """Log-probabilities of the token after these, shape (n_vocabulary,), float64."""
        shared = 0
        # The last token is always run again: its logits are what is asked for.
        while shared < min(len(self._held), len(ids) - 1) and self._held[shared] == ids[shared]:
            shared += 1
        logits = self._extended(shared, ids[shared:])
        self._held = list(ids)
        return log_softmax(logits)

    def _complete(self, ask: Ask) -> Completion:
        started, cpu_from = time.perf_counter(), time.process_time()
        text = ask.text
        if text is None:
            text = self.render(ask.messages, answer_prefix=ask.answer_prefix)
        room = max(1, self._max_context - ask.max_tokens)
        prompt = self._tokens.encode([text])[0][-room:] or [self._tokens.start]
        rng = np.random.default_rng(ask.seed)
        ids: list[int] = []
        taken: list[float] = []
        said, finish, first_token_s = "", "length", None
        while len(ids) < ask.max_tokens and len(prompt) + len(ids) < self._max_context:
            logprobs = self._next([*prompt, *ids])
            token = _draw(logprobs, ask.temperature, rng)
            taken.append(float(logprobs[token]))
            first_token_s = first_token_s or time.perf_counter() - started
            if token in self._ends:
                finish = "stop"
                break
            ids.append(token)
            said = str(self._tokenizer.decode(ids, skip_special_tokens=True))
            cuts = [said.find(stop) for stop in ask.stop if stop and stop in said]
            if cuts:
                said, finish = said[: min(cuts)], "stop"
                break
        return Completion(
            text=said,
            finish="stop" if finish == "stop" else "length",
            token_logprobs=tuple(taken),
            cost=Cost(
                prompt_tokens=len(prompt),
                completion_tokens=len(ids),
                latency_s=time.perf_counter() - started,
                cpu_s=time.process_time() - cpu_from,
                first_token_s=first_token_s,
            ),
        )


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Log-probabilities along the last axis."""
    top = logits.max(axis=-1, keepdims=True)
    shifted: np.ndarray = logits - top
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True)))


def _draw(logprobs: np.ndarray, temperature: float, rng: np.random.Generator) -> int:
    """The likeliest token, or above temperature 0 one drawn by the Gumbel-max trick."""
    if temperature <= 0:
        return int(logprobs.argmax())
    return int((logprobs / temperature + rng.gumbel(size=logprobs.shape)).argmax())
