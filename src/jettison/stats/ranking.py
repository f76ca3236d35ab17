"""How well a score separates two kinds of examples."""

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from jettison.errors import InvalidInput, NotEnoughData


def auroc(positive: ArrayLike, negative: ArrayLike) -> float:
    """Probability that a positive scores above a negative; ties count half.

    Raises:
        NotEnoughData: One of the two kinds has no example.
    """
    high, low = _two(positive, negative)
    ranks = stats.rankdata(np.concatenate([high, low]))
    wins = ranks[: len(high)].sum() - len(high) * (len(high) + 1) / 2
    return float(wins / (len(high) * len(low)))


def recall_at_false_alarm_share(positive: ArrayLike, negative: ArrayLike, share: float) -> float:
    """Share of positives found when at most `share` of the negatives raise a false alarm.

    The best threshold among the scores seen; one alarm level covers all ties.
    """
    high, low = _two(positive, negative)
    if not 0 <= share < 1:
        raise InvalidInput(f"the false-alarm share must be in [0, 1), got {share}.")
    allowed = int(np.floor(share * len(low) + 1e-9))
    strictest = np.sort(low)[::-1][allowed]  # an alarm must be above the first negative not allowed
    return float((high > strictest).mean())


def _two(positive: ArrayLike, negative: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    high, low = np.asarray(positive, float).ravel(), np.asarray(negative, float).ravel()
    if len(high) == 0 or len(low) == 0:
        raise NotEnoughData(
            f"ranking needs examples of both kinds, got {len(high)} positive and {len(low)} negative."
        )
    if not (np.isfinite(high).all() and np.isfinite(low).all()):
        raise InvalidInput("scores must be finite, got nan or infinity.")
    return high, low
