"""Audits of a cascade, and quality without labels."""

import json
from collections.abc import Iterable

import msgspec
import numpy as np
import pytest

from jettison.errors import NotEnoughData
from jettison.monitor.audit import ALL_TO_FALLBACK, AuditPlan, Audits
from jettison.monitor.estimate import estimate_quality
from jettison.monitor.log import News, Place
from jettison.testing.traffic import Exchange, simulate_cascade
from jettison.traffic import Feedback


def news(exchanges: Iterable[Exchange], feedback: tuple[Feedback, ...] = ()) -> News:
    records = tuple(record for one in exchanges for record in one.records)
    return News(records=records, feedback=feedback, place=Place(), is_all=True)


def test_a_threshold_that_no_longer_holds_is_found_and_a_tighter_one_named() -> None:
    rng = np.random.default_rng(0)
    audits = Audits(AuditPlan(threshold=0.8, epsilon=0.03))
    audits.take(news(simulate_cascade(rng, 4000, audit_share=0.1, harm=0.15)))
    status = audits.status()
    assert status.verdict == "BROKEN"
    assert status.harm_low is not None
    assert status.harm_low > 0.03
    assert status.threshold_wanted is not None
    assert 0.8 < status.threshold_wanted <= ALL_TO_FALLBACK
    assert "the threshold goes from 0.8 to" in status.reason
    after = audits.tightened()
    assert after.plan.threshold == status.threshold_wanted
    assert after.status().verdict == "OPEN"


def test_where_half_of_all_is_wrong_next_to_everything_is_escalated() -> None:
    rng = np.random.default_rng(0)
    audits = Audits(AuditPlan(threshold=0.8, epsilon=0.01))
    audits.take(news(simulate_cascade(rng, 2000, audit_share=0.2, overconfidence=0.5)))
    wanted = audits.status().threshold_wanted
    assert wanted is not None
    assert wanted > 0.99  # hardly an answer is so sure
    few = Audits(AuditPlan(threshold=1.0, epsilon=0.001))
    few.take(
        news(_all_sure(simulate_cascade(rng, 400, threshold=0.0, audit_share=0.5, overconfidence=1.0)))
    )
    assert few.status().threshold_wanted == ALL_TO_FALLBACK


def _all_sure(exchanges: Iterable[Exchange]) -> Iterable[Exchange]:
    for one in exchanges:
        records = tuple(msgspec.structs.replace(record, confidence=1.0) for record in one.records)
        yield Exchange(records=records, feedback=())


def test_a_sound_threshold_comes_to_hold() -> None:
    rng = np.random.default_rng(1)
    audits = Audits(AuditPlan(threshold=0.8, epsilon=0.06))
    audits.take(news(simulate_cascade(rng, 6000, audit_share=0.1, harm=0.01)))
    status = audits.status()
    assert status.verdict == "HOLDS"
    assert status.threshold_wanted is None
    assert status.n_audits > 300


def test_labels_count_instead_of_the_fallback_where_they_are_wanted() -> None:
    rng = np.random.default_rng(0)
    exchanges = list(simulate_cascade(rng, 3000, audit_share=0.2, harm=0.1))
    audited = [one.records[0].example_id for one in exchanges if one.records[-1].role == "audit"]
    # The big model is always wrong, says the label: the lean answer harmed nobody.
    labels = tuple(Feedback(request_id=n, time=0, label="neither", source="audit") for n in audited)
    audits = Audits(AuditPlan(threshold=0.8, truth="label"))
    audits.take(news(exchanges))
    assert audits.status().n_audits == 0
    audits.take(news([], labels))
    status = audits.status()
    assert (status.n_audits, status.harm) == (len(audited), 0.0)
    assert status.fallback_right == 0.0  # silent degradation of the big model shows here
    assert status.fallback_high is not None
    assert status.fallback_high < 0.05


def test_a_restart_goes_on_to_the_last_digit() -> None:
    exchanges = list(simulate_cascade(np.random.default_rng(0), 1000, audit_share=0.3))
    whole, parts = Audits(AuditPlan(threshold=0.8)), Audits(AuditPlan(threshold=0.8))
    whole.take(news(exchanges))
    for start in range(0, 1000, 90):
        parts.take(news(exchanges[start : start + 90]))
        parts = Audits.from_state(json.loads(json.dumps(parts.state())))
    assert parts.status() == whole.status()


def test_an_audit_logged_before_its_answer_counts_as_one_logged_after() -> None:
    exchanges = list(simulate_cascade(np.random.default_rng(0), 300, audit_share=0.5))
    turned = [Exchange(records=one.records[::-1], feedback=()) for one in exchanges]
    before, after = Audits(AuditPlan(threshold=0.8)), Audits(AuditPlan(threshold=0.8))
    before.take(news(turned))
    after.take(news(exchanges))
    assert before.status() == after.status()
    assert before.status().n_audits > 100


def test_records_of_other_routes_are_not_counted() -> None:
    exchanges = list(simulate_cascade(np.random.default_rng(0), 100, audit_share=0.5))
    audits = Audits(AuditPlan(place="treatment"))
    audits.take(news(exchanges))
    assert audits.status().n_requests == 0
    moved = [
        Exchange(
            records=tuple(msgspec.structs.replace(r, route=f"treatment/{r.route}") for r in one.records),
            feedback=(),
        )
        for one in exchanges
    ]
    audits.take(news(moved))
    assert audits.status().n_requests == 100


def test_quality_without_labels_says_that_calibration_alone_carries_it() -> None:
    found = estimate_quality([0.9, 0.7], [])
    assert (found.value, found.low, found.high) == (pytest.approx(0.8), None, None)
    assert "calibration alone" in found.assumption
    assert found.is_calibrated is None
    with pytest.raises(NotEnoughData, match="at least 1 answer with a confidence"):
        estimate_quality([], [])


def test_labels_correct_overconfidence_and_say_so() -> None:
    rng = np.random.default_rng(0)
    confidences = rng.beta(9, 1, 5000)
    right = rng.random(5000) < confidences - 0.2
    labelled = [(float(c), float(r)) for c, r in zip(confidences[:400], right[:400], strict=True)]
    found = estimate_quality(confidences.tolist(), labelled)
    assert found.low is not None
    assert found.high is not None
    assert found.low < 0.7 < found.high < 0.8 < (found.by_confidence or 0)
    assert found.is_calibrated is False
    even = estimate_quality(
        confidences.tolist(), [(float(c), float(rng.random() < c)) for c in confidences[:400]]
    )
    assert even.is_calibrated is True
