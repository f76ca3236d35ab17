"""Does a converted model answer as the model it came from? Asked of the saved file, in its runtime."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import msgspec
import numpy as np

from jettison.backends.text import load_tokenizer
from jettison.errors import ParityFailed

TOLERANCE = 1e-3
"""Largest difference of float32 logits, as a share of the largest logit (or of 1, if that is more)."""

_SENTENCE = "Could you please tell me, what is the balance of my 2nd account?"


class Answers(Protocol):
    """Whatever gives logits for texts."""

    def logits(self, inputs: Sequence[str]) -> np.ndarray:
        """Raw scores, shape (n_inputs, n_labels), float32."""


class Parity(msgspec.Struct, frozen=True, kw_only=True):
    """How far the logits of two models are apart."""

    max_abs_difference: float
    """Largest difference of any logit on any probe."""
    worst_probe: str
    max_abs_logit: float
    n_texts: int
    tolerance: float


def probes(tokenizer_file: Path, *, seed: int = 0) -> dict[str, list[str]]:
    """Texts on which conversions go wrong, by name: each list is answered as one batch.

    Random tokens of the model's own vocabulary stand beside English, so that a model of
    another language is not judged on unknown tokens alone.
    """
    rng = np.random.default_rng(seed)
    tokens = sorted(load_tokenizer(tokenizer_file).get_vocab())
    own = [" ".join(rng.choice(tokens, int(n))) for n in (3, 7, 12, 20)]
    return {
        "one empty text": [""],
        "one short text": ["ok"],
        "one text": [_SENTENCE],
        "one text of the model's own tokens": own[2:3],
        "one text longer than the model reads": [" ".join([_SENTENCE] * 200)],
        "a padded batch": ["hi", *own, _SENTENCE, "", f"{_SENTENCE} {_SENTENCE} {_SENTENCE}"],
    }


def measure_parity(
    reference: Answers, made: Answers, batches: Mapping[str, Sequence[str]], *, tolerance: float
) -> Parity:
    """Compare the logits of two models on named batches of texts.

    Raises:
        ParityFailed: The converted model gives a logit that is no number, or another shape.
    """
    worst, worst_probe, largest, n_texts = 0.0, "", 0.0, 0
    for name, texts in batches.items():
        wanted, found = reference.logits(texts), made.logits(texts)
        if wanted.shape != found.shape:
            raise ParityFailed(
                f"converted logits must be of shape {wanted.shape}, got {found.shape} on {name}."
            )
        if not np.isfinite(found).all():
            raise ParityFailed(f"the converted model must give finite logits, got nan or inf on {name}.")
        difference = float(np.abs(wanted - found).max())
        if difference >= worst:
            worst, worst_probe = difference, name
        largest = max(largest, float(np.abs(wanted).max()))
        n_texts += len(texts)
    return Parity(
        max_abs_difference=worst,
        worst_probe=worst_probe,
        max_abs_logit=largest,
        n_texts=n_texts,
        tolerance=tolerance,
    )


def check_parity(
    reference: Answers,
    made: Answers,
    batches: Mapping[str, Sequence[str]],
    *,
    tolerance: float = TOLERANCE,
) -> dict[str, Any]:
    """Refuse a conversion whose logits differ by more than the tolerance.

    Returns:
        What was measured, for the notes of a step.

    Raises:
        ParityFailed: A logit differs by more than `tolerance` times the largest logit (or
            times 1, if that is more), is no number, or there are more or fewer of them.
    """
    parity = measure_parity(reference, made, batches, tolerance=tolerance)
    allowed = tolerance * max(1.0, parity.max_abs_logit)
    if parity.max_abs_difference > allowed:
        raise ParityFailed(
            f"logits of the converted model must be within {allowed:.2g} of the original's, "
            f"got a difference of {parity.max_abs_difference:.2g} on {parity.worst_probe}."
        )
    found: dict[str, Any] = msgspec.to_builtins(parity)
    return found
