"""One look at clean traffic: at most alpha of 1,000 windows are called drift, by any of its tests."""

from collections import Counter

import numpy as np
import pytest
from scipy.stats import binom

from jettison.evaluate.profile import reference_sketch
from jettison.monitor.drift import judge_drift
from jettison.monitor.drift_window import Window
from jettison.record import Record
from jettison.stats.binomial import clopper_pearson
from jettison.stats.two_samples import classifier_differs

N_WINDOWS, ALPHA = 1000, 0.05
N_FEATURES = 70
N_TOPICS = 12


@pytest.mark.guarantee
@pytest.mark.parametrize(("n_reference", "n_window"), [(750, 500), (200, 200), (500, 3000)])
def test_clean_vectors_are_told_apart_no_more_often_than_alpha(n_reference: int, n_window: int) -> None:
    rng = np.random.default_rng(0)
    n_alarms = 0
    for _ in range(N_WINDOWS):
        # Skewed and dependent, as shares of words and letters are.
        both = rng.exponential(size=(n_reference + n_window, N_FEATURES))
        both[:, 1:] += 0.5 * both[:, :-1]
        reference, window = both[:n_reference], both[n_reference:]
        mean, covariance = reference.mean(axis=0), np.cov(reference, rowvar=False)
        n_alarms += classifier_differs(mean, covariance, n_reference, other=window).p_value <= ALPHA
    told(f"classifier, {n_reference} and {n_window}", n_alarms)


def told(name: str, n_alarms: int) -> None:
    """Print the share of alarms and judge it."""
    seen = clopper_pearson(n_alarms, N_WINDOWS)
    print(f"{name}: {seen.value:.3f} ({seen.low:.3f} to {seen.high:.3f}) at {ALPHA}")
    assert n_alarms <= int(binom.isf(1e-3, N_WINDOWS, ALPHA))


def records(rng: np.random.Generator, n: int) -> list[Record]:
    """Answers to texts of twelve topics, with words of their own and common ones, frequent and rare."""
    made = []
    for number in range(n):
        topic = int(rng.integers(N_TOPICS))
        size = 3 + int(rng.poisson(6))
        own = rng.random(size) < 0.4
        ranks = np.minimum(rng.zipf(1.4, size), 4000)
        words = [f"{topic if is_own else 'c'}w{rank}" for is_own, rank in zip(own, ranks, strict=True)]
        text = " ".join(words) + ("?" if rng.random() < 0.3 else "")
        made.append(
            Record(
                candidate="c", example_id=str(number), split="live", role="answer", input=text,
                output=f"label {topic}", confidence=float(rng.beta(9, 2)), in_scope=float(rng.random()),
                flagged=bool(rng.random() < 0.03),
            )
        )  # fmt: skip
    return made


@pytest.mark.guarantee
def test_a_look_at_clean_traffic_finds_drift_no_more_often_than_alpha() -> None:
    rng = np.random.default_rng(0)
    n_alarms, by, n_words = 0, Counter[str](), 0
    for _ in range(N_WINDOWS):
        known = records(rng, 500)
        window = Window(reference_sketch(known, [str(record.input) for record in known]))
        window.take(records(rng, 300))
        found = judge_drift(window, alpha=ALPHA, least_moved=0.0)
        n_alarms += found.verdict == "DRIFT"
        by.update(test.name for test in found.tests if test.has_drifted)
        n_words += next(test.p_value for test in found.tests if test.name == "words") <= ALPHA
    told(f"a look, found by {dict(by)}", n_alarms)
    told("words alone", n_words)
