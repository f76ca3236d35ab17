"""The traffic log as tables a person reads: what each arm costs, and how its answers moved, day by day.

Amounts are sums over every call that an arm made, lean answers that were escalated, shadows and audits
included, per request that it answered. What was not measured is not in them, and the share that was is
told beside.
"""

import datetime
from collections import Counter
from collections.abc import Mapping

import msgspec
import numpy as np

from jettison.errors import NotEnoughData
from jettison.monitor.drift import LEAST_MOVED
from jettison.monitor.drift_comparison import FEWEST
from jettison.monitor.tally import AMOUNTS, SCORES, Counts, Tally
from jettison.release.sketch import Sketch
from jettison.stats.binomial import clopper_pearson
from jettison.stats.multiplicity import holm
from jettison.stats.two_samples import CountsDiffer, counts_differ

QUANTILES = (0.5, 0.95, 0.99)
QUANTILE_ALPHA = 0.05
LATENCY_BINS = 25
"""Bins of the histogram of latencies that are compared as one: about 28 % wide."""
ALL = "all"
UNKNOWN = "unknown"


class Share(msgspec.Struct, frozen=True, kw_only=True):
    """A share of requests with its 95 % interval (Clopper-Pearson)."""

    value: float
    low: float
    high: float


class Quantile(msgspec.Struct, frozen=True, kw_only=True):
    """A quantile of the latency, to a bin of 1 %, with 95 % bounds that hold at every look together."""

    share: float
    value_s: float
    low_s: float
    high_s: float | None
    """None: no bound yet."""


class Amount(msgspec.Struct, frozen=True, kw_only=True):
    """A sum over the calls that brought it."""

    total: float
    per_request: float | None
    """None where the arm answered no request."""
    known_share: float
    """Of the arm's calls, how many brought it."""


class CostRow(msgspec.Struct, frozen=True, kw_only=True):
    """One arm on one day, or on all of them."""

    day: str
    """As 2026-11-26 (UTC), `all`, or `unknown` where records have no time."""
    arm: str
    n_requests: int
    n_calls: int
    """Requests, and whatever else was asked for them."""
    errors: Share | None
    escalated: Share | None
    guarded: Share | None
    latency_s: tuple[Quantile, ...]
    amounts: dict[str, Amount | None]
    """`cpu_s`, `energy_j`, `price_usd`, `prompt_tokens`, ...; None: not measured."""
    energy_tiers: tuple[str, ...]


class DriftRow(msgspec.Struct, frozen=True, kw_only=True):
    """One distribution of one arm on one day."""

    day: str
    arm: str
    name: str
    against: str
    """`release`, or `first day` of the arm."""
    n: int
    moved: float | None
    """Share of the distribution that moved (total variation); None: too few to compare."""
    psi: float | None
    p_adjusted: float | None
    """After Holm over the whole table."""
    has_drifted: bool


def cost_rows(tally: Tally) -> tuple[CostRow, ...]:
    """One row an arm over all days, then one a day."""
    groups: dict[tuple[str, str], list[tuple[str, Counts]]] = {}
    for cell, counts in tally.cells.items():
        for day in (ALL, day_name(cell.day)):
            groups.setdefault((day, cell.arm), []).append((cell.role, counts))
    ordered = sorted(groups, key=lambda key: (key[0] != ALL, key))
    return tuple(_cost_row(day, arm, groups[day, arm]) for day, arm in ordered)


def drift_rows(tally: Tally, sketch: Sketch | None, *, alpha: float = 0.01) -> tuple[DriftRow, ...]:
    """Each arm's answers, day by day, against the release's, or where there are none against its first day.

    Args:
        tally: Of the log, counted with the release's candidates.
        sketch: Of the release; None compares with each arm's first day alone.
        alpha: Probability of any false finding in the table.
    """
    found: list[tuple[DriftRow, float | None]] = []
    for arm in tally.arms():
        days = {day: _lean(tally, arm, day) for day in tally.days()}
        for name in (*SCORES, "label", "error", "latency_s"):
            found += _moves(name, arm, days, _reference(sketch, name))
    known = [p for _, p in found if p is not None]
    adjusted = iter(holm(known).tolist() if known else [])
    rows = []
    for row, p in found:
        if p is not None:
            corrected = float(next(adjusted))
            assert row.moved is not None
            row = msgspec.structs.replace(
                row, p_adjusted=corrected, has_drifted=corrected <= alpha and row.moved >= LEAST_MOVED
            )
        rows.append(row)
    return tuple(rows)


def day_name(day: int | None) -> str:
    """A day as ISO 8601 writes it."""
    if day is None:
        return UNKNOWN
    try:
        return (datetime.date(1970, 1, 1) + datetime.timedelta(days=day)).isoformat()
    except OverflowError:
        return UNKNOWN


def _cost_row(day: str, arm: str, parts: list[tuple[str, Counts]]) -> CostRow:
    calls, answers = Counts(), Counts()
    for role, counts in parts:
        calls.add(counts)
        if role == "answer":
            answers.add(counts)
    return CostRow(
        day=day,
        arm=arm,
        n_requests=answers.n,
        n_calls=calls.n,
        errors=_share(answers, "errors"),
        escalated=_share(answers, "escalated"),
        guarded=_share(answers, "guarded"),
        latency_s=_quantiles(answers),
        amounts={name: _amount(calls, name, answers.n) for name in AMOUNTS},
        energy_tiers=tuple(sorted(calls.tiers)),
    )


def _share(answers: Counts, flag: str) -> Share | None:
    if not answers.n:
        return None
    found = clopper_pearson(answers.flags[flag], answers.n)
    return Share(value=found.value, low=found.low, high=found.high)


def _quantiles(answers: Counts) -> tuple[Quantile, ...]:
    rows = []
    for share in QUANTILES:
        value = answers.latency.quantile(share)
        if value is not None:
            low, high = answers.latency.bounds(share, alpha=QUANTILE_ALPHA)
            bound = high if np.isfinite(high) else None
            rows.append(Quantile(share=share, value_s=value, low_s=low, high_s=bound))
    return tuple(rows)


def _amount(calls: Counts, name: str, n_requests: int) -> Amount | None:
    total = calls.amount(name)
    if total is None:
        return None
    return Amount(
        total=total,
        per_request=total / n_requests if n_requests else None,
        known_share=calls.n_known[name] / calls.n,
    )


def _lean(tally: Tally, arm: str, day: int) -> Counts:
    """What is compared: the release's own answers; of the length, the inputs of all requests."""
    lean, lengths = Counts(), Counts()
    for cell, counts in tally.cells.items():
        if (cell.arm, cell.day) != (arm, day):
            continue
        if cell.is_lean and cell.role in ("answer", "lean"):
            lean.add(counts)
        if cell.role == "answer":
            lengths.add(counts)
    lean.scores.pop("length", None)
    if "length" in lengths.scores:
        lean.scores["length"] = lengths.scores["length"]
    return lean


_Side = np.ndarray | Counter[str]


def _side(counts: Counts, name: str) -> _Side | None:
    """One distribution of a day's answers."""
    if name == "label":
        return counts.labels or None
    if name == "error":
        failed = counts.flags["errors"]
        return Counter({"true": failed, "false": counts.n - failed}) if counts.n else None
    if name == "latency_s":
        edges = np.arange(0, len(counts.latency.counts), LATENCY_BINS)
        return np.add.reduceat(counts.latency.counts, edges) if counts.latency.n else None
    return counts.scores.get(name)


def _reference(sketch: Sketch | None, name: str) -> _Side | None:
    if sketch is None:
        return None
    if name in sketch.scores:
        return np.asarray(sketch.scores[name])
    found: Mapping[str, int] | None = sketch.categories.get(name)
    return Counter(found) if found else None


def _moves(
    name: str, arm: str, days: dict[int, Counts], reference: _Side | None
) -> list[tuple[DriftRow, float | None]]:
    """Rows of one distribution, and the p-value of each; nothing where no day has it."""
    against, rows = "release", []
    for day, counts in days.items():
        live = _side(counts, name)
        if live is None:
            continue
        n = int(live.total() if isinstance(live, Counter) else live.sum())
        if reference is None:
            # An arm's first day is what its later ones are held against; it has no row.
            if n >= FEWEST:
                reference, against = live, "first day"
            continue
        found = _compared(reference, live) if n >= FEWEST else None
        row = DriftRow(
            day=day_name(day),
            arm=arm,
            name=name,
            against=against,
            n=n,
            moved=None if found is None else found.distance,
            psi=None if found is None else found.psi,
            p_adjusted=None,
            has_drifted=False,
        )
        rows.append((row, None if found is None else found.p_value))
    return rows


def _compared(reference: _Side, live: _Side) -> CountsDiffer | None:
    try:
        if isinstance(reference, Counter) and isinstance(live, Counter):
            values = sorted({*reference, *live})
            sides = [np.array([side[value] for value in values]) for side in (reference, live)]
            return counts_differ(sides[0], sides[1], is_ordered=False)
        return counts_differ(np.asarray(reference), np.asarray(live))
    except NotEnoughData:
        return None
