"""How many requests a live comparison needs before a loss is found, by simulating the very statistic."""

from dataclasses import dataclass

import numpy as np

from jettison.stats.bernstein_sequence import EmpiricalBernsteinSequence, arm_increments
from jettison.stats.betting_sequence import BettingSequence

_CHUNK = 256


@dataclass(frozen=True, kw_only=True)
class FoundAfter:
    """Requests after which a planted loss is found. None: in fewer runs than that within the limit."""

    median: int | None
    most: int | None
    """In nine runs of ten."""
    limit: int


def pairs_to_find(
    loss: float,
    *,
    margin: float,
    flip_share: float = 0.02,
    alpha: float = 0.025,
    limit: int = 20_000,
    n_runs: int = 200,
    seed: int = 0,
) -> FoundAfter:
    """Shadow pairs until a loss beyond the margin is found.

    Args:
        loss: True loss of treatment, in score units.
        margin: Loss that counts as not worse.
        flip_share: Share of answers that get better, on top of those that the loss makes worse.
        alpha: Of the rollback.
        limit: Pairs simulated at most.
        n_runs: Simulated experiments.
        seed: Of the simulation.
    """
    rng = np.random.default_rng(seed)
    sequence = BettingSequence(alpha_high=alpha, means=[(1 - margin) / 2], streams=(n_runs,))
    shares = (flip_share + loss, flip_share, 1 - loss - 2 * flip_share)
    found = np.zeros(n_runs, int)
    for start in range(0, limit, _CHUNK):
        drawn = rng.choice([-1.0, 1.0, 0.0], p=shares, size=(n_runs, _CHUNK))
        sequence.update((drawn + 1) / 2)
        found[(found == 0) & sequence.is_above[:, 0]] = start + _CHUNK
        if (found > 0).all():
            break
    return _after(found, limit)


def requests_to_find(
    loss: float,
    *,
    margin: float,
    accuracy: float = 0.9,
    share: float = 0.5,
    alpha: float = 0.025,
    limit: int = 200_000,
    n_runs: int = 200,
    seed: int = 0,
) -> FoundAfter:
    """Keys of randomised arms until a loss beyond the margin is found.

    Args:
        loss: True loss of treatment, in score units.
        margin: Loss that counts as not worse.
        accuracy: Of control.
        share: Of treatment.
        alpha: Of the rollback.
        limit: Keys simulated at most.
        n_runs: Simulated experiments.
        seed: Of the simulation.
    """
    rng = np.random.default_rng(seed)
    sequence = EmpiricalBernsteinSequence(alpha_high=alpha, streams=(n_runs,))
    found, total = np.zeros(n_runs, int), np.zeros(n_runs)
    reach = 1 / min(share, 1 - share)
    for start in range(0, limit, _CHUNK):
        arm = rng.random((n_runs, _CHUNK)) < share
        outcome = (rng.random((n_runs, _CHUNK)) < accuracy - loss * arm).astype(float)
        before = total[:, None] + np.cumsum(outcome, axis=1) - outcome
        center = (0.5 + before) / (1 + start + np.arange(_CHUNK))
        z = arm_increments(outcome, arm, np.full(arm.shape, share), center)
        sequence.update(z, low=-reach, high=reach)
        total += outcome.sum(axis=1)
        found[(found == 0) & (sequence.high < -margin)] = start + _CHUNK
        if (found > 0).all():
            break
    return _after(found, limit)


def _after(found: np.ndarray, limit: int) -> FoundAfter:
    times = np.sort(np.where(found == 0, limit + 1, found))
    median, most = int(times[len(times) // 2]), int(times[int(0.9 * len(times))])
    return FoundAfter(
        median=median if median <= limit else None, most=most if most <= limit else None, limit=limit
    )
