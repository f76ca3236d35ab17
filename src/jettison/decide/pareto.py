"""Which candidates no other beats on both score, over all examples, and cost."""

from collections.abc import Sequence

import msgspec

from jettison.decide.metrics import LABEL
from jettison.decide.slices import ALL
from jettison.decision import CandidateReport


def mark_pareto(reports: Sequence[CandidateReport], *, scorer: str) -> list[CandidateReport]:
    """Mark the reports that no other beats on the score over all examples and CPU-seconds per task.

    A candidate whose score or cost is not known is neither marked nor beats another.

    Args:
        reports: The incumbent and its candidates.
        scorer: Of the first gate.
    """
    places = [(score_on(report, scorer, ALL), _cpu_s(report)) for report in reports]
    return [
        msgspec.structs.replace(report, pareto=_is_pareto(place, places))
        for report, place in zip(reports, places, strict=True)
    ]


def score_on(report: CandidateReport, scorer: str, on: str) -> float | None:
    """Mean of a scorer on a slice, from a report."""
    metrics = report.scores.get(on, {})
    return metrics.get("accuracy" if scorer == LABEL else scorer)


def _cpu_s(report: CandidateReport) -> float | None:
    return None if report.cost.cpu_s is None else report.cost.cpu_s.value


def _is_pareto(
    place: tuple[float | None, float | None], places: Sequence[tuple[float | None, float | None]]
) -> bool:
    score, cpu_s = place
    if score is None or cpu_s is None:
        return False
    for other_score, other_cpu_s in places:
        if other_score is None or other_cpu_s is None:
            continue
        as_good = other_score >= score and other_cpu_s <= cpu_s
        if as_good and (other_score > score or other_cpu_s < cpu_s):
            return False
    return True
