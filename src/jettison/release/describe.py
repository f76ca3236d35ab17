"""Describes inputs and answers by scores and categories, alike for a reference and for live traffic."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from jettison.errors import MissingExtra
from jettison.record import Record
from jettison.refusal import is_refusal
from jettison.registry import need
from jettison.release.sketch import EMBEDDING, TextScorer, embed, hashed_words, script_of

MOST_LABELS = 500
"""With more different answers they are texts, not labels."""
MOST_LANGUAGE_TEXTS = 2000


@dataclass(frozen=True, kw_only=True)
class Described:
    """Of inputs, in their order."""

    scores: dict[str, np.ndarray]
    """Those that the scorer knows of `TEXT_SCORES`, each of shape (n_texts,)."""
    features: np.ndarray
    """`FEATURES` as far as these go, shape (n_texts, n_features)."""
    scripts: list[str]


def describe_texts(texts: Sequence[str], scorer: TextScorer) -> Described:
    """Scores, features and script of each text."""
    hashed = [hashed_words(text) for text in texts]
    rows = scorer.scores(texts, hashed)
    scores = {name: rows[:, place] for place, name in enumerate(scorer.names)}
    # Lengths are long-tailed: their logarithm is the feature.
    rows = np.column_stack([np.log2(rows[:, 0] + 1), rows[:, 1:]])
    features = np.hstack([embed(hashed), rows])
    assert features.shape[1] == EMBEDDING + len(scorer.names)
    return Described(scores=scores, features=features, scripts=[script_of(text) for text in texts])


def languages_of(texts: Sequence[str]) -> list[str] | None:
    """Likeliest language of each text, ISO 639-1; None without the extra `language`."""
    try:
        langid = need("py3langid.langid", "language")
    except MissingExtra:
        return None
    identifier = _identifier(langid)
    return [str(identifier.classify(text[:500])[0]) for text in texts]


@cache
def _identifier(langid: Any) -> Any:
    """Unpacked once a process: that takes as long as looking at a thousand texts."""
    return langid.LanguageIdentifier.from_model_file(langid.MODEL_FILE, norm_probs=False)


def answer_scores(record: Record) -> dict[str, float]:
    """Scores of one answer: `confidence`, `in_scope`, `tokens`, where it has them."""
    if record.error is not None:
        return {}
    found = {
        "confidence": record.confidence,
        "in_scope": record.in_scope,
        "tokens": record.cost.completion_tokens,
    }
    return {name: float(value) for name, value in found.items() if value is not None}


def answer_categories(record: Record, *, is_text: bool) -> dict[str, str]:
    """Categories of one answer: `label` or, of a text, `refused`; `flagged`, `error`, `escalated`."""
    found = {"error": str(record.error is not None).lower()}
    if record.error is not None or record.output is None:
        return found
    if is_text:
        if not record.output.startswith("sha256:") and record.output:
            found["refused"] = str(is_refusal(record.output)).lower()
    else:
        found["label"] = record.output
    if record.flagged is not None:
        found["flagged"] = str(record.flagged).lower()
    return found
