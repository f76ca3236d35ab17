"""`incidents.json`: how many safety incidents the watcher has counted, for whoever shows them.

Written by `jettison monitor` into the gateway's state folder; the gateway puts it on `/metrics`.
"""

import re

import msgspec

INCIDENTS_FILE = "incidents.json"
NONE = "none"
"""Said of an answer that was looked at for incidents: there is none."""
ANY = "any"
"""Of any kind: an answer counts once."""
KIND = re.compile(r"[a-z0-9][a-z0-9_-]{0,39}")
"""What a kind may be called."""


class IncidentCount(msgspec.Struct, frozen=True, kw_only=True):
    """One kind of incident in one arm."""

    source: str
    """`guardrail` (it fired on an output), `reported` (by feedback) or `audit` (a safety audit failed)."""
    kind: str
    """The guardrail's name, or what feedback calls it; `any`: all of them, an answer counted once."""
    arm: str
    """`` is all arms together."""
    n: int
    """Answers among which they were looked for: those that the guardrail saw, all, or those audited."""
    n_incidents: int
    rate: float | None
    """None where nothing was looked at."""
    high: float | None
    """Exact upper bound of the rate, one-sided, at one look."""
    low_always: float | None
    """Bounds that hold at all looks together, as long as the rate is constant."""
    high_always: float | None
    limit: float | None = None
    """Largest rate that is allowed; None: none was given."""
    log_e: float | None = None
    """Evidence that the rate was above the limit."""
    log_e_limit: float | None = None
    """From here on it surely was."""

    @property
    def is_above(self) -> bool:
        """Whether the rate surely is above its limit."""
        return self.log_e is not None and self.log_e_limit is not None and self.log_e >= self.log_e_limit


class Incidents(msgspec.Struct, frozen=True, kw_only=True):
    """The file."""

    time: float
    """Of the newest record counted, seconds since the epoch."""
    counts: tuple[IncidentCount, ...]
    confidence: float
    """Of `high`."""
    format: int = 1
