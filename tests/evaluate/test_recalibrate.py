"""A language model is asked once; its calibration is computed from what it answered."""

from pathlib import Path

import numpy as np
import pytest

from jettison.backends.open import open_model
from jettison.candidate import Candidate, write_candidate
from jettison.errors import NotEnoughData
from jettison.evaluate.calibrate import calibrate
from jettison.evaluate.recalibrate import fit_confidence_map, recalibrated, uncalibrated
from jettison.evaluate.run import evaluate
from jettison.model import mapped_confidence
from jettison.record import Record
from tiny import make_tiny_development

DATA = make_tiny_development(train=10, dev=80, unlabelled=0)


def fake(folder: Path) -> Candidate:
    folder.mkdir()
    return write_candidate(folder, name="fake", backend="fake", labels=DATA.labels)


def test_records_as_the_calibrated_candidate_itself_gives_them(tmp_path: Path) -> None:
    raw = fake(tmp_path / "fake")
    records = evaluate(raw, DATA.dev, split="dev", keep_logits=True)
    made = calibrate(raw, DATA, cache=tmp_path / "a", records=records)
    asked = calibrate(raw, DATA, cache=tmp_path / "b")
    assert made.calibration == asked.calibration
    assert uncalibrated(made).digest == raw.digest
    computed = recalibrated(records, made)
    answered = open_model(made).predict([e.input for e in DATA.dev])
    assert [r.output for r in computed] == [o.label for o in answered]
    np.testing.assert_allclose([r.confidence for r in computed], [o.confidence for o in answered])
    assert {r.candidate for r in computed} == {made.digest}


def test_without_logits_confidence_becomes_the_share_that_is_right() -> None:
    rng = np.random.default_rng(0)
    raw = rng.uniform(0.5, 1.0, 4000)
    # It says 0.9 where it is right in 0.7: overconfident by a known map.
    chance = 1 / (1 + np.exp(-(0.6 * np.log(raw / (1 - raw)) - 0.3)))
    records = [record(c, float(rng.random() < p)) for c, p in zip(raw, chance, strict=True)]
    slope, intercept = fit_confidence_map(records, "label")
    assert (slope, intercept) == pytest.approx((0.6, -0.3), abs=0.12)
    mapped = [mapped_confidence(float(c), {"confidence_map": [slope, intercept]}) for c in raw]
    np.testing.assert_allclose(mapped, chance, atol=0.04)


def test_an_order_of_confidences_is_never_turned_round() -> None:
    records = [record(0.9, 0.0)] * 20 + [record(0.6, 1.0)] * 20
    assert fit_confidence_map(records, "label")[0] == 0.0


def test_always_right_stays_finite() -> None:
    slope, intercept = fit_confidence_map([record(0.8, 1.0)] * 50, "label")
    assert 0.9 < mapped_confidence(0.8, {"confidence_map": [slope, intercept]}) < 1.0


def test_too_few_answers_are_said() -> None:
    with pytest.raises(NotEnoughData, match=r"at least 20 answers judged by 'f1'"):
        fit_confidence_map([record(0.8, 1.0)] * 30, "f1")


def record(confidence: float, score: float) -> Record:
    return Record(
        candidate="c",
        example_id="e",
        split="dev",
        output="x",
        confidence=confidence,
        scores={"label": score},
    )
