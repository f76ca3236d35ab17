"""Whether a run under load may be believed: its client, its neighbors and its steadiness are checked."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

from jettison.cost.calls import Calls
from jettison.cost.canary import MOST_DRIFT, canary_drift
from jettison.cost.timers import CLAIM_ABOVE, TimerFloor

MARK_LATE, REFUSE_LATE = 0.1, 0.5
"""The 99th percentile of the client's lateness, as a share of the median latency."""
LEAST_DELIVERED = 0.95
KS_LEAST_P = 0.001
MOST_UTILISATION = 0.7


class Validity(NamedTuple):
    """What the checks say of one target's blocks."""

    is_claim: bool
    marks: tuple[str, ...]
    gaps_ks_p: float | None


def check_blocks(
    blocks: Sequence[Calls],
    *,
    floor: TimerFloor,
    is_poisson: bool,
    is_open: bool,
    runs_here: bool,
) -> Validity:
    """Check lateness, delivered load, gaps, steadiness and the size of what was measured.

    Args:
        blocks: Of one target, at least one, warm-up left out.
        floor: How late timers are here.
        is_poisson: Whether arrivals were drawn as such.
        is_open: Whether requests had a time at which they were due.
        runs_here: Whether the model runs in the client's process: then it alone says when it takes one up.
    """
    latency_s = np.concatenate([block.latency_s for block in blocks])
    late_s = np.concatenate([np.asarray(block.late_s) for block in blocks])
    middle_s = float(np.median(latency_s))
    marks, is_claim = [], True
    late_p99_s = float(np.quantile(late_s, 0.99))
    if is_open and np.isfinite(middle_s) and late_p99_s > MARK_LATE * middle_s:
        is_claim = late_p99_s <= REFUSE_LATE * middle_s
        marks.append(
            f"{'' if is_claim else 'no claim: '}the client itself sent requests late "
            f"(99th percentile {1000 * late_p99_s:.2g} ms, median latency {1000 * middle_s:.2g} ms)."
        )
    if is_open and not runs_here:
        delivered = _delivered_share(blocks)
        if delivered < LEAST_DELIVERED:
            is_claim = False
            marks.append(f"no claim: the client delivered {delivered:.0%} of the rate that was asked for.")
    ks_p = _gaps_p(blocks) if is_poisson and not runs_here else None
    if ks_p is not None and ks_p < KS_LEAST_P:
        marks.append(f"the gaps between requests as sent are not Poisson's (KS p = {ks_p:.1g}).")
    if np.isfinite(middle_s) and middle_s < CLAIM_ABOVE * floor.late_p50_s:
        marks.append(
            f"the median latency is under {CLAIM_ABOVE:g} times the lateness of this machine's timers "
            f"({1e6 * floor.late_p50_s:.0f} µs): differences that small are not to be trusted."
        )
    if (steady := steady_words([float(np.median(b.latency_s)) for b in blocks if len(b.rows)])) != "":
        marks.append(steady)
    return Validity(is_claim, tuple(marks), ks_p)


def machine_marks(canary_s: Sequence[float]) -> tuple[str, ...]:
    """What the canary says of the machine."""
    drift = canary_drift(canary_s)
    if drift is None or drift <= MOST_DRIFT:
        return ()
    return (f"a fixed piece of work changed its CPU time by {drift:.0%} between the run's halves.",)


def steady_words(levels: Sequence[float], *, n_shuffles: int = 999) -> str:
    """Say so when the level of a run's blocks changes once and for all; empty when it seems steady.

    Args:
        levels: One figure a block, in the order of time, shape (n_blocks,).
        n_shuffles: Of the permutation test.

    Source:
        CUSUM of ranks with a permutation test at 1 % (Pettitt 1979's statistic); only a change by
        over 10 % is told.
    """
    if len(levels) < 8 or not np.isfinite(levels).all():
        return ""
    ranks = stats.rankdata(levels)
    rng = np.random.default_rng(0)
    seen = _cusum(ranks)
    larger = sum(_cusum(rng.permutation(ranks)) >= seen for _ in range(n_shuffles))
    at = int(np.abs(np.cumsum(ranks - ranks.mean()))[:-1].argmax()) + 1
    before, after = float(np.median(levels[:at])), float(np.median(levels[at:]))
    change = after / before if before > 0 else 1.0
    if (larger + 1) / (n_shuffles + 1) > 0.01 or 1 / 1.1 < change < 1.1:
        return ""
    return f"not steady: from block {at + 1} of {len(levels)} on, the median latency is {change:.2g} times."


def _cusum(values: np.ndarray) -> float:
    return float(np.abs(np.cumsum(values - values.mean())).max())


def _delivered_share(blocks: Sequence[Calls]) -> float:
    """Rate at which requests left over the rate at which they were due."""
    asked = delivered = 0.0
    for block in blocks:
        if len(block.rows) > 1:
            asked += block.due_s[-1] - block.due_s[0]
            delivered += max(block.sent_s) - min(block.sent_s)
    return min(1.0, asked / delivered) if delivered > 0 else 1.0


def _gaps_p(blocks: Sequence[Calls]) -> float | None:
    gaps = np.concatenate([np.diff(np.sort(block.sent_s)) for block in blocks])
    if len(gaps) < 50:
        return None
    return float(stats.kstest(gaps / gaps.mean(), "expon").pvalue)
