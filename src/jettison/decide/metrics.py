"""What is shown beside a verdict: accuracy, F1, calibration and scope, slice by slice."""

from collections import Counter
from collections.abc import Sequence
from operator import attrgetter

from jettison.decide.pairing import record_score
from jettison.decide.slices import by_slice
from jettison.record import Record
from jettison.stats import calibration, classification, ranking

LABEL = "label"
SCOPE = "scope"
"""Slice column with the values `in` and `out`, set where the task has an out-of-scope label."""


def summarize(records: Sequence[Record]) -> dict[str, dict[str, float | None]]:
    """Metrics of every slice present; None is "cannot be known from these records".

    Returns:
        slice → metric → value, with the metrics `accuracy`, `macro_f1`, `accuracy_in_scope`,
        `auroc`, `out_of_scope_recall`, `false_alarm_share`, `coverage`, `ece`, `brier`, `log_loss`, `aurc`,
        `accuracy_at_80_coverage`, `mean_confidence`, `error_share`, `escalated_share`, and the
        mean of each further scorer by its name.
    """
    return {name: slice_metrics(members) for name, members in by_slice(records).items()}


def slice_counts(records: Sequence[Record]) -> dict[str, int]:
    """Records of every slice present."""
    return {name: len(members) for name, members in by_slice(records).items()}


def arm_shares(records: Sequence[Record]) -> dict[str, float]:
    """Share of the answers that each arm of a cascade gave, the arm that is asked first before the others.

    Empty for a single model.
    """
    told = Counter(record.arm for record in records if record.arm is not None)
    by_depth = sorted(told, key=lambda arm: (arm.count("fallback"), arm))
    return {arm: told[arm] / told.total() for arm in by_depth}


def per_class(records: Sequence[Record]) -> tuple[classification.ClassScores, ...]:
    """Precision, recall and F1 of each class, over the records that say what was expected."""
    expected, predicted = _labels(records)
    return classification.per_class(expected, predicted) if expected else ()


def slice_metrics(records: Sequence[Record]) -> dict[str, float | None]:
    """Metrics of the records given, as one slice."""
    expected, predicted = _labels(records)
    scorers = sorted(set().union(*map(attrgetter("scores"), records)) - {LABEL})
    # Where another scorer judged, comparing the texts would be a second, stricter opinion beside its own.
    is_by_text = not scorers or _has(records, LABEL)
    accuracy = weighted_score(records, LABEL) if _has(records, LABEL) else _accuracy(records)
    return {
        "accuracy": accuracy if is_by_text else None,
        "macro_f1": classification.macro_f1(expected, predicted) if expected and is_by_text else None,
        **_scope_metrics(records),
        **_confidence_metrics(records),
        "error_share": _share([record.error is not None for record in records if not record.unanswered]),
        "escalated_share": _share([record.escalated for record in records]),
        **{name: weighted_score(records, name) for name in scorers},
    }


def weighted_score(records: Sequence[Record], scorer: str) -> float | None:
    """Weighted mean of a scorer, a failed call counting 0; None when nothing could be judged."""
    judged = [(score, r.weight) for r in records if (score := record_score(r, scorer)) is not None]
    total = sum(weight for _, weight in judged)
    return sum(score * weight for score, weight in judged) / total if total else None


def _scope_metrics(records: Sequence[Record]) -> dict[str, float | None]:
    scopes = [r.slices.get(SCOPE) for r in records]
    inside = [r for r, scope in zip(records, scopes, strict=True) if scope == "in"]
    outside = [r for r, scope in zip(records, scopes, strict=True) if scope == "out"]
    scores_in = [r.in_scope for r in inside if r.in_scope is not None]
    scores_out = [r.in_scope for r in outside if r.in_scope is not None]
    separates = bool(scores_in and scores_out)
    return {
        "accuracy_in_scope": weighted_score(inside, LABEL) if _has(inside, LABEL) else _accuracy(inside),
        # A low in_scope is the sign of an out-of-scope input, so in-scope examples rank above.
        "auroc": ranking.auroc(scores_in, scores_out) if separates else None,
        "out_of_scope_recall": _share([r.flagged for r in outside if r.flagged is not None]),
        "false_alarm_share": _share([r.flagged for r in inside if r.flagged is not None]),
        "coverage": _share([not r.abstained for r in records if not r.unanswered]),
    }


def _confidence_metrics(records: Sequence[Record]) -> dict[str, float | None]:
    sure = [
        (r.confidence, correct)
        for r in records
        if r.error is None
        and not r.abstained  # its confidence is that of an answer nobody got
        and r.confidence is not None
        and (correct := _is_right(r)) is not None
    ]
    if not sure:
        names = ("ece", "brier", "log_loss", "aurc", "accuracy_at_80_coverage", "mean_confidence")
        return dict.fromkeys(names)
    confidence, right = [c for c, _ in sure], [y for _, y in sure]
    return {
        "ece": calibration.calibration_error(confidence, right),
        "brier": calibration.brier(confidence, right),
        "log_loss": calibration.log_loss(confidence, right),
        "aurc": calibration.risk_coverage_area(confidence, right),
        "accuracy_at_80_coverage": calibration.accuracy_at_coverage(confidence, right, 0.8),
        "mean_confidence": sum(confidence) / len(confidence),
    }


def _is_right(record: Record) -> float | None:
    score = record.scores.get(LABEL)
    if score is not None:
        return score
    return None if record.expected is None or record.unanswered else float(record.output == record.expected)


def _labels(records: Sequence[Record]) -> tuple[list[str], list[str | None]]:
    known = [(r.expected, r.output) for r in records if r.expected is not None and not r.unanswered]
    if all(output is None for _, output in known):
        return [], []  # a file of scores alone: what was answered is not known
    return [expected for expected, _ in known], [output for _, output in known]


def _accuracy(records: Sequence[Record]) -> float | None:
    known = [(r, r.weight) for r in records if r.expected is not None and not r.unanswered]
    total = sum(weight for _, weight in known)
    return sum(w * (r.output == r.expected) for r, w in known) / total if total else None


def _share(values: Sequence[bool | None]) -> float | None:
    return sum(bool(value) for value in values) / len(values) if values else None


def _has(records: Sequence[Record], scorer: str) -> bool:
    return any(scorer in record.scores for record in records)
