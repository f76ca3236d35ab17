"""Matches a model's label names to a task's."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jettison.errors import BrokenArtifact, InvalidInput

PLACEHOLDER = re.compile(r"^LABEL_(\d+)$")


def match_labels(
    found: Mapping[str, Any] | Sequence[str] | None,
    labels: Sequence[str],
    out_of_scope: str | None,
    *,
    where: Path,
) -> list[str]:
    """The task's labels in the order of the model's logits.

    A name matches in spite of case, spaces, hyphens and underscores. A model whose labels
    are only numbered (`LABEL_0`, ...) is taken to have them in the task's order. It may
    lack the out-of-scope label.

    Args:
        found: `id2label` of a configuration, or names in order; None when it says nothing.
        labels: The task's labels.
        out_of_scope: The one of them that a model may lack.
        where: The model, for messages.

    Raises:
        InvalidInput: A label of one side has no partner on the other.
        BrokenArtifact: The model's own list is no numbering from 0.
    """
    names = _in_order(found, where)
    if names is not None and len(names) == 1 < len(labels):
        raise InvalidInput(
            f"{where} must give one logit per label ({len(labels)}), got one logit: a regression or "
            "sigmoid head is not supported. Train or save it with a logit for each label."
        )
    if names is None or not has_names(found):
        n = len(labels) if names is None else len(names)
        if n != len(labels):
            raise InvalidInput(
                f"{where} must have {len(labels)} labels as the task has, got {n} without names. "
                "Name them in `id2label` of its config.json."
            )
        return list(labels)
    by_plain: dict[str, str] = {}
    for label in labels:
        by_plain.setdefault(_plain(label), label)
    exact = set(labels)
    matched = [name if name in exact else by_plain.get(_plain(name)) for name in names]
    strange = [name for name, label in zip(names, matched, strict=True) if label is None]
    lacking = [label for label in labels if label not in matched and label != out_of_scope]
    if strange or lacking or len(set(matched)) != len(matched):
        raise InvalidInput(
            f"labels of {where} must be the task's {len(labels)}, got {len(names)}; "
            f"unknown to the task: {strange[:5]}, unknown to the model: {lacking[:5]}. "
            "Map the names in `[labels.aliases]` of task.toml, or in `id2label` of its config.json; of "
            "labels without an example in the data, list all in `[labels]` `names`."
        )
    return [str(label) for label in matched]


def has_names(found: Mapping[str, Any] | Sequence[str] | None) -> bool:
    """Whether a model names its labels, rather than numbering them."""
    values = found.values() if isinstance(found, Mapping) else found or ()
    return any(not PLACEHOLDER.match(str(name)) for name in values)


def check_order(answers: Sequence[str], expected: Sequence[str], *, where: str) -> None:
    """Refuse numbered labels whose order is plainly not the task's.

    Raises:
        InvalidInput: Another order of the labels would make over twice as many answers right.
    """
    from scipy.optimize import linear_sum_assignment

    names = sorted({*answers, *expected})
    number = {name: index for index, name in enumerate(names)}
    counts = np.zeros((len(names), len(names)))
    for answer, wanted in zip(answers, expected, strict=True):
        counts[number[answer], number[wanted]] += 1
    best = counts[linear_sum_assignment(-counts)].sum()
    right = counts.trace()
    if right < best / 2:
        raise InvalidInput(
            f"the numbered labels of {where} must be in the task's order, got {int(right)} of "
            f"{len(answers)} train examples right ({int(best)} in another order). "
            "Name them in `id2label` of its config.json."
        )


def _in_order(found: Mapping[str, Any] | Sequence[str] | None, where: Path) -> list[str] | None:
    if found is None:
        return None
    if not isinstance(found, Mapping):
        return [str(name) for name in found]
    try:
        return [str(found[str(index)]) for index in range(len(found))]
    except KeyError as error:
        raise BrokenArtifact(
            f"id2label of {where} must number its labels from 0, got no {error}."
        ) from error


def _plain(name: str) -> str:
    return re.sub(r"[\s_\-]+", "", name).casefold()
