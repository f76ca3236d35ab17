"""A ratio's interval over openings covers the truth where processes differ; one over rounds does not."""

import numpy as np
import pytest
from scipy.stats import binomtest

from jettison.cost.ratio import median_interval, openings_interval

pytestmark = pytest.mark.guarantee
DRAWS = 2000
DOUBT = 1e-4
TRUTH = 0.8


def rounds_of(
    rng: np.random.Generator, *, n_openings: int, n_rounds: int, process: float, noise: float, tail: float
) -> list[list[float]]:
    """Ratios of two models' rounds: each process has its own level, each round its own noise.

    Args:
        rng: Draws them.
        n_openings: Pairs of fresh processes.
        n_rounds: Of each pair.
        process: Standard deviation of a process's level, on the logarithm; 0.04 was seen of a real
            classifier (`benchmarks/aa_runs.py`).
        noise: Standard deviation of a round, likewise.
        tail: Share of rounds in which a neighbor takes up to half as much again.
    """
    shape = (n_openings, n_rounds)
    logs = np.log(TRUTH) + (rng.normal(0, process, (2, n_openings, 1)) * [[[1]], [[-1]]]).sum(axis=0)
    logs = logs + rng.normal(0, noise * np.sqrt(2), shape)
    logs += rng.choice([-1, 1], shape) * (rng.random(shape) < tail) * rng.uniform(0, 0.4, shape)
    return np.exp(logs).tolist()  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("process", "noise", "tail"),
    [(0.04, 0.03, 0.0), (0.04, 0.03, 0.1), (0.0, 0.03, 0.1), (0.1, 0.02, 0.0)],
)
@pytest.mark.parametrize("n_openings", [3, 6])
def test_the_interval_over_openings_covers_as_often_as_it_says(
    process: float, noise: float, tail: float, n_openings: int
) -> None:
    rng = np.random.default_rng(5)
    hits, plain_hits, old_hits = 0, 0, 0
    for _ in range(DRAWS):
        settings = {"n_rounds": 18 // n_openings, "process": process, "noise": noise, "tail": tail}
        drawn = rounds_of(rng, n_openings=n_openings, **settings)
        twins = rounds_of(rng, n_openings=n_openings, **settings)
        found = openings_interval(drawn, twins=twins)
        plain = openings_interval(drawn)
        assert found is not None
        assert plain is not None
        hits += found.low <= TRUTH <= found.high
        plain_hits += plain.low <= TRUTH <= plain.high
    one_pair = {"n_openings": 1, "n_rounds": 18, "process": process, "noise": noise, "tail": tail}
    for _ in range(400):
        old = median_interval(rounds_of(rng, **one_pair)[0])
        assert old is not None
        old_hits += old.low <= TRUTH <= old.high
    print(
        f"process {process:g}, noise {noise:g}, neighbors {tail:g}, {n_openings} openings: "
        f"covers {hits / DRAWS:.3f}, without the twin {plain_hits / DRAWS:.3f}, "
        f"rounds of one pair of processes {old_hits / 400:.3f}"
    )
    assert binomtest(hits, DRAWS, 0.95, alternative="less").pvalue > DOUBT
    assert binomtest(plain_hits, DRAWS, 0.95, alternative="less").pvalue > DOUBT
    if process > 0:
        # Why it is needed: the rounds of one pair cannot see how two processes differ.
        assert binomtest(old_hits, 400, 0.95, alternative="less").pvalue < DOUBT
