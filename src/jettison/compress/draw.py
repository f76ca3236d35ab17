"""Draws the texts that a student learns from, where learning from all of them would take too long."""

from dataclasses import replace
from typing import Any

import numpy as np

from jettison.compress.step import StepContext
from jettison.task import Development


def context_to_learn(context: StepContext, most_texts: int | None) -> StepContext:
    """The same context with at most so many train and unlabelled texts; None, or no fewer, is itself."""
    data = drawn(context.data, most_texts, seed=context.seed)
    return context if data is context.data else replace(context, data=data)


def drawn(data: Development, most_texts: int | None, *, seed: int) -> Development:
    """A draw without replacement from train and unlabelled texts together, in their order.

    Labelled texts come no more often than their share, but for the first drawn of each label, which
    stands before all others: no label is lost where there is room for each. A draw of fewer texts is
    a part of one of more, so that the teacher's answers serve both.

    Args:
        data: Its dev is left as it is.
        most_texts: How many to draw, at least 1; None is all.
        seed: Of the draw.
    """
    n_train, n_texts = len(data.train), len(data.train) + len(data.unlabelled)
    if most_texts is None or most_texts >= n_texts:
        return data
    order = np.random.default_rng(seed).permutation(n_texts)
    first_of: dict[str, int] = {}
    for index in order.tolist():
        label = data.train[index].expected if index < n_train else None
        if label is not None:
            first_of.setdefault(label, index)
    firsts = list(first_of.values())
    rest = order[~np.isin(order, firsts)]
    kept = sorted([*firsts, *rest.tolist()][:most_texts])
    return replace(
        data,
        train=tuple(data.train[index] for index in kept if index < n_train),
        unlabelled=tuple(data.unlabelled[index - n_train] for index in kept if index >= n_train),
    )


def draw_notes(whole: StepContext, context: StepContext) -> dict[str, Any]:
    """How many texts were drawn and of how many, for the lineage; empty where all were taken."""
    if context is whole:
        return {}
    counts = [len(one.data.train) + len(one.data.unlabelled) for one in (context, whole)]
    return {"drawn": {"texts": counts[0], "of": counts[1]}}
