"""The page on safety and quality as plain values."""

from typing import Any

from jettison.incident import IncidentCount
from jettison.monitor.dashboard.plots import figure
from jettison.monitor.quality_watch import QualityStatus

MOST_ROWS = 200


def incident_row(one: IncidentCount) -> dict[str, Any]:
    """One kind of incident in one arm."""
    always = "–"
    if one.low_always is not None and one.high_always is not None:
        always = f"{rare(one.low_always)} to {rare(one.high_always)}"
    return {
        "source": {"guardrail": "a guardrail", "reported": "feedback", "audit": "an audit"}[one.source],
        "kind": one.kind,
        "arm": one.arm or "all",
        "n_incidents": f"{one.n_incidents:,}",
        "n": f"{one.n:,}",
        "rate": rare(one.rate),
        "high": rare(one.high),
        "always": always,
        "limit": None if one.limit is None else rare(one.limit),
        "verdict": "surely above" if one.is_above else "not shown to be above",
        "css": "bad" if one.is_above else "open",
    }


def rare(share: float | None) -> str:
    """A share, most often a small one: two digits down to a millionth."""
    if share is None:
        return "–"
    if 0 < share < 1e-6:
        return "under 0.0001 %"
    # `g` alone would write 100 as 1e+02.
    return "0" if share == 0 else f"{100 * share:.0f} %" if share >= 0.1 else f"{100 * share:.2g} %"


def quality_row(one: QualityStatus) -> dict[str, Any]:
    """One arm's estimate."""
    found = one.estimate
    n = f"of the newest {found.n_answers:,} answers with a confidence are right"
    if found.low is None or found.high is None:
        detail = f"{n}, as far as confidence says; no interval stands behind it."
    else:
        bounds = f"{figure(found.low, 'share')} to {figure(found.high, 'share')}"
        alone = figure(found.by_confidence, "share")
        detail = f"{n} ({bounds}, 95 % at one look; confidence alone says {alone})."
    gap = None
    if one.gap is not None and one.gap_low is not None and one.gap_high is not None:
        bounds = f"{figure(one.gap_low, 'points')} to {figure(one.gap_high, 'points')}"
        gap = f"{figure(one.gap, 'points')} ({bounds} at all looks)"
    is_known = one.estimate.is_calibrated is not None
    return {
        "arm": one.arm or "no arm",
        "figure": figure(found.value, "share"),
        "detail": detail,
        "assumption": found.assumption,
        "gap": gap,
        "log_e": None if one.log_e is None else f"{one.log_e:.1f}",
        "limit": f"{one.log_e_limit:.1f}",
        "verdict": "overconfident"
        if one.is_overconfident
        else "not disproved"
        if is_known
        else "unchecked",
        "css": "bad" if one.is_overconfident else "open",
    }
