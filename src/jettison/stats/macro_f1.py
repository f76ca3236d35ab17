"""The difference of two models' macro F1 on the same examples, with its interval.

Each example, and each group, is left out in turn. A percentile bootstrap covers 54 to 90 % instead of 95
where a few groups share their luck (`benchmarks/group_coverage.py`): what no group shows, no draw of groups
shows either.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from jettison.errors import NotEnoughData
from jettison.stats.group_jackknife import DIFFERENCE, group_t, independent_number, with_made_up
from jettison.stats.interval import Interval

AT_ONCE = 2_000_000
"""Counts held in memory."""


class _Counts(NamedTuple):
    """By unit and label, each shape (n_units, n_labels)."""

    expected: np.ndarray
    predicted_a: np.ndarray
    predicted_b: np.ndarray
    hits_a: np.ndarray
    hits_b: np.ndarray

    def difference(self) -> np.ndarray:
        """Macro F1 of B minus A of each unit, shape (n_units,)."""
        n_there = (self.expected > 0).sum(axis=1)
        f1 = [
            np.where(self.expected > 0, 2 * hits / np.maximum(self.expected + predicted, 1), 0.0)
            for hits, predicted in ((self.hits_a, self.predicted_a), (self.hits_b, self.predicted_b))
        ]
        return np.asarray((f1[1] - f1[0]).sum(axis=1) / np.maximum(n_there, 1))


def macro_f1_difference_ci(
    expected: np.ndarray,
    a: np.ndarray,
    b: np.ndarray,
    *,
    n_labels: int,
    group_of: np.ndarray,
    confidence: float = 0.95,
) -> Interval:
    """Macro F1 of B minus that of A, by a jackknife over groups.

    Args:
        expected: Right labels, 0..n_labels-1, shape (n,).
        a: Labels by A, shape (n,); n_labels stands for no answer.
        b: Labels by B, likewise.
        n_labels: How many labels there are.
        group_of: Group of each example, 0..n_groups-1, shape (n,).
        confidence: Coverage wanted, in (0, 1).

    Raises:
        NotEnoughData: Fewer than two groups.

    Source:
        As `group_jackknife`. An example weighs one by the size of its class, as in a mean over classes.
    """
    size = np.bincount(group_of)
    if len(size) < 2:
        raise NotEnoughData(f"an interval needs at least 2 groups, got {len(size)}.")
    answers = np.stack([expected, a, b], axis=1)
    [whole] = _left_out(answers, np.zeros(0, int), np.zeros((0, 3), int), 1, n_labels)
    value = float(whole[0])
    groups = np.concatenate(list(_left_out(answers, group_of, answers, len(size), n_labels)))
    # Examples with the same right answer and the same two labels pull alike.
    kinds, n_of_kind = np.unique(answers, axis=0, return_counts=True)
    singles = np.concatenate(list(_left_out(answers, np.arange(len(kinds)), kinds, len(kinds), n_labels)))
    together = float(((value - groups) ** 2).sum())
    alone = float(n_of_kind @ (value - singles) ** 2)
    weights = 1 / np.bincount(expected, minlength=n_labels)[expected]
    n = independent_number(weights, group_of, alone, together, DIFFERENCE)
    variance = (1 - float(size.min()) / len(expected)) * together
    t = group_t(size.astype(float), confidence)
    return with_made_up(
        value, variance, n, t, DIFFERENCE, confidence=confidence, method="group jackknife t"
    )


def _left_out(
    answers: np.ndarray, unit_of: np.ndarray, rows: np.ndarray, n_units: int, n_labels: int
) -> Iterator[np.ndarray]:
    """The difference without the rows of each unit in turn, some units at a time.

    Args:
        answers: Of all examples: expected, a, b; shape (n, 3).
        unit_of: Unit of each row to leave out, shape (n_rows,).
        rows: Those rows, shape (n_rows, 3).
        n_units: How many units there are.
        n_labels: How many labels there are.
    """
    whole = _count(answers, np.zeros(len(answers), int), 1, n_labels)
    step = max(1, AT_ONCE // (5 * n_labels))
    for start in range(0, n_units, step):
        n = min(step, n_units - start)
        here = (unit_of >= start) & (unit_of < start + n)
        without = _count(rows[here], unit_of[here] - start, n, n_labels)
        yield _Counts(*(all_of - part for all_of, part in zip(whole, without, strict=True))).difference()


def _count(rows: np.ndarray, unit_of: np.ndarray, n_units: int, n_labels: int) -> _Counts:
    expected, a, b = rows.T

    def by_unit(labels: np.ndarray, kept: np.ndarray) -> np.ndarray:
        at = unit_of[kept] * (n_labels + 1) + labels[kept]
        return np.bincount(at, minlength=n_units * (n_labels + 1)).reshape(n_units, -1)[:, :n_labels]

    every = np.ones(len(rows), bool)
    return _Counts(
        by_unit(expected, every),
        by_unit(a, every),
        by_unit(b, every),
        by_unit(expected, expected == a),
        by_unit(expected, expected == b),
    )
