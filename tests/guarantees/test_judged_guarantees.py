"""What a gate promises when the scorer behind it errs, shown by simulation."""

import numpy as np
import pytest
from scipy.stats import binomtest

from jettison.stats.judged import JudgeCounts, judged_margin_test
from jettison.stats.noninferiority import margin_test

pytestmark = pytest.mark.guarantee


def test_a_loss_at_the_margin_passes_no_oftener_than_alpha_though_the_judge_errs():
    # Truth: 90 % right before, 80 % after, a loss of just the margin; the judge's own error is measured on
    # 150 + 150 answers of each draw. Verdicts taken as they are see 7.7 points and pass far oftener.
    rng, hits, plain = np.random.default_rng(5), 0, 0
    sens, spec, n, draws = 0.88, 0.89, 400, 2000
    for _ in range(draws):
        counts = JudgeCounts(
            n_right=150, n_right_passed=int(rng.binomial(150, sens)), n_wrong=150,
            n_wrong_failed=int(rng.binomial(150, spec)),
        )  # fmt: skip
        truths = (rng.random((2, n)) < [[0.8], [0.9]]).astype(float)
        passed = rng.random((2, n)) < np.where(truths == 1, sens, 1 - spec)
        a, b = passed.astype(float)
        hits += judged_margin_test(a, b, counts, margin=0.1).p_not_worse <= 0.025
        plain += margin_test(a, b, margin=0.1).p_not_worse <= 0.025
    print(f"passed at the margin: {hits / draws:.4f}; verdicts taken as they are: {plain / draws:.4f}")
    assert binomtest(hits, draws, 0.025, alternative="greater").pvalue > 1e-4
    assert binomtest(plain, draws, 0.025, alternative="greater").pvalue < 1e-4
