"""Reliability and risk-coverage of each candidate's confidences on the test split."""

from collections.abc import Sequence

from jettison.decide.pairing import record_score
from jettison.decide.report_evidence import BinOfAnswers, ConfidenceCurves, KeptAnswers
from jettison.decide.slices import in_slice
from jettison.decision import Interval
from jettison.record import Record
from jettison.stats.calibration import brier, calibration_error
from jettison.stats.clustered import mean_difference_ci
from jettison.stats.reliability import reliability, risk_coverage

LEAST_ANSWERS = 40
"""Fewer draw no curve that anybody could read."""
N_RISK_POINTS = 40


def confidence_curves(
    name: str, records: Sequence[Record], incumbent: Sequence[Record] | None, scorer: str
) -> ConfidenceCurves | None:
    """Curves of one candidate; None where confidences, or answers that are right or wrong, are too few.

    Of a suite the tier `in_domain` alone is looked at, and of a task with an out-of-scope label the
    examples in scope: what is out of scope is told by the flag, not by the label's confidence.

    Args:
        name: Of the candidate.
        records: Its test records.
        incumbent: The incumbent's on the same examples, for the paired Brier score; None of itself.
        scorer: Says what is right (1) or wrong (0); graded scores draw no curve.
    """
    on = written_by_users(records)
    judged = _judged([r for r in records if in_slice(r, on)], scorer)
    if judged is None or len(judged) < LEAST_ANSWERS:
        return None
    sure, right = [c for c, _ in judged.values()], [y for _, y in judged.values()]
    return ConfidenceCurves(
        candidate=name,
        on=on,
        n=len(judged),
        reliability=tuple(
            BinOfAnswers(confidence=b.confidence, right_share=b.right_share, low=b.low, high=b.high, n=b.n)
            for b in reliability(sure, right)
        ),
        risk_coverage=tuple(
            KeptAnswers(coverage=p.coverage, risk=p.risk, low=p.low, high=p.high)
            for p in risk_coverage(sure, right, n_points=N_RISK_POINTS)
        ),
        ece=calibration_error(sure, right),
        brier=brier(sure, right),
        brier_difference=None if incumbent is None else _paired_brier(judged, incumbent, scorer),
    )


def written_by_users(records: Sequence[Record]) -> str:
    """The slice of in-scope examples as they were written, whether or not the task is a suite."""
    for column, value in (("tier", "in_domain"), ("scope", "in")):
        if any(record.slices.get(column) == value for record in records):
            return f"{column}={value}"
    return "all"


def _judged(records: Sequence[Record], scorer: str) -> dict[str, tuple[float, float]] | None:
    """Example → confidence and 1 or 0; None where an answer is neither right nor wrong."""
    found = {}
    for record in records:
        score = record_score(record, scorer)
        if score is None or record.confidence is None:
            continue
        if score not in (0.0, 1.0):
            return None
        found[record.example_id] = (record.confidence, score)
    return found


def _paired_brier(
    judged: dict[str, tuple[float, float]], incumbent: Sequence[Record], scorer: str
) -> Interval | None:
    theirs = _judged([r for r in incumbent if r.example_id in judged], scorer)
    if theirs is None or len(theirs) < LEAST_ANSWERS:
        return None
    groups = {r.example_id: r.group or f"\0{r.example_id}" for r in incumbent}
    ids = list(theirs)
    found = mean_difference_ci(
        [(judged[i][0] - judged[i][1]) ** 2 for i in ids],
        [(theirs[i][0] - theirs[i][1]) ** 2 for i in ids],
        groups=[groups[i] for i in ids] if len({groups[i] for i in ids}) < len(ids) else None,
    )
    return Interval(
        value=found.value,
        low=found.low,
        high=found.high,
        confidence=found.confidence,
        method=found.method,
    )
