"""An estimate with its interval, as the statistics hand it on."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A value between its lower and upper bound, in the units of the value."""

    value: float
    low: float
    high: float
    confidence: float = 0.95
    """Two-sided coverage, in 0-1."""
    method: str = ""


@dataclass(frozen=True, kw_only=True)
class MarginTest:
    """A difference judged against a margin from both sides; its interval inverts the same tests."""

    interval: Interval
    """Of candidate minus baseline."""
    p_not_worse: float
    """One-sided p-value of "the loss is the margin or more"; small lets the candidate ship."""
    p_worse: float
    """One-sided p-value of "the loss is the margin or less"; small blocks the candidate."""
    n: int
    n_groups: int
    method: str
    largest_share: float | None = None
    """Share of the weight that the largest group holds, in 0-1; None where the test does not hang on it."""
    smallest_margin: float | None = None
    """What these groups could certify if nothing had changed; None where the test has no such floor."""
    n_groups_needed: int | None = None
    """Groups like these that would settle it, at what was seen; None: not known, or none would."""
    n_groups_to_show: int | None = None
    """Groups like these in which a loss of the margin that spoils few of them whole could not hide; None
    where these do, or the test holds whatever happens within a group."""
