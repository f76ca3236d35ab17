"""What a student learns from: the task's texts and made-up ones, each with the teacher's logits."""

import time
from collections.abc import Sequence

import msgspec
import numpy as np

from jettison.compress.augment import augment as made_up
from jettison.compress.step import StepContext
from jettison.compress.teacher import teacher_logits_in_time, teacher_logits_until
from jettison.errors import NotEnoughData
from jettison.task import Example

_TEACHER_SHARE = 0.5
"""Of the time left, what the teacher may spend on made-up texts."""


class TransferSet(msgspec.Struct, frozen=True, kw_only=True):
    """Texts to learn from, the known ones first."""

    texts: tuple[str, ...]
    teacher: np.ndarray
    """Logits, shape (n_texts, n_labels), in the incumbent's order of labels."""
    gold: np.ndarray
    """Index of the known label, shape (n_texts,); -1 where nobody has said."""
    n_train: int
    n_unlabelled: int
    n_augmented: int
    teacher_s: float
    """Time the teacher took."""


def transfer_set(context: StepContext, augment: int) -> TransferSet:
    """Gather train, unlabelled and made-up texts, and ask the teacher about each once.

    Args:
        context: Its train examples, unlabelled examples, incumbent, seed and deadline are used.
        augment: Made-up texts wanted. There may be fewer: few come of few texts, and with a
            deadline the teacher gets half of the time that is left.

    Raises:
        NotEnoughData: There are no train examples and no unlabelled ones.
    """
    train, unlabelled = context.data.train, context.data.unlabelled
    if not train and not unlabelled:
        raise NotEnoughData("a student needs train or unlabelled texts to learn from, got none.")
    started = time.monotonic()
    known = [example.input for example in (*train, *unlabelled)]
    answers = [teacher_logits_in_time(context, known)]
    if augment:
        labels = [*(example.expected for example in train), *(None for _ in unlabelled)]
        made = made_up(known, augment, seed=context.seed, labels=labels)
        until = None
        if context.deadline is not None:
            until = context.deadline.share(_TEACHER_SHARE)
        answers.append(teacher_logits_until(context, made, until))
        known += made[: len(answers[-1])]
    gold = np.full(len(known), -1, np.int64)
    gold[: len(train)] = gold_indices(train, context.incumbent.labels)
    return TransferSet(
        texts=tuple(known),
        teacher=np.concatenate(answers),
        gold=gold,
        n_train=len(train),
        n_unlabelled=len(unlabelled),
        n_augmented=len(known) - len(train) - len(unlabelled),
        teacher_s=time.monotonic() - started,
    )


def gold_indices(examples: Sequence[Example], labels: Sequence[str]) -> np.ndarray:
    """Index of each example's label, shape (n,), int64; -1 for one that the labels do not have."""
    numbers = {label: index for index, label in enumerate(labels)}
    return np.array([numbers.get(example.expected or "", -1) for example in examples], np.int64)
