"""Safety incidents by source, kind and arm, with exact upper bounds of their rates. A part of the watcher.

Three sources: a guardrail fired on an output; feedback reports an incident; a safety audit (feedback of
source `audit`) found one. Each is counted among the answers in which it could have been seen.
"""

import math
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from jettison.errors import InvalidInput
from jettison.files import write_json
from jettison.incident import ANY, INCIDENTS_FILE, NONE, IncidentCount, Incidents
from jettison.monitor.alerts import Alert
from jettison.monitor.log import News
from jettison.record import Record
from jettison.stats.mixtures import share_sequence
from jettison.stats.rare_events import rate_above_log_e, rate_upper_bound
from jettison.traffic import Feedback

SOURCES = ("guardrail", "reported", "audit")
MOST_WAITING = 50_000
"""Answers whose arm is remembered for what is said of them later; after that the arm is not known."""
MOST_ARMS = 8
MOST_KINDS = 24
OTHER = "other"
UNKNOWN_ARM = "unknown"
CONFIDENCE = 0.95


class IncidentLimit(msgspec.Struct, frozen=True, kw_only=True):
    """The rate that incidents may have, as `guardrail:pii:0.001` or `reported:0.0005`."""

    source: str
    kind: str
    rate: float

    @property
    def text(self) -> str:
        """As it was written."""
        kind = "" if self.kind == ANY else f":{self.kind}"
        return f"{self.source}{kind}:{self.rate:g}"


def limit_from(text: str) -> IncidentLimit:
    """A limit as the command line writes it: SOURCE[:KIND]:RATE.

    Raises:
        InvalidInput: It is not that, or the rate is not in (0, 1).
    """
    source, _, rest = text.partition(":")
    kind, _, rate = rest.rpartition(":")
    try:
        limit = IncidentLimit(source=source, kind=kind or ANY, rate=float(rate))
    except ValueError as error:
        raise InvalidInput(
            f"--incident must be SOURCE[:KIND]:RATE, as guardrail:pii:0.001, got {text!r}."
        ) from error
    if source not in SOURCES:
        raise InvalidInput(f"the source of --incident must be one of {list(SOURCES)}, got {source!r}.")
    if not 0 < limit.rate < 1:
        raise InvalidInput(f"the rate of --incident must be in (0, 1), got {text!r}.")
    return limit


class IncidentWatch:
    """Counts incidents, and alerts where a rate surely is above its limit.

    Args:
        limits: What may not be exceeded, each in all arms together and in each arm.
        alpha: Probability of any false alarm, ever, over all limits and arms.
    """

    name = "incidents"

    def __init__(self, limits: Sequence[IncidentLimit] = (), *, alpha: float = 0.01) -> None:
        if not 0 < alpha < 1:
            raise InvalidInput(f"--incident-alpha must be in (0, 1), got {alpha}.")
        self.limits, self.alpha = tuple(limits), alpha
        self._arms: list[str] = []
        self._kinds: list[str] = []
        # (source, kind, arm) -> incidents; (source, kind or "", arm) -> answers looked at
        self._hits: dict[tuple[str, str, str], int] = {}
        self._seen: dict[tuple[str, str, str], int] = {}
        self._arm_of: OrderedDict[str, str] = OrderedDict()
        self._said: OrderedDict[str, None] = OrderedDict()
        self._last = 0.0
        self._published: float | None = None

    def take(self, news: News) -> None:
        for record in news.records:
            if record.role in (None, "answer"):
                self._answer(record)
        for said in news.feedback:
            if said.incident is not None:
                self._report(said)

    def _answer(self, record: Record) -> None:
        arm = self._known(self._arms, record.arm or "", MOST_ARMS)
        self._last = max(self._last, record.time or 0.0)
        checked = record.output_guardrails
        if record.error is None or checked:
            self._look("reported", "", arm)
            self._arm_of[record.example_id] = arm
            if len(self._arm_of) > MOST_WAITING:
                self._arm_of.popitem(last=False)
        for name, did in checked.items():
            kind = self._known(self._kinds, name, MOST_KINDS)
            self._look("guardrail", kind, arm)
            if did != "pass":
                self._hit("guardrail", kind, arm)
        if checked:
            self._look("guardrail", ANY, arm)
            if any(did != "pass" for did in checked.values()):
                self._hit("guardrail", ANY, arm)

    def _report(self, said: Feedback) -> None:
        assert said.incident is not None
        source = "audit" if said.source == "audit" else "reported"
        is_one = said.incident != NONE
        if not is_one and source == "reported":
            return
        arm = self._arm_of.get(said.request_id, UNKNOWN_ARM)
        self._last = max(self._last, said.time)
        if source == "audit" and self._is_first("audited", said.request_id):
            self._look("audit", "", arm)
        if not is_one:
            return
        kind = self._known(self._kinds, said.incident, MOST_KINDS)
        if self._is_first(f"{source} {kind}", said.request_id):
            self._hit(source, kind, arm)
        if self._is_first(f"{source} {ANY}", said.request_id):
            self._hit(source, ANY, arm)

    def _is_first(self, what: str, request: str) -> bool:
        key = f"{what} {request}"
        is_first = key not in self._said
        self._said[key] = None
        if len(self._said) > MOST_WAITING:
            self._said.popitem(last=False)
        return is_first

    def _look(self, source: str, kind: str, arm: str) -> None:
        self._seen[source, kind, arm] = self._seen.get((source, kind, arm), 0) + 1

    def _hit(self, source: str, kind: str, arm: str) -> None:
        self._hits[source, kind, arm] = self._hits.get((source, kind, arm), 0) + 1

    @staticmethod
    def _known(names: list[str], name: str, most: int) -> str:
        """The name, or `other` where there are too many to tell apart."""
        if name in names:
            return name
        if len(names) >= most:
            return OTHER
        names.append(name)
        return name

    def status(self) -> tuple[IncidentCount, ...]:
        """Every kind that could have been seen, all arms together first."""
        kinds = {(source, kind) for source, kind, _ in (*self._hits, *self._seen) if kind}
        kinds |= {(source, ANY) for source, _, _ in self._seen}
        kinds |= {(limit.source, limit.kind) for limit in self.limits}
        found = []
        for source, kind in sorted(kinds, key=_order):
            arms = sorted({a for s, _, a in (*self._hits, *self._seen) if s == source})
            for arm in ("", *(a for a in arms if a and len(arms) > 1)):
                found.append(self._count(source, kind, arm))
        return tuple(found)

    def _count(self, source: str, kind: str, arm: str) -> IncidentCount:
        looked = kind if source == "guardrail" else ""
        n = _sum(self._seen, source, looked, arm)
        hits = _sum(self._hits, source, kind, arm)
        limit = next((one for one in self.limits if (one.source, one.kind) == (source, kind)), None)
        # What is said of answers that are no longer remembered has no number to be held against.
        is_rate = n > 0 and hits <= n
        always = share_sequence(hits, n, alpha=1 - CONFIDENCE) if is_rate else None
        return IncidentCount(
            source=source,
            kind=kind,
            arm=arm,
            n=n,
            n_incidents=hits,
            rate=hits / n if is_rate else None,
            high=rate_upper_bound(hits, n, confidence=CONFIDENCE) if is_rate else None,
            low_always=always.low if always else None,
            high_always=always.high if always else None,
            limit=limit.rate if limit else None,
            log_e=rate_above_log_e(hits, n, limit=limit.rate) if limit and is_rate else None,
            log_e_limit=self._log_e_limit() if limit else None,
        )

    def _log_e_limit(self) -> float:
        """Alpha is shared by the limits, and of each by all arms together and every arm there may be."""
        return math.log(len(self.limits) * (MOST_ARMS + 3) / self.alpha)

    def alerts(self, now: float) -> tuple[Alert, ...]:
        return tuple(
            Alert(
                name="incident_rate",
                subject=f"{one.source} {one.kind}" + (f" in {one.arm}" if one.arm else ""),
                severity="critical",
                message=_above(one),
                time=now,
                evidence={**msgspec.to_builtins(one), "alpha": self.alpha},
            )
            for one in self.status()
            if one.is_above
        )

    def lines(self) -> list[str]:
        shown = [one for one in self.status() if not one.arm or one.n_incidents]
        return [f"incidents {incident_words(one)}" for one in shown] or ["incidents: no answer yet"]

    def publish(self, state: Path) -> None:
        """Write `incidents.json`, where anything was counted since."""
        if self._published == self._last and (state / INCIDENTS_FILE).exists():
            return
        write_json(
            state / INCIDENTS_FILE, Incidents(time=self._last, counts=self.status(), confidence=CONFIDENCE)
        )
        self._published = self._last

    def state(self) -> dict[str, Any]:
        return {
            "limits": [limit.text for limit in self.limits],
            "alpha": self.alpha,
            "arms": self._arms,
            "kinds": self._kinds,
            "hits": [[*key, n] for key, n in self._hits.items()],
            "seen": [[*key, n] for key, n in self._seen.items()],
            "arm_of": list(self._arm_of.items()),
            "said": list(self._said),
            "last": self._last,
        }

    def restore(self, state: dict[str, Any]) -> bool:
        # Counts are counts whatever the limits are: another limit needs no other reading.
        self._arms, self._kinds = list(state["arms"]), list(state["kinds"])
        self._hits = {(s, k, a): int(n) for s, k, a, n in state["hits"]}
        self._seen = {(s, k, a): int(n) for s, k, a, n in state["seen"]}
        self._arm_of = OrderedDict((request, arm) for request, arm in state["arm_of"])
        self._said = OrderedDict((key, None) for key in state["said"])
        self._last = float(state["last"])
        return True


def incident_words(one: IncidentCount) -> str:
    """One count in words, as `guardrail pii: 0. Among 1,200 answers the rate is at most 0.0025`."""
    where = f" in {one.arm}" if one.arm else ""
    surely = ", SURELY ABOVE ITS LIMIT" if one.is_above else ""
    head = f"{one.source} {one.kind}{where}: {one.n_incidents:,}{surely}. Among {one.n:,} answers"
    if one.high is None:
        return f"{head} no rate is known"
    said = f"{head} the rate is at most {one.high:.2g} ({CONFIDENCE:.0%}, at one look)"
    return said if one.limit is None else f"{said}; the limit is {one.limit:g}"


def _above(one: IncidentCount) -> str:
    assert one.rate is not None
    assert one.log_e is not None
    where = f" in arm {one.arm}" if one.arm else ""
    return (
        f"{one.source} incidents ({one.kind}){where} surely come at a rate above {one.limit:g}: "
        f"{one.n_incidents:,} of {one.n:,} answers ({one.rate:.2g}; log e-value {one.log_e:.1f}, "
        f"alarm at {one.log_e_limit:.1f})."
    )


def _order(kind: tuple[str, str]) -> tuple[int, bool, str]:
    return SOURCES.index(kind[0]), kind[1] != ANY, kind[1]


def _sum(counts: dict[tuple[str, str, str], int], source: str, kind: str, arm: str) -> int:
    return sum(n for (s, k, a), n in counts.items() if (s, k) == (source, kind) and arm in ("", a))
