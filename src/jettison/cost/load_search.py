"""Searches, target by target, the highest rate that keeps to an SLO."""

import functools
from collections.abc import Sequence

import numpy as np

from jettison.cost.load_run import (
    WARM_SHARE,
    Block,
    Run,
    closed_block,
    draw_rows,
    play_or_die,
    warm_up_target,
)
from jettison.cost.load_summary import tail_of
from jettison.cost.load_target import LoadTarget
from jettison.cost.load_types import RatePoint, Slo
from jettison.cost.schedule import poisson_schedule
from jettison.cost.slo import find_rate
from jettison.stats.tail import percentile

MOST_PROBE_S, LEAST_PROBE_TASKS, UNLOADED_TASKS = 30.0, 150.0, 60


def search_rates(targets: Sequence[LoadTarget], run: Run, slo: Slo) -> float | None:
    """Search every target's highest rate; the one to compare them at is the least of these."""
    for target in targets:
        warm_up_target(target, run, lambda: closed_block(8, run))
        unloaded = None if target.died else _unloaded(target, run, slo)
        if unloaded is None:
            continue
        target.found = find_rate(
            functools.partial(_probe, target, run, slo),
            first_per_s=0.5 * unloaded.rate_per_s,
            slo=slo,
            unloaded=unloaded,
        )
    rates = [target.found.rate_per_s for target in targets if target.found and target.found.rate_per_s]
    return min(rates) if rates else None


def _unloaded(target: LoadTarget, run: Run, slo: Slo) -> RatePoint | None:
    """What one request at a time shows: no rate can do better."""
    calls = play_or_die(target, run, closed_block(UNLOADED_TASKS, run), concurrency=1)
    if calls is None:
        return None
    rate = max(1, int(calls.is_ok.sum())) / max(calls.wall_s, 1e-6)
    return _point(calls.service_s, [0.0], rate, slo)


def _probe(target: LoadTarget, run: Run, slo: Slo, rate: float) -> RatePoint | None:
    """Play one rate, longer when the first stretch cannot tell."""
    run.say(f"searching the rate of {target.name}: {rate:.3g} per second", None)
    parts: list[np.ndarray] = []
    late_s: list[float] = []
    point: RatePoint | None = None
    length_s = min(MOST_PROBE_S, _probe_tasks(slo.share) / rate)
    for _ in range(3):
        warm_s = WARM_SHARE * length_s
        due = poisson_schedule(rate, length_s + warm_s, rng=run.spare_rng)
        block = Block(draw_rows(len(due), run, run.spare_rng), due)
        calls = None if target.died else play_or_die(target, run, block)
        if calls is None or not (kept := calls.since(warm_s)).rows:
            break
        parts.append(kept.latency_s)
        late_s += kept.late_s
        point = _point(np.concatenate(parts), late_s, rate, slo)
        if point.is_met is not None:
            break
    return point


def _probe_tasks(share: float) -> float:
    """Twice as many as a finite upper bound takes where samples are independent: t squared p / (1 - p)."""
    return max(LEAST_PROBE_TASKS, 2 * 4.4 * share / (1 - share))


def _point(latency_s: np.ndarray, late_s: list[float], rate: float, slo: Slo) -> RatePoint:
    tail = tail_of(latency_s, slo.share)
    assert tail is not None
    is_met: bool | None = None
    if tail.value_s is None or (tail.low_s is not None and tail.low_s > slo.limit_s):
        is_met = False
    elif tail.high_s is not None and tail.high_s <= slo.limit_s:
        is_met = True
    middle = percentile(latency_s, 0.5)
    # A client that sends late makes the target look slow, never fast: only a miss is in doubt.
    is_valid = bool(is_met) or percentile(late_s, 0.99) <= 0.5 * slo.limit_s
    return RatePoint(
        rate_per_s=rate,
        n_tasks=len(latency_s),
        latency_p50_s=middle if np.isfinite(middle) else None,
        tail=tail,
        missed_share=float(np.mean(~np.isfinite(latency_s))),
        is_met=is_met,
        is_valid=is_valid,
    )
