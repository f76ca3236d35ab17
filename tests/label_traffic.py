"""Traffic to label, and what two models answer to it."""

import numpy as np

from jettison.record import Record
from jettison.task import Example

LABELS = ("buy", "sell")


def traffic(n, seed=0):
    rng = np.random.default_rng(seed)
    return [Example(id=f"t{i}", input=f"text {i}", expected=LABELS[int(rng.integers(2))]) for i in range(n)]


def binary(examples, rights):
    """Answers of a model: the right label, or the other one."""
    return [
        Record(
            candidate="c",
            example_id=e.id,
            split="u",
            output=e.expected if ok else LABELS[1 - LABELS.index(e.expected)],
            confidence=0.9,
        )
        for e, ok in zip(examples, rights, strict=True)
    ]
