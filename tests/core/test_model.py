"""Decoding: one rule for every backend, and one row as many."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jettison.candidate import Calibration
from jettison.model import Decoder, softmax

LABELS = ("a", "b", "c", "oos")


def test_confidence_is_the_softmax_at_the_temperature():
    # Logits (2, 0, 0, 0) at temperature 2: e / (e + 3) = 0.4754.
    decoder = Decoder(LABELS, None, Calibration(temperature=2.0))
    (answer,) = decoder.outputs(np.array([[2.0, 0.0, 0.0, 0.0]], np.float32))
    assert (answer.label, answer.in_scope, answer.flagged) == ("a", None, False)
    assert answer.confidence == pytest.approx(np.e / (np.e + 3))


def test_energy_is_the_log_sum_of_the_in_scope_logits():
    decoder = Decoder(LABELS, "oos", Calibration(scope_rule="energy"))
    scores = decoder.scope_scores(np.array([[1.0, 2.0, 3.0, 9.0]]))
    assert scores == pytest.approx([np.log(np.e + np.e**2 + np.e**3)])


def test_the_rank_is_the_share_of_dev_that_looked_less_in_scope():
    calibration = Calibration(scope_quantiles=(0.0, 0.5, 1.0), false_alarm_share=0.3)
    decoder = Decoder(("a", "oos"), "oos", calibration)
    # Probability of `a` 0.25: halfway from quantile 0 to the median, a rank of a quarter: flagged.
    (answer,) = decoder.outputs(np.log(np.array([[0.25, 0.75]])))
    assert answer.in_scope == pytest.approx(0.25)
    assert answer.flagged


rows = st.lists(st.lists(st.floats(-30, 30, width=32), min_size=4, max_size=4), min_size=2, max_size=5)


@given(rows, st.floats(0.1, 10), st.sampled_from(["max_probability", "energy"]), st.booleans())
def test_one_row_is_decoded_as_many_are(values, temperature, rule, has_scope):
    calibration = Calibration(
        temperature=temperature,
        scope_rule=rule,
        scope_quantiles=(-5.0, 0.1, 0.5, 4.0) if has_scope else None,
    )
    decoder = Decoder(LABELS, "oos" if has_scope else None, calibration)
    logits = np.array(values, np.float32)
    together = decoder.outputs(logits)
    for row, expected in zip(logits, together, strict=True):
        (alone,) = decoder.outputs(row[None, :])
        assert alone.label == expected.label
        assert alone.confidence == pytest.approx(expected.confidence, rel=1e-9)
        assert alone.in_scope == (
            None if expected.in_scope is None else pytest.approx(expected.in_scope, abs=1e-9)
        )


def test_softmax_does_not_overflow():
    assert softmax(np.array([[1e4, 0.0]])) == pytest.approx(np.array([[1.0, 0.0]]))
