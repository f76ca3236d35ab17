"""Judges one gate: SHIP, BLOCK or NOT ENOUGH DATA, with a reason anyone can read."""

from collections.abc import Sequence

from scipy.stats import norm

from jettison.decide.pairing import ScoredPair, count_flips, has_failed, pair_records, score_pairs
from jettison.decide.slices import expand_slices, in_slice
from jettison.decide.words import count, figure, in_units, on_slice, share
from jettison.decision import AtMost, CostSummary, GateResult, Interval, NotWorse, Verdict
from jettison.errors import InvalidInput, NotEnoughData
from jettison.record import Record
from jettison.stats import interval as computed
from jettison.stats.noninferiority import margin_test
from jettison.stats.planning import n_needed, smallest_certifiable_margin, smallest_passing_n

COSTS = (
    "latency_p50_s",
    "latency_p95_s",
    "latency_p99_s",
    "cpu_s",
    "cpu_ratio",
    "bytes",
    "peak_bytes",
    "load_s",
    "energy_j",
    "usd_per_1000",
)
MOST_MISSING = 10_000_000
"""Beyond so many examples "more data" is no answer."""


def judge_not_worse(
    gate: NotWorse,
    incumbent_records: Sequence[Record],
    candidate_records: Sequence[Record],
    *,
    alpha: float | None = None,
    seed: int = 0,
) -> tuple[GateResult, ...]:
    """Judge a candidate against the incumbent on each slice of a gate.

    Every slice is tested at the full alpha: shipping needs all of them (Berger 1982).

    Args:
        gate: Scorer, margin and slices.
        incumbent_records: Records of the incumbent, in any order.
        candidate_records: Records of the candidate on the same examples.
        alpha: One-sided error probability to spend instead of the gate's own.
        seed: Of the draws of the permutation test, used with few groups.

    Raises:
        InvalidInput: The records cannot be paired, or a setting is out of range.
        UnknownName: The scorer or a slice does not exist.
    """
    spent = gate.alpha if alpha is None else alpha
    check_not_worse(gate, spent)
    pairs = pair_records(incumbent_records, candidate_records)
    results = []
    for name in expand_slices(gate.slices, incumbent_records):
        members = [pair for pair in pairs if in_slice(pair.incumbent, name)]
        scored = score_pairs(members, gate.scorer)
        failed = sum(has_failed(pair.candidate, gate.scorer) for pair in members)
        notes = _notes(len(members) - len(scored), failed)
        margin = _margin(gate, name)
        results.append(_judge_slice(gate.scorer, name, margin, spent, scored, notes, seed))
    return tuple(results)


def judge_at_most(gate: AtMost, cost: CostSummary) -> GateResult:
    """Judge a cost against its limit; a cost that was not measured is not enough data, never a pass.

    Raises:
        InvalidInput: The cost has no such name, or the limit is not a number.
    """
    if gate.cost not in COSTS:
        raise InvalidInput(f"the cost of a gate must be one of {list(COSTS)}, got {gate.cost!r}.")
    if not gate.limit > 0:
        raise InvalidInput(f"the limit of {gate.cost} must be positive, got {gate.limit}.")
    known = cost_interval(cost, gate.cost)
    limit = in_units(gate.cost, gate.limit)
    if known is None:
        verdict, reason = Verdict.NOT_ENOUGH_DATA, f"{gate.cost} was not measured; its limit is {limit}."
    elif known.high <= gate.limit:
        verdict, reason = Verdict.SHIP, f"{_cost_words(gate.cost, known)}, within the limit of {limit}."
    elif known.low > gate.limit:
        verdict, reason = Verdict.BLOCK, f"{_cost_words(gate.cost, known)}, over the limit of {limit}."
    else:
        verdict = Verdict.NOT_ENOUGH_DATA
        reason = f"{_cost_words(gate.cost, known)}, too uncertain to hold against the limit of {limit}."
    return GateResult(
        gate="at_most",
        metric=gate.cost,
        slice=None,
        verdict=verdict,
        limit=gate.limit,
        reason=reason,
        candidate=None if known is None else known.value,
        method="" if known is None else known.method,
    )


def judge_cheaper(incumbent: CostSummary, candidate: CostSummary) -> GateResult:
    """Whether a candidate costs less than the incumbent: CPU per task, or else bytes on disk."""
    ratio = candidate.cpu_ratio
    sizes = (candidate.bytes, incumbent.bytes)
    smaller = None if sizes[0] is None or sizes[1] is None else sizes[0] < sizes[1]
    if ratio is not None and ratio.high < 1:
        verdict, reason = (
            Verdict.SHIP,
            f"It takes {figure(ratio.value)} of the incumbent's CPU time per task.",
        )
    elif smaller and sizes[0] is not None and sizes[1]:
        verdict = Verdict.SHIP
        reason = f"It is smaller: {figure(sizes[0] / sizes[1])} of the incumbent's bytes."
    elif ratio is None or smaller is None:
        verdict = Verdict.NOT_ENOUGH_DATA
        reason = "Whether it costs less than the incumbent was not measured."
    elif ratio.low >= 1:
        verdict, reason = (
            Verdict.BLOCK,
            f"It costs {figure(ratio.value)} of the incumbent's CPU time and is no smaller.",
        )
    else:
        verdict = Verdict.NOT_ENOUGH_DATA
        reason = (
            f"It is no smaller, and its CPU time of {figure(ratio.value)} of the incumbent's "
            f"({figure(ratio.low)} to {figure(ratio.high)}) is not shown to be less."
        )
    return GateResult(
        gate="at_most",
        metric="cpu_ratio",
        slice=None,
        verdict=verdict,
        limit=1.0,
        reason=reason,
        candidate=None if ratio is None else ratio.value,
        difference=None,
        method="earns its place",
    )


def check_not_worse(gate: NotWorse, alpha: float) -> None:
    """Refuse a gate whose settings mean nothing.

    Raises:
        InvalidInput: The margin, alpha or slices are out of range.
    """
    for margin in (gate.margin, *gate.margins.values()):
        if not 0 <= margin < float("inf"):
            raise InvalidInput(f"the margin of a gate must be zero or more, got {margin}.")
    if not 0 < alpha < 0.5:
        raise InvalidInput(f"the alpha of a gate must be in (0, 0.5), got {alpha}.")
    if not gate.slices:
        raise InvalidInput("a gate must name at least one slice, got none. Use `all` for every example.")


def cost_interval(cost: CostSummary, name: str) -> Interval | None:
    """One cost with what is known of its uncertainty; None when it was not measured."""
    value = getattr(cost, name)
    if value is None or isinstance(value, Interval):
        return value
    if name == "energy_j" and cost.energy_factor is not None:
        factor = max(cost.energy_factor, 1.0)
        return Interval(
            value=value, low=value / factor, high=value * factor, method=f"tier {cost.energy_tier}"
        )
    return Interval(value=float(value), low=float(value), high=float(value), method="measured once")


def _judge_slice(
    scorer: str,
    name: str,
    margin: float,
    alpha: float,
    scored: Sequence[ScoredPair],
    notes: str,
    seed: int,
) -> GateResult:
    a, b = [s.candidate for s in scored], [s.incumbent for s in scored]
    weights = [s.pair.incumbent.weight for s in scored]
    groups = [s.pair.incumbent.group or f"\0{s.pair.incumbent.example_id}" for s in scored]
    try:
        test = margin_test(
            a,
            b,
            margin=margin,
            alpha=alpha,
            groups=groups if len(set(groups)) < len(groups) else None,
            weights=weights if set(weights) - {1.0} else None,
            seed=seed,
        )
    except NotEnoughData as error:
        return GateResult(
            gate="not_worse",
            metric=scorer,
            slice=name,
            verdict=Verdict.NOT_ENOUGH_DATA,
            limit=margin,
            reason=f"{on_slice(name)}: {error}{notes}",
            n=len(scored),
            alpha=alpha,
            n_missing=_zero_flip_gap(len(scored), margin, alpha),
        )
    verdict = Verdict.NOT_ENOUGH_DATA
    if test.p_not_worse <= alpha:
        verdict = Verdict.SHIP
    elif test.p_worse <= alpha:
        verdict = Verdict.BLOCK
    unsettled = verdict is Verdict.NOT_ENOUGH_DATA
    flips = count_flips(scored)
    flip_share = (flips.harmful + flips.beneficial) / flips.n if test.n == test.n_groups else None
    missing = _n_missing(test.interval, test.n, margin, alpha, flip_share) if unsettled else None
    means = (_mean(b, weights), _mean(a, weights))
    return GateResult(
        gate="not_worse",
        metric=scorer,
        slice=name,
        verdict=verdict,
        limit=margin,
        reason=_reason(name, scorer, verdict, means, test.interval, margin, alpha, len(scored), missing)
        + notes,
        n=test.n,
        n_groups=test.n_groups,
        incumbent=means[0],
        candidate=means[1],
        difference=_stored(test.interval),
        p_value=test.p_not_worse,
        alpha=alpha,
        flips=flips,
        n_missing=missing,
        method=test.method,
    )


def _n_missing(
    interval: computed.Interval, n: int, margin: float, alpha: float, flip_share: float | None
) -> int | None:
    """More examples that would settle it with power 0.8, if the truth is what was seen."""
    gap = abs(interval.value + margin)
    z = float(norm.isf(alpha))
    seen = flip_share
    if seen is None:  # clusters or grades: the variance per example behind the interval
        half = (interval.high - interval.low) / 2
        seen = n * (half / z) ** 2 + interval.value**2
    needed = n_needed(seen, margin=gap - interval.value, difference=interval.value, alpha=alpha)
    floor = n + (_zero_flip_gap(n, margin, alpha) or 1) if interval.value > -margin else n + 1
    total = None if needed is None else max(needed, floor)
    return None if total is None or total - n > MOST_MISSING else total - n


def _zero_flip_gap(n: int, margin: float, alpha: float) -> int | None:
    return max(1, smallest_passing_n(margin, alpha=alpha) - n) if 0 < margin < 1 else None


def _reason(
    name: str,
    scorer: str,
    verdict: Verdict,
    means: tuple[float, float],
    interval: computed.Interval,
    margin: float,
    alpha: float,
    n: int,
    missing: int | None,
) -> str:
    seen = (
        f"{on_slice(name)} the candidate scores {share(means[1])} against {share(means[0])} "
        f"({scorer}, {count(n, 'example')})"
    )
    sure, points = f"{100 * (1 - alpha):.4g} % confidence", share(margin, "point")
    bounds = f"{share(interval.low, 'signed')} to {share(interval.high, 'signed')}"
    if verdict is Verdict.SHIP:
        return f"{seen}: with {sure} the loss is under {points} (difference {bounds})."
    if verdict is Verdict.BLOCK:
        return f"{seen}: with {sure} the loss is over {points} (difference {bounds})."
    if 0 < margin < 1 and n < smallest_passing_n(margin, alpha=alpha):
        least = share(smallest_certifiable_margin(n, alpha=alpha), "point")
        limit = f"even if no answer changed, {n:,} examples would certify no less than {least}"
    else:
        limit = f"the difference is known only to lie in {bounds}"
    more = (
        f"about {count(missing, 'more example')} would settle it"
        if missing
        else "no affordable number of examples would settle it"
    )
    return f"{seen}: {limit}, the margin is {points}; {more}."


def _notes(n_unjudged: int, n_failed: int) -> str:
    notes = ""
    if n_failed:
        notes += f" {count(n_failed, 'failed call')} of the candidate counted as wrong."
    if n_unjudged:
        notes += f" {count(n_unjudged, 'example')} left out, which the scorer could not judge."
    return notes


def _margin(gate: NotWorse, name: str) -> float:
    column = name.partition("=")[0]
    return gate.margins.get(name, gate.margins.get(f"{column}=*", gate.margin))


def _mean(values: Sequence[float], weights: Sequence[float]) -> float:
    return sum(v * w for v, w in zip(values, weights, strict=True)) / sum(weights)


def _cost_words(name: str, known: Interval) -> str:
    words = f"{name} is {in_units(name, known.value)}"
    if known.low != known.high:
        words += f" ({in_units(name, known.low)} to {in_units(name, known.high)})"
    return words


def _stored(interval: computed.Interval) -> Interval:
    return Interval(
        value=interval.value,
        low=interval.low,
        high=interval.high,
        confidence=interval.confidence,
        method=interval.method,
    )
