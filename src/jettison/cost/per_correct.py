"""What one correct answer costs: the cost of a task over the share of answers that are right."""

from collections.abc import Callable, Iterable, Sequence
from math import exp, log, sqrt

import msgspec
import numpy as np
from scipy import stats

from jettison.cost.calls import Calls
from jettison.decision import CostSummary, Interval

Judge = Callable[[int, str], float | None]
"""Judges the answer to the input of a row: 1 right, 0 wrong, None cannot tell."""
METHOD = "mean cost / share correct, both intervals put together on the logarithm"


def judged_scores(blocks: Iterable[Calls], judge: Judge) -> list[float]:
    """Score of each input's first answer; a failed one is wrong, one that nobody can judge is left out."""
    found: dict[int, float] = {}
    for block in blocks:
        for row, output in zip(block.rows, block.outputs, strict=True):
            if row not in found:
                score = 0.0 if output is None else judge(row, output)
                if score is not None:
                    found[row] = score
    return list(found.values())


def correct_share(correct: Sequence[float], *, confidence: float = 0.95) -> Interval | None:
    """Share of right answers with Wilson's interval; None without any judged answer.

    Args:
        correct: 1 for a right answer, 0 for a wrong or failed one, shares between for partial credit,
            one figure an example, shape (n_examples,).
        confidence: Coverage wanted, in (0, 1).
    """
    n = len(correct)
    if n == 0:
        return None
    share = float(np.mean(correct))
    z2 = float(stats.norm.ppf((1 + confidence) / 2)) ** 2
    middle = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = sqrt(z2 * share * (1 - share) / n + z2 * z2 / (4 * n * n)) / (1 + z2 / n)
    return Interval(
        value=share,
        low=max(0.0, middle - half),
        high=min(1.0, middle + half),
        confidence=confidence,
        method="Wilson",
    )


def per_correct_of(cost: Interval | float | None, correct: Sequence[float]) -> Interval | None:
    """Estimate the cost of one correct answer from a cost that has its interval already.

    Args:
        cost: Per task, above 0; a plain number is taken as known.
        correct: Score of each example in 0-1, shape (n_examples,).

    Returns:
        None when the cost is not known or not above 0, or nothing was right or judged.

    Source:
        Zou & Donner 2008, Statistics in Medicine 27:1693, on the logarithm: of each side the distances of
        both intervals' bounds, added in quadrature.
    """
    share = correct_share(correct)
    if cost is None or share is None:
        return None
    known = cost if isinstance(cost, Interval) else Interval(value=cost, low=cost, high=cost)
    return _over(known, share)


def costs_per_correct(cost: CostSummary, correct: Sequence[float]) -> CostSummary:
    """The same costs with what one correct answer takes of each.

    Args:
        cost: Per task.
        correct: Score of each judged example, shape (n_examples,); where one is not in 0-1, no share of
            right answers can be told, and the costs come back as they are.
    """
    if not all(0 <= score <= 1 for score in correct):
        return cost
    usd: Interval | float | None = None if cost.usd_per_1000 is None else cost.usd_per_1000 / 1000
    if (of_1000 := cost.intervals.get("usd_per_1000")) is not None:
        value, low, high = (end / 1000 for end in (of_1000.value, of_1000.low, of_1000.high))
        usd = Interval(value=value, low=low, high=high)
    latency_s = cost.intervals.get("latency_p50_s", cost.latency_p50_s)
    known = {"cpu_s": cost.cpu_s, "latency_s": latency_s, "energy_j": cost.energy_j, "usd": usd}
    found = {name: per_correct_of(value, correct) for name, value in known.items()}
    return msgspec.structs.replace(
        cost,
        correct_share=correct_share(correct),
        per_correct={name: interval for name, interval in found.items() if interval is not None},
    )


def per_correct(
    cost: Sequence[float], correct: Sequence[float], *, confidence: float = 0.95
) -> Interval | None:
    """Estimate the cost of one correct answer.

    Args:
        cost: Cost per task, one figure a block or a run, shape (n_blocks,), each above 0. A single
            figure is taken as known: only the share's doubt is then in the interval.
        correct: Score of each example in 0-1, shape (n_examples,).
        confidence: Coverage wanted, in (0, 1).

    Returns:
        mean(cost) / mean(correct) with its interval; None when nothing was right or judged, or a
        cost is not above 0.

    Source:
        Student's t of the mean cost and Wilson's interval of the share, put together as in
        `per_correct_of`. The plain delta method has no width where all of few answers are right: it
        covered 84 % instead of 95 % with 60 answers, 97 % of them right, and a known cost.
    """
    costs = np.asarray(cost, float)
    share = correct_share(correct, confidence=confidence)
    if share is None or not len(costs) or not (costs > 0).all() or not np.isfinite(costs).all():
        return None
    mean, half = float(costs.mean()), 0.0
    if len(costs) > 1:
        error = float(costs.std(ddof=1)) / sqrt(len(costs)) / mean
        half = float(stats.t.ppf((1 + confidence) / 2, len(costs) - 1)) * error
    return _over(Interval(value=mean, low=mean * exp(-half), high=mean * exp(half)), share)


def _over(cost: Interval, share: Interval) -> Interval | None:
    """One interval over another, both above 0; None where the cost or the share is not."""
    if cost.low <= 0 or share.value <= 0 or share.low <= 0:
        return None
    value = cost.value / share.value
    below = sqrt(log(cost.value / cost.low) ** 2 + log(share.high / share.value) ** 2)
    above = sqrt(log(cost.high / cost.value) ** 2 + log(share.value / share.low) ** 2)
    return Interval(
        value=value,
        low=value / exp(below),
        high=value * exp(above),
        confidence=share.confidence,
        method=METHOD,
    )
