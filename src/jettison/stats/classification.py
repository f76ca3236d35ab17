"""Accuracy and F1 of labels; a missing answer (None) is wrong and predicts no class."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from jettison.errors import InvalidInput, NotEnoughData


@dataclass(frozen=True, kw_only=True)
class ClassScores:
    """How one class fared. None where the class was never predicted or never expected."""

    label: str
    precision: float | None
    recall: float | None
    f1: float | None
    n_expected: int
    """Support: examples of the class."""
    n_predicted: int


def accuracy(expected: Sequence[str], predicted: Sequence[str | None]) -> float:
    """Share of right labels, in 0-1."""
    _check(expected, predicted)
    return sum(e == p for e, p in zip(expected, predicted, strict=True)) / len(expected)


def per_class(expected: Sequence[str], predicted: Sequence[str | None]) -> tuple[ClassScores, ...]:
    """Precision, recall and F1 of each class expected or predicted, by name."""
    labels, coded = _labels(expected, predicted), label_codes(expected, predicted)
    e, p = coded.expected, coded.predicted
    n_expected = np.bincount(e, minlength=len(labels))
    n_predicted = np.bincount(p, minlength=len(labels) + 1)[: len(labels)]
    hits = np.bincount(e[e == p], minlength=len(labels))
    return tuple(
        ClassScores(
            label=label,
            precision=_share(hits[i], n_predicted[i]),
            recall=_share(hits[i], n_expected[i]),
            f1=_share(2 * hits[i], n_expected[i] + n_predicted[i]),
            n_expected=int(n_expected[i]),
            n_predicted=int(n_predicted[i]),
        )
        for i, label in enumerate(labels)
    )


def macro_f1(expected: Sequence[str], predicted: Sequence[str | None]) -> float:
    """Unweighted mean F1 over the classes that are expected at least once."""
    coded = label_codes(expected, predicted)
    return coded_macro_f1(coded.expected, coded.predicted, coded.n_labels)


@dataclass(frozen=True)
class LabelCodes:
    """Labels as integers, so that resampling is quick."""

    expected: np.ndarray
    """Shape (n_examples,), values 0 to n_labels - 1."""
    predicted: np.ndarray
    """Shape (n_examples,); n_labels stands for no answer."""
    n_labels: int


def label_codes(expected: Sequence[str], predicted: Sequence[str | None]) -> LabelCodes:
    """Number the labels, by name."""
    _check(expected, predicted)
    code = {label: index for index, label in enumerate(_labels(expected, predicted))}
    return LabelCodes(
        np.array([code[label] for label in expected]),
        np.array([len(code) if label is None else code[label] for label in predicted]),
        len(code),
    )


def coded_macro_f1(expected: np.ndarray, predicted: np.ndarray, n_labels: int) -> float:
    """`macro_f1` of labels already numbered."""
    n_expected = np.bincount(expected, minlength=n_labels)
    n_predicted = np.bincount(predicted, minlength=n_labels + 1)[:n_labels]
    hits = np.bincount(expected[expected == predicted], minlength=n_labels)
    there = n_expected > 0
    return float((2 * hits[there] / (n_expected[there] + n_predicted[there])).mean())


def _labels(expected: Sequence[str], predicted: Sequence[str | None]) -> list[str]:
    return sorted({*expected, *(p for p in predicted if p is not None)})


def _share(part: int, whole: int) -> float | None:
    return float(part / whole) if whole else None


def _check(expected: Sequence[str], predicted: Sequence[str | None]) -> None:
    if len(expected) != len(predicted):
        raise InvalidInput(
            f"expected and predicted must be equally many, got {len(expected)} and {len(predicted)}."
        )
    if not expected:
        raise NotEnoughData("accuracy needs at least 1 example, got 0.")
