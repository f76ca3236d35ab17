"""Likelihoods of given texts from a server that gives its prompt back with log-probabilities.

vLLM does so in two shapes: `echo` with `logprobs`, as the older completions of OpenAI, and
`prompt_logprobs`, of its own.
"""

from typing import Any

import msgspec

from jettison.backends.endpoint_dialect import utf8
from jettison.errors import Unsupported
from jettison.language import Continuation, Likelihood


class ScoredToken(msgspec.Struct, frozen=True, kw_only=True):
    """One token of a prompt."""

    text: str
    logprob: float | None
    """None for the first, which follows nothing."""
    is_likeliest: bool


def likelihood_body(asked: Continuation, *, model: str, extra: dict[str, Any]) -> dict[str, Any]:
    """The request for the likelihood of one continuation."""
    return {
        "model": model,
        "prompt": utf8(asked.context + asked.text),
        "max_tokens": 1,
        "temperature": 0.0,
        "echo": True,
        "logprobs": 1,
        **extra,
    }


def read_likelihood(body: dict[str, Any], asked: Continuation) -> Likelihood:
    """The likelihood of a continuation out of the server's answer.

    Raises:
        Unsupported: The answer does not tell the prompt's log-probabilities.
    """
    try:
        tokens = _tokens(body)
        ending = _ending(tokens, utf8(asked.text))
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise Unsupported(
            "the endpoint does not give a prompt back with its log-probabilities. "
            "Use backend 'openai', which asks for answers alone."
        ) from error
    return Likelihood(
        logprob=sum(token.logprob for token in ending if token.logprob is not None),
        n_tokens=len(ending),
        n_characters=len(asked.text),
        greedy=all(token.is_likeliest for token in ending),
        n_context_tokens=len(tokens) - len(ending),
    )


def _tokens(body: dict[str, Any]) -> list[ScoredToken]:
    """The prompt's tokens, first one first."""
    choice = body["choices"][0]
    if choice.get("prompt_logprobs"):
        return [_own_shape(given) for given in choice["prompt_logprobs"]]
    given = choice["logprobs"]
    # One token is generated after the prompt, and is not asked for.
    n_made = int((body.get("usage") or {}).get("completion_tokens", 1))
    texts = given["tokens"][: len(given["tokens"]) - n_made]
    logprobs = given["token_logprobs"]
    tops = given.get("top_logprobs") or [None] * len(logprobs)
    return [
        ScoredToken(
            text=_spaced(text),
            logprob=None if logprob is None else float(logprob),
            is_likeliest=logprob is not None and bool(top) and float(logprob) >= max(top.values()) - 1e-6,
        )
        for text, logprob, top in zip(texts, logprobs, tops, strict=False)
    ]


def _own_shape(given: dict[str, dict[str, Any]] | None) -> ScoredToken:
    if not given:
        return ScoredToken(text="", logprob=None, is_likeliest=False)
    token = next(iter(given.values()))  # the prompt's own token comes first, likelier ones after it
    best = max(float(one["logprob"]) for one in given.values())
    logprob = float(token["logprob"])
    return ScoredToken(
        text=_spaced(token["decoded_token"]), logprob=logprob, is_likeliest=logprob >= best - 1e-6
    )


def _ending(tokens: list[ScoredToken], text: str) -> list[ScoredToken]:
    """The tokens that the continuation lies in, one that begins in the context with it.

    Found from the end, where special tokens that a server puts before a prompt do not count.
    """
    if not text:
        return []
    joined, first = "", len(tokens)
    while len(joined) < len(text):
        first -= 1
        if first < 0:
            raise ValueError("the tokens are fewer than the text")
        joined = tokens[first].text + joined
    if not joined.endswith(text):
        raise ValueError("the tokens do not spell the text")
    ending = tokens[first:]
    if any(token.logprob is None for token in ending):
        raise ValueError("a token of the text has no log-probability")
    return ending


def _spaced(token: str) -> str:
    """SentencePiece and byte-level pieces as text."""
    return token.replace("▁", " ").replace("Ġ", " ").replace("Ċ", "\n")
