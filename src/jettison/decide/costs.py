"""Judges costs: against a limit, and against the incumbent's."""

from math import inf

from jettison.decide.words import figure, in_units
from jettison.decision import AtMost, CostSummary, GateResult, Interval, Verdict, ratio_figure
from jettison.errors import InvalidInput

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
EARNS_ITS_PLACE = "earns its place"
"""Method of the result that every candidate has: whether it costs less than the incumbent."""


ONCE_FACTOR = {"bytes": 1.0, "load_s": 1.5}
"""How much more or less a cost measured once may be. A file's size is exact; one process loaded 14 times
took times with a standard deviation of 15 %."""
OTHER_ONCE_FACTOR = 1.1


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
    """Whether a candidate costs less than the incumbent: CPU per task, or else bytes on disk.

    Against an incumbent that runs elsewhere, money or else latency takes the place of CPU time.
    """
    ratio, words = candidate.ratio, candidate.ratio_words
    sizes = (candidate.bytes, incumbent.bytes)
    smaller = None if sizes[0] is None or sizes[1] is None else sizes[0] < sizes[1]
    if ratio is not None and ratio.high < 1:
        verdict, reason = (
            Verdict.SHIP,
            f"It takes {ratio_figure(ratio.value)} of the incumbent's {words} per task.",
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
            f"It costs {ratio_figure(ratio.value)} of the incumbent's {words} and is no smaller.",
        )
    else:
        verdict = Verdict.NOT_ENOUGH_DATA
        reason = (
            f"It is no smaller, and its {words} of {ratio_figure(ratio.value)} of the incumbent's "
            f"({ratio_figure(ratio.low)} to {ratio_figure(ratio.high)}) is not shown to be less."
        )
    return GateResult(
        gate="at_most",
        metric={"CPU time": "cpu_ratio", "price": "usd_ratio"}.get(words, "latency_ratio"),
        slice=None,
        verdict=verdict,
        limit=1.0,
        reason=reason,
        candidate=None if ratio is None else ratio.value,
        difference=None,
        method=EARNS_ITS_PLACE,
    )


def cost_interval(cost: CostSummary, name: str) -> Interval | None:
    """One cost with what is known of its uncertainty; None when it was not measured.

    A latency that its samples do not bound from above ends at infinity. Of other costs that were measured
    once it is not known how they vary: they are taken to be right within `ONCE_FACTOR`.
    """
    value = getattr(cost, name)
    if value is None or isinstance(value, Interval):
        return value
    if name in cost.intervals:
        return cost.intervals[name]
    if name == "energy_j" and cost.energy_factor is not None:
        factor = max(cost.energy_factor, 1.0)
        return Interval(
            value=value, low=value / factor, high=value * factor, method=f"tier {cost.energy_tier}"
        )
    if name.startswith("latency_"):
        return Interval(value=value, low=cost.at_least.get(name, 0.0), high=inf, method="no upper end")
    factor = ONCE_FACTOR.get(name, OTHER_ONCE_FACTOR)
    return Interval(value=value, low=value / factor, high=value * factor, method="measured once")


def _cost_words(name: str, known: Interval) -> str:
    words = f"{name} is {in_units(name, known.value)}"
    if known.high == inf:
        words += f" (at least {in_units(name, known.low)}; too few inputs to say at most what)"
    elif known.low != known.high:
        words += f" ({in_units(name, known.low)} to {in_units(name, known.high)})"
    # An estimate is never told as a measurement.
    return f"{words}, ESTIMATED ({known.method})" if known.method.startswith("tier E") else words
