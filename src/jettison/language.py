"""What an engine for language models must be: completions, likelihoods, and nothing of tasks.

Backends wrap an engine in `jettison.backends.prompted.PromptedModel`, which asks it the task's
prompt and turns what comes back into outputs: so every engine serves every kind of task.
"""

from collections.abc import Sequence
from typing import Any, Literal, Protocol, runtime_checkable

import msgspec
import numpy as np

from jettison.record import Cost
from jettison.task.prompt import Message


class Ask(msgspec.Struct, frozen=True, kw_only=True):
    """One request for a completion. Greedy unless `temperature` is above zero."""

    messages: tuple[Message, ...] = ()
    """A chat, put through the model's own template; or else `text`."""
    text: str | None = None
    """Plain text to go on from."""
    answer_prefix: str = ""
    """Put at the start of the assistant's turn, where the engine can."""
    max_tokens: int = 64
    stop: tuple[str, ...] = ()
    temperature: float = 0.0
    seed: int = 0
    json_schema: dict[str, Any] | None = None
    """The answer must be JSON of this schema, where the engine can hold it to one."""
    choices: tuple[str, ...] = ()
    """The answer must be one of these strings, where the engine can hold it to them."""


class Completion(msgspec.Struct, frozen=True, kw_only=True):
    """What an engine made of one request."""

    text: str
    finish: Literal["stop", "length", "error"] = "stop"
    token_logprobs: tuple[float, ...] | None = None
    """Natural log of the probability of each token taken; None where the engine does not say."""
    top_logprobs: dict[str, float] | None = None
    """Likeliest first tokens as text with their log-probability, where the engine says."""
    cost: Cost = msgspec.field(default_factory=Cost)
    error: str | None = None
    unanswered: bool = False
    """The answer was lost on the way: a fault of the network or the server, not the model's."""


class Continuation(msgspec.Struct, frozen=True, kw_only=True):
    """A text whose likelihood is asked, after a context."""

    context: str
    """Already rendered: plain text, or a chat put through the model's template."""
    text: str


class Likelihood(msgspec.Struct, frozen=True, kw_only=True):
    """How likely an engine finds a continuation."""

    logprob: float
    """Sum over the continuation's tokens, natural log."""
    n_tokens: int
    n_characters: int
    greedy: bool
    """Whether each token is the one that greedy decoding would take."""
    n_context_tokens: int | None = None
    """Tokens of the context; None where the engine does not say."""


@runtime_checkable
class LanguageModel(Protocol):
    """An engine. Answers come in the requests' order; an engine sorts and batches as it likes."""

    def complete(self, asks: Sequence[Ask]) -> list[Completion]:
        """One completion per request; a request that fails gets one with `error`."""

    def likelihoods(self, asked: Sequence[Continuation]) -> list[Likelihood]:
        """Likelihood of each continuation; requests that share a context share its computation.

        Raises:
            Unsupported: The engine cannot say.
        """

    def render(self, messages: Sequence[Message], *, answer_prefix: str = "") -> str:
        """A chat as the text the model sees, ending where the assistant's answer begins.

        Raises:
            Unsupported: The model has no chat template, or the engine does not show it.
        """

    def logits(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Log-probabilities of every next token, shape (n_tokens - 1, n_vocabulary), float32, a text each.

        Raises:
            Unsupported: The engine cannot say.
        """

    def close(self) -> None:
        """Give back memory, threads and files. May be called twice."""
