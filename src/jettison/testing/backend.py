"""What every backend must hold, whatever runs inside: `check_backend(candidate)`."""

from collections.abc import Sequence

import numpy as np

from jettison.backends.open import open_model
from jettison.candidate import Candidate
from jettison.model import Model, Output

AWKWARD_TEXTS = (
    "what is the weather like today",
    "",
    " ",
    "ok",
    "WHAT IS THE WEATHER LIKE TODAY?!",
    "日本語のテキスト और हिन्दी و العربية",
    "👩‍👩‍👧‍👦 🏳️‍🌈 family 🎉",
    "zero\u200bwidth\ufeff and a\u0301ccents",
    "tab\tnew\nline\r\x00null\x1bescape",
    "\ud800 half of a surrogate pair",
    "[CLS] [SEP] [MASK] </s> <pad> {json: 1}",
    "x" * 300,
    "please tell me more about it " * 400,
)
"""Texts that break careless backends; each must get an answer."""


def check_backend(
    candidate: Candidate, texts: Sequence[str] | None = None, *, tolerance: float = 1e-4
) -> None:
    """Check that a candidate's backend keeps the promises of `jettison.model.Model`.

    Args:
        candidate: Of the backend to check.
        texts: More texts to ask, from the domain of the model.
        tolerance: How far logits of one text may lie apart alone and in a batch, as a share
            of the largest logit (or of 1). Give more for a model that quantizes its
            activations as it runs: their range depends on what else is in the batch.

    Raises:
        AssertionError: A promise is broken; the message says which.
    """
    asked = [*AWKWARD_TEXTS, *(texts or ())]
    model = open_model(candidate)
    try:
        _check_labels(model, candidate)
        outputs = _check_answers(model, candidate, asked)
        _check_repeats(model, asked, outputs)
        _check_alone(model, asked, outputs, tolerance)
        _check_order(model, asked, outputs, tolerance)
    finally:
        model.close()
    model.close()  # a second time, which must do nothing


def _check_labels(model: Model, candidate: Candidate) -> None:
    _hold(
        tuple(model.labels) == candidate.labels,
        f"labels must be the candidate's, in its order, got {model.labels[:5]}",
    )
    _hold(model.predict([]) == [], "no inputs must give no outputs")


def _check_answers(model: Model, candidate: Candidate, asked: list[str]) -> list[Output]:
    given = list(asked)
    outputs = model.predict(given)
    _hold(given == asked, "the inputs must be left as they were")
    _hold(len(outputs) == len(asked), f"{len(asked)} inputs must give as many outputs, got {len(outputs)}")
    for text, output in zip(asked, outputs, strict=True):
        at = f"on {text[:40]!r}"
        _hold(output.error is None, f"every text must get an answer, got error {output.error!r} {at}")
        # A candidate without labels answers in texts of its own: an order, a search.
        _hold(
            output.label in candidate.labels or (not candidate.labels and bool(output.label)),
            f"the label must be one of the labels, got {output.label!r} {at}",
        )
        _hold(0.0 <= output.confidence <= 1.0, f"confidence must be in 0-1, got {output.confidence} {at}")
        if output.in_scope is not None:
            _hold(0.0 <= output.in_scope <= 1.0, f"in_scope must be in 0-1, got {output.in_scope} {at}")
        if output.logits is not None and candidate.labels:
            shape = (len(candidate.labels),)
            _hold(
                output.logits.shape == shape,
                f"logits must be of shape {shape}, got {output.logits.shape} {at}",
            )
            _hold(bool(np.isfinite(output.logits).all()), f"logits must be finite {at}")
    return outputs


def _check_repeats(model: Model, asked: list[str], outputs: list[Output]) -> None:
    for text, before, after in zip(asked, outputs, model.predict(asked), strict=True):
        _hold(
            (before.label, before.confidence) == (after.label, after.confidence),
            f"the same inputs must get the same outputs, got {before.confidence} and {after.confidence} "
            f"on {text[:40]!r}",
        )


def _check_alone(model: Model, asked: list[str], outputs: list[Output], tolerance: float) -> None:
    for text, output in zip(asked, outputs, strict=True):
        alone = model.predict([text])
        _hold(len(alone) == 1, f"1 input must give 1 output, got {len(alone)}")
        _check_close(output, alone[0], tolerance, f"alone and in a batch, on {text[:40]!r}")


def _check_order(model: Model, asked: list[str], outputs: list[Output], tolerance: float) -> None:
    turned = model.predict(asked[::-1])[::-1]
    for text, output, other in zip(asked, outputs, turned, strict=True):
        _check_close(output, other, tolerance, f"whatever the order of the inputs, on {text[:40]!r}")


def _check_close(one: Output, other: Output, tolerance: float, when: str) -> None:
    if one.logits is None or other.logits is None:
        apart, allowed = abs(one.confidence - other.confidence), tolerance
    else:
        apart = float(np.abs(one.logits - other.logits).max())
        allowed = tolerance * max(1.0, float(np.abs(one.logits).max()))
    _hold(apart <= allowed, f"outputs must agree within {allowed:.2g} {when}, got {apart:.2g} apart")


def _hold(rule: bool, message: str) -> None:
    if not rule:
        raise AssertionError(message)
