"""Service levels: how fast their budgets are spent, over a long and a short window together.

An objective leaves a budget: with 99 % of requests under 0.2 s, 1 % may be slower. The burn rate is the
share that is bad over the share that may be. An alert needs the rate over the long window, so that it
matters, and over the short one, so that it still goes on.

Source: Google, The Site Reliability Workbook, chapter 5, table 5-8 (for a budget of 30 days).
"""

from collections.abc import Sequence
from typing import Any, Literal

import msgspec

from jettison.errors import InvalidInput
from jettison.monitor.alerts import Alert
from jettison.monitor.log import News
from jettison.record import Record

BUCKET_S = 60.0
LEAST_REQUESTS = 20
"""In the long window: of fewer, one bad request would be a whole budget."""
METRICS = ("errors", "latency_s", "first_token_s", "price_usd", "energy_j")
NEVER_SEEN = ("shadow", "audit", "lean")
"""Roles of records whose answers nobody waited for; what they cost is paid all the same."""


class BurnRule(msgspec.Struct, frozen=True, kw_only=True):
    """One pair of windows."""

    long_s: float
    short_s: float
    rate: float
    severity: Literal["critical", "warning"]


RULES = (
    BurnRule(long_s=3600, short_s=300, rate=14.4, severity="critical"),
    BurnRule(long_s=6 * 3600, short_s=1800, rate=6.0, severity="critical"),
    BurnRule(long_s=3 * 86400, short_s=6 * 3600, rate=1.0, severity="warning"),
)
KEPT_S = max(rule.long_s for rule in RULES)


class Slo(msgspec.Struct, frozen=True, kw_only=True):
    """A service level, as `latency_s:0.99:0.2`, `errors:0.999` or `price_usd:mean:0.002`."""

    metric: str
    """One of `METRICS`."""
    objective: float | None
    """Share of requests that must be good, in (0, 1); None holds the mean to the limit."""
    limit: float | None
    """Most that a good request has, in the metric's unit; None for `errors`."""
    least: float | None = None
    """Least that a good request has, as `latency_s:0.99:0.02..0.2`: what fails fast answers too soon."""

    @property
    def text(self) -> str:
        """As it was written."""
        share = "mean" if self.objective is None else f"{self.objective:g}"
        least = "" if self.least is None else f"{self.least:g}.."
        return f"{self.metric}:{share}" + ("" if self.limit is None else f":{least}{self.limit:g}")


class Window(msgspec.Struct, frozen=True, kw_only=True):
    """What one window held."""

    seconds: float
    n: int
    bad: float
    """Bad requests; of a mean, the sum of the metric."""
    burn_rate: float | None
    """1 spends the budget just in time; None without requests."""


class SloStatus(msgspec.Struct, frozen=True, kw_only=True):
    """Where one service level stands."""

    slo: str
    windows: tuple[Window, ...]
    """Shortest first."""
    n_unknown: int
    """Requests whose metric was not measured: neither good nor bad."""
    severity: Literal["critical", "warning"] | None
    reason: str


def slo_from(text: str) -> Slo:
    """A service level as the command line writes it.

    METRIC:SHARE[:LIMIT], METRIC:SHARE:LEAST..LIMIT or METRIC:mean:LIMIT.

    Raises:
        InvalidInput: It is neither, or a number is out of range.
    """
    metric, _, rest = text.partition(":")
    share, _, limits = rest.partition(":")
    least, dots, limit = limits.rpartition("..")
    try:
        slo = Slo(
            metric=metric,
            objective=None if share == "mean" else float(share),
            limit=float(limit) if limits else None,
            least=float(least) if dots else None,
        )
    except ValueError as error:
        raise InvalidInput(
            f"--slo must be METRIC:SHARE:LIMIT, as latency_s:0.99:0.2 or errors:0.999, got {text!r}."
        ) from error
    if metric not in METRICS:
        raise InvalidInput(f"the metric of --slo must be one of {list(METRICS)}, got {metric!r}.")
    if slo.objective is not None and not 0 < slo.objective < 1:
        raise InvalidInput(f"the share of --slo must be between 0 and 1, or `mean`, got {text!r}.")
    if (metric == "errors") != (slo.limit is None) or (slo.limit is not None and not slo.limit > 0):
        raise InvalidInput(f"--slo must have a limit above 0, and none for errors, got {text!r}.")
    if metric == "errors" and slo.objective is None:
        raise InvalidInput(f"errors must have a share, as errors:0.999, got {text!r}.")
    if slo.least is not None and (
        slo.objective is None or slo.limit is None or not 0 < slo.least < slo.limit < float("inf")
    ):
        raise InvalidInput(
            f"a range of --slo must be LEAST..LIMIT of single requests, above 0, got {text!r}."
        )
    return slo


class BurnRates:
    """Counts each service level by the minute, and alerts as `RULES` say. A part of the watcher.

    Args:
        slos: What must hold; no two of one kind and limit.
    """

    name = "slo"

    def __init__(self, slos: Sequence[Slo]) -> None:
        self.slos = tuple(slos)
        # minute -> requests, bad ones (or the sum), for each service level
        self._minutes: list[dict[int, list[float]]] = [{} for _ in self.slos]
        self._unknown = [0] * len(self.slos)
        self._last = 0.0

    def take(self, news: News) -> None:
        for record in news.records:
            if record.time is None:
                continue
            self._last = max(self._last, record.time)
            minute = int(record.time // BUCKET_S)
            for at, slo in enumerate(self.slos):
                self._count(at, slo, record, minute)
        oldest = (self._last - KEPT_S) // BUCKET_S - 1
        for at, minutes in enumerate(self._minutes):
            if minutes and min(minutes) < oldest:
                self._minutes[at] = {minute: held for minute, held in minutes.items() if minute >= oldest}

    def _count(self, at: int, slo: Slo, record: Record, minute: int) -> None:
        is_answer = record.role not in NEVER_SEEN
        held = self._minutes[at].setdefault(minute, [0.0, 0.0])
        if slo.metric == "errors":
            if is_answer:
                held[0] += 1
                held[1] += record.error is not None
            return
        value: float | None = getattr(record.cost, slo.metric)
        if slo.objective is None:
            # Every call is paid for, whoever saw its answer; a request counts once.
            held[0] += is_answer
            held[1] += value or 0.0
            self._unknown[at] += is_answer and value is None
            return
        if not is_answer:
            return
        if value is None and record.error is None:
            self._unknown[at] += 1
            return
        held[0] += 1
        # No answer is a miss, however soon it failed.
        held[1] += record.error is not None or (value is not None and not _is_within(slo, value))

    def window(self, at: int, seconds: float, now: float) -> Window:
        """One service level over the last so many seconds."""
        first = int((now - seconds) // BUCKET_S) + 1
        last = int(now // BUCKET_S)
        inside = [held for minute, held in self._minutes[at].items() if first <= minute <= last]
        n, bad = int(sum(held[0] for held in inside)), sum(held[1] for held in inside)
        slo = self.slos[at]
        allowed = slo.limit if slo.objective is None else 1 - slo.objective
        assert allowed is not None
        return Window(seconds=seconds, n=n, bad=bad, burn_rate=bad / n / allowed if n else None)

    def status_at(self, now: float) -> tuple[SloStatus, ...]:
        """Where each service level stands at a time."""
        return tuple(self._status(at, now) for at in range(len(self.slos)))

    def _status(self, at: int, now: float) -> SloStatus:
        lengths = sorted({s for rule in RULES for s in (rule.short_s, rule.long_s)})
        windows = {seconds: self.window(at, seconds, now) for seconds in lengths}
        severity: Literal["critical", "warning"] | None = None
        reason = f"{self.slos[at].text} is spent no faster than it may be."
        for rule in RULES:
            long, short = windows[rule.long_s], windows[rule.short_s]
            rates = (long.burn_rate or 0.0, short.burn_rate or 0.0)
            if long.n >= LEAST_REQUESTS and min(rates) > rule.rate:
                severity = rule.severity
                reason = (
                    f"{self.slos[at].text} is spent {rates[0]:.1f} times as fast as it may be over "
                    f"{_span(rule.long_s)} and {rates[1]:.1f} times over {_span(rule.short_s)} "
                    f"({long.n:,} requests; alarm above {rule.rate:g})."
                )
                break
        return SloStatus(
            slo=self.slos[at].text,
            windows=tuple(windows.values()),
            n_unknown=self._unknown[at],
            severity=severity,
            reason=reason,
        )

    def alerts(self, now: float) -> tuple[Alert, ...]:
        return tuple(
            Alert(
                name="slo_burn_rate",
                subject=one.slo,
                severity=one.severity,
                message=one.reason,
                time=now,
                evidence=msgspec.to_builtins(one),
            )
            for one in self.status_at(now)
            if one.severity is not None
        )

    def status(self) -> tuple[SloStatus, ...]:
        """At the newest record."""
        return self.status_at(self._last)

    def lines(self) -> list[str]:
        return [f"slo {one.slo}: {one.severity or 'holds'}. {one.reason}" for one in self.status()]

    def state(self) -> dict[str, Any]:
        return {
            "slos": [slo.text for slo in self.slos],
            "minutes": [[[m, *held] for m, held in minutes.items()] for minutes in self._minutes],
            "unknown": self._unknown,
            "last": self._last,
        }

    def restore(self, state: dict[str, Any]) -> bool:
        if state["slos"] != [slo.text for slo in self.slos]:
            return False
        self._minutes = [{int(m): [n, bad] for m, n, bad in minutes} for minutes in state["minutes"]]
        self._unknown = list(state["unknown"])
        self._last = float(state["last"])
        return True


def _is_within(slo: Slo, value: float) -> bool:
    assert slo.limit is not None
    return value <= slo.limit and (slo.least is None or value >= slo.least)


def _span(seconds: float) -> str:
    if seconds >= 86400:
        return f"{seconds / 86400:g} d"
    return f"{seconds / 3600:g} h" if seconds >= 3600 else f"{seconds / 60:g} min"
