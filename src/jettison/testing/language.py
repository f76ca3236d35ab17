"""What every engine for language models must hold: `check_language_model(engine)`."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from jettison.errors import Unsupported
from jettison.language import Ask, Completion, Continuation, LanguageModel, Likelihood
from jettison.task.prompt import Message
from jettison.testing.backend import AWKWARD_TEXTS

CONTEXTS = (
    "Label each message.\n\nMessage: play a song\nLabel: music\n\nMessage: wake me up\nLabel:",
    "Label each message.\n\nMessage: play a song\nLabel: music\n\nMessage: will it rain\nLabel:",
    "Label each message.\n\nMessage: it ends in a space\nLabel: ",
    "short",
    "",
)
ENDINGS = (" alarm", " weather forecast", " music", ".")
N_TOKENS = 6


def check_language_model(
    engine: LanguageModel,
    texts: Sequence[str] = (),
    *,
    tolerance: float = 1e-3,
    consistent: bool = True,
) -> None:
    """Check that an engine keeps the promises of `jettison.language.LanguageModel`, then close it.

    Args:
        engine: Open.
        texts: More contexts to ask about, from what the model is for.
        tolerance: How far a log-probability may lie apart alone and in a batch, as a share of its
            size (or of 1). Give more for a model that computes in few bits.
        consistent: Check that the likelihood of what the engine wrote is what it said when it wrote
            it. Not so for an engine that is no model.

    Raises:
        AssertionError: A promise is broken; the message says which.
    """
    contexts = [*CONTEXTS, *texts]
    try:
        _hold(isinstance(engine, LanguageModel), "an engine must have all methods of LanguageModel")
        _hold(engine.complete([]) == [], "no requests must give no completions")
        _check_completions(engine, contexts)
        _check_seeds(engine)
        _check_likelihoods(engine, contexts, tolerance)
        if consistent:
            _check_consistent(engine, contexts, tolerance)
        _check_logits(engine, contexts)
        _check_template(engine)
    finally:
        engine.close()
    engine.close()  # a second time, which must do nothing


def _check_completions(engine: LanguageModel, contexts: Sequence[str]) -> None:
    asks = [Ask(text=text, max_tokens=N_TOKENS) for text in (*contexts, *AWKWARD_TEXTS)]
    together = engine.complete(asks)
    _hold(len(together) == len(asks), f"{len(asks)} requests must give as many, got {len(together)}")
    turned = engine.complete(asks[::-1])[::-1]
    for ask, one, other in zip(asks, together, turned, strict=True):
        at = f"on {str(ask.text)[:40]!r}"
        _hold(one.error is None, f"every text must get a completion, got error {one.error!r} {at}")
        _hold(one.text == other.text, f"greedy answers must not depend on the order {at}")
        _check_counts(one, at)
    for ask, one in zip(asks[:4], together, strict=False):
        [alone] = engine.complete([ask])
        at = f"on {str(ask.text)[:40]!r}"
        _hold(alone.text == one.text, f"greedy answers must be the same alone and in a batch {at}")
        if len(one.text) > 1:
            stop = one.text[1:3]
            [cut] = engine.complete([Ask(text=ask.text, max_tokens=N_TOKENS, stop=(stop,))])
            _hold(stop not in cut.text, f"an answer must end before its stop string {stop!r} {at}")


def _check_counts(one: Completion, at: str) -> None:
    n = one.cost.completion_tokens
    _hold(n is None or 0 <= n <= N_TOKENS, f"an answer must keep to max_tokens, got {n} tokens {at}")
    for logprob in one.token_logprobs or ():
        _hold(logprob <= 1e-6, f"a log-probability must be at most 0, got {logprob} {at}")


def _check_seeds(engine: LanguageModel) -> None:
    asks = [Ask(text=CONTEXTS[0], max_tokens=N_TOKENS, temperature=1.0, seed=seed) for seed in (1, 2, 1)]
    one, _, same = engine.complete(asks)
    [alone] = engine.complete(asks[:1])
    _hold(one.text == same.text == alone.text, "sampling must repeat with its seed, whatever else is asked")


def _check_likelihoods(engine: LanguageModel, contexts: Sequence[str], tolerance: float) -> None:
    asked = [Continuation(context=context, text=text) for context in contexts for text in ENDINGS]
    found = _able(lambda: engine.likelihoods(asked))
    if found is None:
        return
    _hold(engine.likelihoods([]) == [], "no requests must give no likelihoods")
    _hold(len(found) == len(asked), f"{len(asked)} requests must give as many, got {len(found)}")
    turned = engine.likelihoods(asked[::-1])[::-1]
    for number, (request, one, other) in enumerate(zip(asked, found, turned, strict=True)):
        at = f"of {request.text!r} after {request.context[-20:]!r}"
        _hold(np.isfinite(one.logprob) and one.logprob <= 0, f"a log-probability must be <= 0 {at}")
        _hold(one.n_tokens >= 1, f"a continuation must have a token, got {one.n_tokens} {at}")
        _hold(one.n_characters == len(request.text), f"n_characters must be the text's {at}")
        _hold_close(one, other, tolerance, f"whatever the order {at}")
        if number % len(ENDINGS) == 0:
            _hold_close(one, engine.likelihoods([request])[0], tolerance, f"alone and in a batch {at}")


def _check_consistent(engine: LanguageModel, contexts: Sequence[str], tolerance: float) -> None:
    """The first token that greedy decoding takes is greedy, and as likely as was said."""
    asked = [context for context in contexts if context and context == context.strip()]
    answers = engine.complete([Ask(text=context, max_tokens=1) for context in asked])
    told = [
        (Continuation(context=context, text=answer.text), answer.token_logprobs[0])
        for context, answer in zip(asked, answers, strict=True)
        if answer.text and answer.token_logprobs
    ]
    requests = [request for request, _ in told]
    found = _able(lambda: engine.likelihoods(requests))
    if found is None or not told:
        return
    # Read again, a text may be cut into other tokens than it was written in.
    single = [(*pair, one) for pair, one in zip(told, found, strict=True) if one.n_tokens == 1]
    _hold(single, "at least one answer of one token must be read as one token; give more texts")
    for request, logprob, one in single:
        apart = abs(one.logprob - logprob)
        _hold(
            one.greedy and apart <= tolerance * max(1.0, abs(one.logprob)),
            f"the token taken must be greedy and as likely as was said, got {apart:.2g} apart "
            f"after {request.context[-20:]!r}",
        )


def _check_logits(engine: LanguageModel, contexts: Sequence[str]) -> None:
    texts = [context for context in contexts if context]
    found = _able(lambda: engine.logits(texts))
    if found is None:
        return
    _hold(len(found) == len(texts), f"{len(texts)} texts must give as many arrays, got {len(found)}")
    for text, rows in zip(texts, found, strict=True):
        _hold(rows.ndim == 2 and rows.dtype == np.float32, f"logits must be 2-D float32 of {text[:20]!r}")
        sums = np.exp(rows.astype(np.float64)).sum(1)
        _hold(bool(np.allclose(sums, 1.0, atol=1e-3)), f"probabilities must add up to 1 of {text[:20]!r}")


def _check_template(engine: LanguageModel) -> None:
    messages = (Message(role="system", content="Be brief."), Message(role="user", content="what is it"))
    rendered = _able(lambda: engine.render(messages, answer_prefix="It is"))
    if rendered is not None:
        _hold("what is it" in rendered, "a rendered chat must hold what was asked")
        _hold(rendered.endswith("It is"), "a rendered chat must end with the answer's prefix")


def _able(ask: Callable[[], Any]) -> Any:
    """What comes back; None where the engine says it has no such ability."""
    try:
        return ask()
    except Unsupported:
        return None


def _hold_close(one: Likelihood, other: Likelihood, tolerance: float, when: str) -> None:
    apart, allowed = abs(one.logprob - other.logprob), tolerance * max(1.0, abs(one.logprob))
    _hold(apart <= allowed, f"log-probabilities must agree within {allowed:.2g} {when}, got {apart:.2g}")


def _hold(rule: Any, message: str) -> None:
    if not rule:
        raise AssertionError(message)
