"""How near a lean language model stays to the incumbent on texts, without any label.

Both read the same texts. Token by token: how far apart their probabilities of the next token are,
whether the likeliest is the same, and how surprised each is by what came. Intervals leave out one text
after another, because tokens of one text depend on each other.
"""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from jettison.backends.open import open_model
from jettison.candidate import Candidate
from jettison.errors import InvalidInput, NotEnoughData
from jettison.language import Continuation, LanguageModel
from jettison.stats.group_jackknife import jackknife_mean
from jettison.stats.interval import Interval

MOST_NATS = 700.0
ROWS = 64
"""Tokens compared at once; a vocabulary in float64 is large."""


@dataclass(frozen=True, kw_only=True)
class Fidelity:
    """A candidate beside the incumbent, over all tokens of the texts."""

    kl: Interval
    """Mean Kullback-Leibler divergence from the incumbent's next-token probabilities, nats a token."""
    top_1_agreement: Interval
    """Share of tokens, in 0-1, before which both find the same token likeliest."""
    perplexity: Interval
    """Of the candidate: e to the mean negative log-probability of the tokens that came."""
    perplexity_incumbent: Interval
    perplexity_ratio: Interval
    """Candidate over incumbent, text by text; 1 is equal, more is worse."""
    n_texts: int
    n_tokens: int
    """Next tokens compared."""


def measure_fidelity(
    candidate: Candidate,
    incumbent: Candidate,
    texts: Sequence[str],
    *,
    confidence: float = 0.95,
) -> Fidelity:
    """Compare two language models, both opened as they are served.

    Args:
        candidate: The lean one.
        incumbent: What it is held against; the same tokenizer and vocabulary.
        texts: At least two of more than one token; longer than the models can read, they are cut.
        confidence: Coverage of the intervals, in (0, 1).

    Raises:
        InvalidInput: One is no language model, or the two do not read the same tokens.
        NotEnoughData: Fewer than two texts have a next token to compare.
        Unsupported: An engine says no probabilities.
    """
    lean = open_model(candidate)
    try:
        whole = open_model(incumbent)
        try:
            return compare_engines(
                _engine(lean, candidate), _engine(whole, incumbent), texts, confidence=confidence
            )
        finally:
            whole.close()
    finally:
        lean.close()


def compare_engines(
    candidate: LanguageModel,
    incumbent: LanguageModel,
    texts: Sequence[str],
    *,
    confidence: float = 0.95,
) -> Fidelity:
    """The same for two engines that are open."""
    rows = [row for text in texts if (row := _compared(candidate, incumbent, text))[0]]
    if len(rows) < 2:
        raise NotEnoughData(f"fidelity needs at least 2 texts of more than one token, got {len(rows)}.")
    n_next, kl, same, n_read, lean, whole = np.array(rows, np.float64).T

    def by_token(sums: np.ndarray, n: np.ndarray, low: float, high: float) -> Interval:
        found = jackknife_mean(sums / n, n, np.arange(len(n)), confidence=confidence)
        return dataclasses.replace(found, low=max(low, found.low), high=min(high, found.high))

    def perplexity(logprobs: np.ndarray) -> Interval:
        found = by_token(-logprobs, n_read, -math.inf, math.inf)
        # Of few texts the upper end may be beyond all numbers.
        value, low, high = (math.exp(min(end, MOST_NATS)) for end in (found.value, found.low, found.high))
        return dataclasses.replace(found, value=value, low=low, high=high)

    return Fidelity(
        kl=by_token(kl, n_next, 0.0, math.inf),
        top_1_agreement=by_token(same, n_next, 0.0, 1.0),
        perplexity=perplexity(lean),
        perplexity_incumbent=perplexity(whole),
        perplexity_ratio=perplexity(lean - whole),
        n_texts=len(rows),
        n_tokens=int(n_next.sum()),
    )


def _compared(candidate: LanguageModel, incumbent: LanguageModel, text: str) -> tuple[float, ...]:
    """Of one text: next tokens, sum of KL, of agreements; tokens read, log-probability by each."""
    [q], [p] = candidate.logits([text]), incumbent.logits([text])
    if p.shape != q.shape:
        raise InvalidInput(
            f"candidate and incumbent must read the same tokens of one vocabulary, got {q.shape} and "
            f"{p.shape} next-token probabilities of {text[:40]!r}."
        )
    if not len(p):
        return (0,)
    kl = sum(_kl(p[start : start + ROWS], q[start : start + ROWS]) for start in range(0, len(p), ROWS))
    if not math.isfinite(kl):
        raise InvalidInput(f"probabilities must be above 0, got 0 or nan in {text[:40]!r}.")
    same = int((p.argmax(1) == q.argmax(1)).sum())
    asked = [Continuation(context="", text=text)]
    [lean], [whole] = candidate.likelihoods(asked), incumbent.likelihoods(asked)
    return len(p), kl, same, whole.n_tokens, lean.logprob, whole.logprob


def _kl(p: np.ndarray, q: np.ndarray) -> float:
    """Sum over rows of the divergence between log-probabilities, both shape (n, n_vocabulary)."""
    before = p.astype(np.float64)
    share = np.exp(before)
    # What the incumbent rules out counts for nothing, whatever the candidate says of it.
    return float(np.where(share > 0, share * (before - q), 0.0).sum())


def _engine(model: Any, candidate: Candidate) -> LanguageModel:
    engine = getattr(model, "engine", None)
    if not isinstance(engine, LanguageModel):
        raise InvalidInput(
            "fidelity token by token needs a language model, got a candidate of backend "
            f"{candidate.backend!r}."
        )
    return engine
