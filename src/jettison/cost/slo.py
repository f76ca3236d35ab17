"""The highest rate at which a percentile keeps to its limit, found by bisection."""

import re
from collections.abc import Callable
from math import sqrt

import msgspec

from jettison.cost.load_types import RatePoint, Slo
from jettison.errors import InvalidInput

Probe = Callable[[float], RatePoint | None]
"""Runs the target at a rate and says what was seen; None: it has gone, and no more can be."""
TOLERANCE = 1.1
"""The search ends when the lowest rate that fails is within a tenth of the highest that holds."""
MOST_PROBES = 14
LEAST_SHARE = 1 / 8
"""Of the rate that is tried first: where that too fails, no rate can meet the limit."""


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """The outcome of a search."""

    rate_per_s: float | None
    reason: str
    curve: tuple[RatePoint, ...]
    """Every probe, by rate."""


def read_slo(text: str) -> Slo:
    """Read `p95=20ms`, `p99<=0.5s` and the like.

    Raises:
        InvalidInput: It is written otherwise, or the percentile or the limit is out of range.
    """
    found = re.fullmatch(r"p(\d+(?:\.\d+)?)\s*(?:<=|=|<)\s*(\d+(?:\.\d+)?)\s*(us|ms|s)", text.strip())
    if not found:
        raise InvalidInput(f"an SLO must be written as p95=20ms, got {text!r}.")
    share, limit_s = (
        round(float(found[1]) / 100, 6),
        float(found[2]) * {"us": 1e-6, "ms": 1e-3, "s": 1.0}[found[3]],
    )
    if not 0.01 <= share <= 0.9999 or limit_s <= 0:
        raise InvalidInput(f"an SLO must be of a percentile in 1-99.99 and a time above 0, got {text!r}.")
    return Slo(share=share, limit_s=limit_s)


def find_rate(probe: Probe, *, first_per_s: float, slo: Slo, unloaded: RatePoint | None = None) -> Found:
    """Find the highest rate at which the limit is shown to hold.

    A rate holds when the upper bound of its percentile keeps to the limit; one where the run
    cannot tell counts as failing, and so does one that the client could not deliver. The search
    doubles, or goes down to a quarter, until it has both kinds, then bisects on the logarithm of the rate.

    Args:
        probe: Runs the target at a rate.
        first_per_s: Rate to try first; about half of what the target can do.
        slo: The limit.
        unloaded: What was seen with one request at a time: where that misses the limit, so does every
            rate, and none is tried.
    """
    if unloaded is not None and unloaded.is_met is False:
        return Found(rate_per_s=None, reason=_reason(None, (unloaded,), slo), curve=(unloaded,))
    seen: dict[float, RatePoint] = {}
    low, high = None, None
    rate, is_gone = first_per_s, False
    while len(seen) < MOST_PROBES:
        point = probe(rate)
        if point is None:
            is_gone = True
            break
        seen[rate] = point
        if point.is_met and point.is_valid:
            low = rate
        else:
            high = rate
        if low is None:
            assert high is not None
            if high <= first_per_s * LEAST_SHARE:
                break
            rate = high / 4
        elif high is None:
            rate = low * 2
        elif high / low <= TOLERANCE:
            break
        else:
            rate = sqrt(low * high)
    curve = tuple(seen[rate] for rate in sorted(seen))
    reason = _reason(low, curve, slo) if curve else f"no rate was shown to meet {slo.words}."
    gone = f" The search ended early: the target stopped answering at {rate:.3g} per second."
    return Found(rate_per_s=low, reason=reason + (gone if is_gone else ""), curve=curve)


def _reason(rate: float | None, curve: tuple[RatePoint, ...], slo: Slo) -> str:
    if rate is None:
        least = curve[0]
        if not least.is_valid:
            why = "the client could not keep to its schedule there"
        elif least.tail.value_s is None:
            why = f"{least.missed_share:.0%} of the requests failed there"
        elif least.is_met is None:
            why = f"too few requests to tell there ({least.tail.reason or 'the interval covers the limit'})"
        else:
            why = f"the percentile was {1000 * least.tail.value_s:.3g} ms there"
        return f"no rate was shown to meet {slo.words}: even at {least.rate_per_s:.3g} per second, {why}."
    above = next((point for point in curve if point.rate_per_s > rate), None)
    if above is None:
        return f"{slo.words} held at every rate tried: the limit lies higher."
    if not above.is_valid:
        told = "the client could not keep to its schedule: the target may do more"
    elif above.is_met is False:
        told = "it did not"
    else:
        told = "the run could not tell"
    return f"{slo.words} held at {rate:.3g} per second; at {above.rate_per_s:.3g} {told}."
