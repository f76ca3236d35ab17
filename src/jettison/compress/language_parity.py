"""How far a converted language model's next tokens are from the checkpoint's, on some of dev's prompts."""

from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np

from jettison.backends.causal import CausalEngine
from jettison.candidate import Candidate
from jettison.compress.answer_rows import PromptTokens
from jettison.compress.checkpoint import torch_run
from jettison.compress.step import StepContext
from jettison.errors import ParityFailed, StepFailed

FAULTS = {"float32": 0.01, "int8": 1.0, "int4": 3.0}
"""Mean divergence of the next token from the checkpoint's, in nats, that no rounding explains."""


def check_next_tokens(
    candidate: Candidate,
    engine: Callable[[Candidate], Any],
    settings: dict[str, Any],
    context: StepContext,
    *,
    n_texts: int,
    precision: str,
) -> dict[str, Any]:
    """Notes of what was compared.

    Args:
        candidate: The checkpoint.
        engine: Opens what stands in the context's folder.
        settings: Of the result.
        context: Of the step.
        n_texts: Dev prompts, or train's where there is no dev.
        precision: One of `FAULTS`.

    Raises:
        StepFailed: The result does not run.
        ParityFailed: It answers so unlike the checkpoint that rounding does not explain it.
    """
    examples = (context.data.dev or context.data.train)[:n_texts]
    if not examples:
        return {"next_token_divergence": None, "n_texts": 0}
    tokens = PromptTokens(candidate, 512)
    texts = [tokens.context(example.asked) for example in examples]
    threads = {"threads": context.threads}
    ready = msgspec.structs.replace(candidate, settings={**candidate.settings, **threads})
    made = msgspec.structs.replace(candidate, path=context.folder, settings={**settings, **threads})
    with torch_run(seed=context.seed, threads=context.threads):
        reference = _last_rows(CausalEngine(ready), texts)
    try:
        found = _last_rows(engine(made), texts)
    except Exception as error:  # runtimes raise kinds of their own
        reason = " ".join(str(error).split())[:200]
        raise StepFailed(f"the graph built of {candidate.name} must run, got: {reason}") from error
    divergence = float((np.exp(reference) * (reference - found)).sum(1).mean())
    if not divergence <= FAULTS[precision]:
        raise ParityFailed(
            f"{precision} weights must answer about as {candidate.name} does, got a mean divergence of "
            f"{divergence:.2f} nats a token on {len(texts)} prompts. Leave this model to another runtime."
        )
    return {
        "next_token_divergence": divergence,
        "same_token_share": float((reference.argmax(1) == found.argmax(1)).mean()),
        "n_texts": len(texts),
    }


def _last_rows(engine: Any, texts: list[str]) -> np.ndarray:
    """Log-probabilities of the last token of each text, shape (n_texts, n_vocabulary), float64."""
    try:
        return np.stack([engine.logits([text])[0][-1] for text in texts]).astype(np.float64)
    finally:
        engine.close()
