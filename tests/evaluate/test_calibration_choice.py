"""A finer map of confidences is taken where it is better on other folds, and only there."""

import numpy as np
import pytest

from jettison.evaluate.calibrate import fit_temperature
from jettison.evaluate.calibration_choice import LEAST_FINER, Answers, chosen_method
from jettison.model import softmax


def answers(n: int, *, shift: float = 0.0, sharpness: float = 2.0, seed: int = 0) -> Answers:
    """Right labels drawn from a softmax; the logits seen are too sharp, the first one too high."""
    rng = np.random.default_rng(seed)
    true = rng.normal(0, 2, (n, 3))
    expected = (softmax(true).cumsum(axis=1) > rng.random((n, 1))).argmax(axis=1)
    return Answers(logits=true * sharpness + np.array([shift, 0, 0]), expected=expected, weights=np.ones(n))


@pytest.mark.parametrize("seed", range(3))
def test_where_one_temperature_is_the_truth_it_is_kept(seed: int) -> None:
    assert chosen_method(answers(1000, seed=seed), fit_temperature) == "temperature"


def test_where_a_label_is_too_high_a_finer_map_is_chosen() -> None:
    assert chosen_method(answers(2000, shift=5.0), fit_temperature) == "vector"


def test_few_answers_fit_no_more_than_a_temperature() -> None:
    assert chosen_method(answers(LEAST_FINER - 1, shift=5.0), fit_temperature) == "temperature"


def test_a_label_without_examples_keeps_the_temperature() -> None:
    known = answers(600)
    outside = Answers(
        logits=np.column_stack([known.logits, np.full(600, -3.0)]),
        expected=known.expected,
        weights=known.weights,
        outside=3,
    )
    scales, biases = outside.fitted_vector(2.0)
    assert (scales[3], biases[3]) == (0.5, 0.0)
    assert (scales[:3], biases[:3]) == known.fitted_vector(2.0)
