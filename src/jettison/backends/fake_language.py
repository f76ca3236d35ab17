"""A language engine without weights: a fixed function of the text, for tests and for trying a set-up.

It finds a continuation likely whose words stand in the last lines of the context, and completes with
the likeliest of the choices, or with the last line's words. The same everywhere and always.
"""

import zlib
from collections.abc import Sequence

import numpy as np

from jettison.backends.prompted import PromptedModel, open_prompted
from jettison.candidate import Candidate
from jettison.errors import Unsupported
from jettison.language import Ask, Completion, Continuation, Likelihood
from jettison.record import Cost
from jettison.task.prompt import Message

REFUSAL = "I'm sorry, but I can't help with that."


class FakeLanguage:
    """Settings: `likelihoods` (True), `skill` (share of contexts it reads rightly, 1), `refuses` (what)."""

    def __init__(
        self, *, likelihoods: bool = True, skill: float = 1.0, refuses: Sequence[str] = ()
    ) -> None:
        self._refuses = tuple(refuses)
        self._likelihoods = likelihoods
        self._skill = skill
        self.n_asked = 0

    def complete(self, asks: Sequence[Ask]) -> list[Completion]:
        """The likeliest choice, or the last line of what was asked."""
        return [self._complete(ask) for ask in asks]

    def likelihoods(self, asked: Sequence[Continuation]) -> list[Likelihood]:
        """High where the continuation's words stand near the end of the context."""
        if not self._likelihoods:
            raise Unsupported("the fake engine was told to say no likelihoods.")
        self.n_asked += len(asked)
        return [
            Likelihood(
                logprob=self._logprob(one.context, one.text),
                n_tokens=max(1, len(one.text.split())),
                n_characters=len(one.text),
                greedy=False,
            )
            for one in asked
        ]

    def render(self, messages: Sequence[Message], *, answer_prefix: str = "") -> str:
        """Roles and contents, a line each."""
        lines = [f"{message.role}: {message.content}" for message in messages]
        return "\n".join([*lines, f"assistant: {answer_prefix}"])

    def logits(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Not to be had.

        Raises:
            Unsupported: Always.
        """
        raise Unsupported("the fake engine has no vocabulary.")

    def close(self) -> None:
        """Nothing to give back."""

    def _complete(self, ask: Ask) -> Completion:
        self.n_asked += 1
        context = ask.text if ask.text is not None else self.render(ask.messages)
        if ask.choices:
            scores = [self._logprob(context, choice) for choice in ask.choices]
            best = int(np.argmax(scores))
            shares = np.exp(np.array(scores) - np.max(scores))
            text, logprob = ask.choices[best], float(np.log(shares[best] / shares.sum()))
        elif any(asked in context for asked in self._refuses):
            text, logprob = REFUSAL, -0.5
        else:
            last = context.strip().splitlines()[-1] if context.strip() else ""
            if not last.removeprefix("assistant:").strip():
                last = context.strip().splitlines()[-2] if context.count("\n") else ""
            text, logprob = " ".join(last.split()[-ask.max_tokens :]), -0.5
        text = text[: min((text.find(stop) for stop in ask.stop if stop in text), default=len(text))]
        tokens = len(text.split())
        cost = Cost(prompt_tokens=len(context.split()), completion_tokens=tokens)
        return Completion(text=text, token_logprobs=(logprob,), cost=cost)

    def _logprob(self, context: str, text: str) -> float:
        noise = zlib.crc32(f"{context}\0{text}".encode("utf-8", "surrogatepass")) / 2**32
        asked = context[-400:].casefold().rsplit("text:", 1)[-1]
        hit = text.casefold().strip() in asked
        seen = zlib.crc32(asked.encode("utf-8", "surrogatepass")) / 2**32 < self._skill
        return -1.0 - noise - (0.0 if hit and seen else 4.0)


def open_fake_language(candidate: Candidate) -> PromptedModel:
    """Open the engine behind the candidate's prompt."""
    engine = FakeLanguage(
        likelihoods=bool(candidate.settings.get("likelihoods", True)),
        skill=float(candidate.settings.get("skill", 1.0)),
        refuses=tuple(candidate.settings.get("refuses", ())),
    )
    return open_prompted(engine, candidate)
