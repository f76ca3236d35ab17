"""What an embedder needs to answer a task that ranks: its vectors of the corpus, its prefixes."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jettison.backends.embedder import open_embedder
from jettison.backends.ranker import write_index
from jettison.candidate import Candidate
from jettison.task import Development

EMBEDDER = "embedder"
"""Backend that ranks by vectors."""
RANKING = ("rank", "embed")
"""Kinds of task whose answer is an order, which an embedder can give."""
_AT_ONCE = 64


def is_embedder(candidate: Candidate) -> bool:
    """Whether a candidate ranks by vectors of texts."""
    return candidate.backend == EMBEDDER


def index_corpus(
    folder: Path,
    settings: Mapping[str, Any],
    data: Development,
    progress: Callable[[str, float | None], None],
) -> int:
    """Embed the task's corpus by the embedder in a folder, and keep the vectors there.

    Args:
        folder: Holds the embedder.
        settings: Of the candidate to be.
        data: Its `corpus` is empty unless the kind is `embed`.
        progress: Called with a phrase and the share done.

    Returns:
        Passages embedded; 0 where the task has no corpus.
    """
    if not data.corpus:
        return 0
    embedder = open_embedder(folder, settings)
    prefix = str(settings.get("passage_prefix", ""))
    texts = [f"{prefix}{passage.text}" for passage in data.corpus]
    parts = []
    for start in range(0, len(texts), _AT_ONCE):
        parts.append(embedder.embed(texts[start : start + _AT_ONCE]))
        progress("embedding the corpus", min(1.0, (start + _AT_ONCE) / len(texts)))
    write_index(folder, [passage.id for passage in data.corpus], np.concatenate(parts))
    return len(texts)
