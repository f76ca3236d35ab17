"""What steers a running gateway from outside: shares and thresholds in one small file that it watches.

`control.json` in the gateway's state folder. A value stands at its place in the route plan, as
`fallback` or `treatment/lean`; the outermost route's place is the empty string. Whoever ramps an
experiment writes the file anew, atomically (`jettison.files.write_json`); the gateway reads it within
a second. A file that does not fit is refused as a whole and what held before goes on holding.
"""

import msgspec

CONTROL_FILE = "control.json"


class RouteControl(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True
):
    """What may be changed about one route while it runs; None leaves the plan's own value."""

    treatment_share: float | None = None
    """Of a split, in 0-1. A key that is in treatment at one share stays there at every larger one."""
    shadow_share: float | None = None
    """Of a shadow, in 0-1."""
    threshold: float | None = None
    """Of a cascade: least confidence at which the lean answer stands. Above 1 escalates all."""
    audit_share: float | None = None
    """Of a cascade: share of the lean answers that stood which the fallback is asked too, in 0-1."""


class Control(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`control.json`."""

    routes: dict[str, RouteControl] = msgspec.field(default_factory=dict)
    """By place in the route plan."""
    experiment: str | None = None
    """Name that records carry while this holds."""
    reason: str = ""
    """Who set it and why, for the gateway's own log."""
    format: int = 1


def problem_in(control: Control) -> str | None:
    """What is wrong with the values; None when nothing is."""
    if control.format != 1:
        return f"format must be 1, got {control.format}."
    for place, route in control.routes.items():
        for name in ("treatment_share", "shadow_share", "audit_share"):
            value = getattr(route, name)
            if value is not None and not 0 <= value <= 1:
                return f"{name} must be in 0-1, got {value} - at `$.routes[{place!r}]`"
        if route.threshold is not None and not 0 <= route.threshold <= 2:
            return f"threshold must be in 0-2, got {route.threshold} - at `$.routes[{place!r}]`"
    return None
