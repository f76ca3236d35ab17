"""Live quality where few answers have labels: calibrated confidence, corrected by the labels that came."""

from collections.abc import Sequence

import msgspec
import numpy as np

from jettison.errors import NotEnoughData
from jettison.stats.prediction_powered import powered_mean

FEWEST_LABELS = 30


class QualityEstimate(msgspec.Struct, frozen=True, kw_only=True):
    """One figure with its interval, and what it rests on."""

    value: float | None
    low: float | None
    """None where only an assumption stands behind the figure: an interval would promise too much."""
    high: float | None
    n_answers: int
    n_labels: int
    by_confidence: float | None
    """What the confidences alone say."""
    correction: float | None
    """What the labels say the confidences are off by: label minus confidence."""
    correction_low: float | None
    correction_high: float | None
    assumption: str
    """In words: what must be true for the figure to be right."""
    is_calibrated: bool | None
    """Whether the labels are compatible with the confidences; None: too few labels to tell."""


def estimate_quality(
    confidences: Sequence[float],
    labelled: Sequence[tuple[float, float]],
    *,
    propensities: Sequence[float] | None = None,
    confidence: float = 0.95,
) -> QualityEstimate:
    """Share of right answers among all, most of them without a label.

    Args:
        confidences: Calibrated probability of being right, of every answer, shape (n_answers,).
        labelled: (confidence, 1 if right else 0) of those with a label.
        propensities: With what probability each of these was drawn to be labelled, shape (n_labels,).
            None: the labels are taken as drawn evenly, which labels that users volunteer are not.
        confidence: Coverage at one look.

    Raises:
        NotEnoughData: There is no answer with a confidence.
    """
    everyone = np.asarray(confidences, float)
    if not len(everyone):
        raise NotEnoughData("an estimate needs at least 1 answer with a confidence, got none.")
    alone = float(everyone.mean())
    if len(labelled) < FEWEST_LABELS or len(everyone) < 2:
        return QualityEstimate(
            value=alone,
            low=None,
            high=None,
            n_answers=len(everyone),
            n_labels=len(labelled),
            by_confidence=alone,
            correction=None,
            correction_low=None,
            correction_high=None,
            assumption=(
                f"calibration alone: with {len(labelled)} labels (of {FEWEST_LABELS} needed) nothing "
                "checks that confidence still means what it meant at release; a change in what is right "
                "cannot be seen."
            ),
            is_calibrated=None,
        )
    predicted, right = np.asarray(labelled, float).T
    weights = None if propensities is None else 1 / np.asarray(propensities, float)
    found = powered_mean(
        right,
        predicted,
        everyone,
        weights=weights,
        tune=weights is None,
        guarded=True,
        confidence=confidence,
    )
    off = found.correction
    assert off is not None
    drawn = "with known probability" if weights is not None else "evenly from the same traffic"
    return QualityEstimate(
        value=float(np.clip(found.interval.value, 0, 1)),
        low=max(0.0, found.interval.low),
        high=min(1.0, found.interval.high),
        n_answers=len(everyone),
        n_labels=len(labelled),
        by_confidence=alone,
        correction=off.value,
        correction_low=off.low,
        correction_high=off.high,
        assumption=(
            f"the {len(labelled):,} labels were drawn {drawn}; calibration only makes the interval shorter"
        ),
        is_calibrated=off.low <= 0 <= off.high,
    )
