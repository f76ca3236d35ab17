"""Reliability and risk-coverage of each candidate's confidences on test, and whether test refutes them."""

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from jettison.decide.pairing import record_score
from jettison.decide.report_evidence import (
    BinOfAnswers,
    ConfidenceCheck,
    ConfidenceCurves,
    KeptAnswers,
)
from jettison.decide.slices import in_slice
from jettison.decision import Interval
from jettison.record import Record
from jettison.stats import interval as stats_interval
from jettison.stats.calibration import brier, calibration_error
from jettison.stats.calibration_check import (
    ALPHA,
    LEAST_ANSWERS,
    CalibrationDifference,
    calibration_difference,
    check_calibration,
    right_near,
)
from jettison.stats.clustered import mean_difference_ci
from jettison.stats.multiplicity import holm
from jettison.stats.reliability import reliability, risk_coverage

N_RISK_POINTS = 40
NEAR = 0.9
"""The confidence that the report asks about by name."""
Judged = dict[str, tuple[float, float]]
"""Example → confidence, and 1 where the answer is right."""


def confidence_curves(
    name: str,
    records: Sequence[Record],
    incumbent: Sequence[Record] | None,
    scorer: str,
    *,
    dev: Sequence[Record] = (),
) -> ConfidenceCurves | None:
    """Curves of one candidate; None where confidences, or answers that are right or wrong, are too few.

    Answers that all depend on each other are one group, and too few.

    Of a suite the tier `in_domain` alone is looked at, and of a task with an out-of-scope label the
    examples in scope: what is out of scope is told by the flag, not by the label's confidence.

    Args:
        name: Of the candidate.
        records: Its test records.
        incumbent: The incumbent's on the same examples, for the paired Brier score; None of itself.
        scorer: Says what is right (1) or wrong (0); graded scores draw no curve.
        dev: The candidate's records of dev examples that its confidences were not fitted on.
    """
    on = written_by_users(records)
    judged = _judged(_in_scope(records), scorer)
    groups = groups_of(records)
    if judged is None or not _are_enough(judged, groups):
        return None
    before = None if incumbent is None else _beside(judged, incumbent, scorer, groups)
    difference = None if before is None else _difference(judged, before, groups)
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
        brier_difference=None if before is None else _paired_brier(judged, before, groups),
        test=_check("test", judged, groups),
        dev=_check("dev", _judged(_in_scope(dev), scorer), groups_of(dev)),
        ece_difference=None if difference is None else as_stored(difference.ece),
        gap_difference=None if difference is None else as_stored(difference.gap),
    )


def with_refuted(curves: Sequence[ConfidenceCurves]) -> tuple[ConfidenceCurves, ...]:
    """The curves, with those marked whose calibration test refutes: no false mark among all at 95 %."""
    checked = [one.test.p_value for one in curves if one.test is not None]
    adjusted = iter(holm(checked).tolist() if checked else [])
    return tuple(
        one if one.test is None else msgspec.structs.replace(one, refuted=next(adjusted) <= ALPHA)
        for one in curves
    )


def written_by_users(records: Sequence[Record]) -> str:
    """The slice of in-scope examples as they were written, whether or not the task is a suite."""
    for column, value in (("tier", "in_domain"), ("scope", "in")):
        if any(record.slices.get(column) == value for record in records):
            return f"{column}={value}"
    return "all"


def _judged(records: Sequence[Record], scorer: str) -> Judged | None:
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


def _in_scope(records: Sequence[Record]) -> list[Record]:
    """Records of in-scope examples as users wrote them."""
    on = written_by_users(records)
    return [r for r in records if in_slice(r, on) and r.slices.get("scope") != "out"]


def _are_enough(judged: Judged, groups: Mapping[str, str]) -> bool:
    """Whether an interval can be told of them: answers enough, in two groups or more."""
    return len(judged) >= LEAST_ANSWERS and len({groups[i] for i in judged}) > 1


def _beside(
    judged: Judged, incumbent: Sequence[Record], scorer: str, groups: Mapping[str, str]
) -> Judged | None:
    """The incumbent's answers to the same examples; None where too few are judged."""
    theirs = _judged([r for r in incumbent if r.example_id in judged], scorer)
    return theirs if theirs is not None and _are_enough(theirs, groups) else None


def _check(split: str, judged: Judged | None, groups: Mapping[str, str]) -> ConfidenceCheck | None:
    if judged is None or not _are_enough(judged, groups):
        return None
    sure, right = [c for c, _ in judged.values()], [y for _, y in judged.values()]
    found = check_calibration(sure, right, groups=_depend(judged, groups))
    near = right_near(sure, right, NEAR)
    return ConfidenceCheck(
        split=split,
        n=found.n,
        ece=as_stored(found.ece),
        gap=as_stored(found.gap),
        p_value=found.p_value,
        near=None
        if near is None
        else BinOfAnswers(
            confidence=near.confidence,
            right_share=near.right.value,
            low=near.right.low,
            high=near.right.high,
            n=near.n,
        ),
    )


def _difference(judged: Judged, before: Judged, groups: Mapping[str, str]) -> CalibrationDifference:
    ours, theirs = [judged[i] for i in before], list(before.values())
    return calibration_difference(
        [c for c, _ in ours],
        [y for _, y in ours],
        [c for c, _ in theirs],
        [y for _, y in theirs],
        groups=_depend(before, groups),
    )


def _paired_brier(judged: Judged, before: Judged, groups: Mapping[str, str]) -> Interval:
    return as_stored(
        mean_difference_ci(
            [(judged[i][0] - judged[i][1]) ** 2 for i in before],
            [(c - y) ** 2 for c, y in before.values()],
            groups=_depend(before, groups),
        )
    )


def groups_of(records: Sequence[Record]) -> dict[str, str]:
    """Example → group; an example without one is a group of its own."""
    return {r.example_id: r.group or f"\0{r.example_id}" for r in records}


def _depend(ids: Iterable[str], groups: Mapping[str, str]) -> list[str] | None:
    """Group of each example; None where each stands alone."""
    found = [groups[i] for i in ids]
    return found if len(set(found)) < len(found) else None


def as_stored(one: stats_interval.Interval) -> Interval:
    """An interval as decisions and reports keep it."""
    return Interval(
        value=one.value, low=one.low, high=one.high, confidence=one.confidence, method=one.method
    )
