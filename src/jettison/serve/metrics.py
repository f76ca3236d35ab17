"""What Prometheus reads at `/metrics`. Label values are few and known; no text and no key is among them."""

from collections.abc import Sequence
from typing import Any

from jettison.incident import IncidentCount
from jettison.registry import need

LATENCY = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
_INCIDENT = ("source", "kind", "arm")


class Metrics:
    """One registry of its own, so that two gateways in one process do not mix.

    Raises:
        MissingExtra: prometheus-client is not installed.
    """

    def __init__(self) -> None:
        prom: Any = need("prometheus_client", "serve")
        self._prom = prom
        self.registry = registry = prom.CollectorRegistry()

        def counter(name: str, about: str, *labels: str) -> Any:
            return prom.Counter(f"jettison_{name}", about, labels, registry=registry)

        def gauge(name: str, about: str, *labels: str) -> Any:
            return prom.Gauge(f"jettison_{name}", about, labels, registry=registry)

        self._requests = counter("requests", "Requests answered.", "operation", "arm", "status")
        self._seconds = prom.Histogram(
            "jettison_request_seconds",
            "To the last byte.",
            ("operation",),
            buckets=LATENCY,
            registry=registry,
        )
        self._first = prom.Histogram(
            "jettison_first_token_seconds", "To the first content.", (), buckets=LATENCY, registry=registry
        )
        self._escalated = counter("escalated", "Lean answers that did not stand.", "reason")
        self._tokens = counter("tokens", "Tokens of answers.", "arm", "kind")
        self._upstream = counter(
            "upstream_attempts", "Requests sent to an upstream.", "upstream", "outcome"
        )
        self._engine = counter(
            "engine_events", "Starts, crashes and hangs of child processes.", "engine", "event"
        )
        self._guard = counter("guardrails", "Guardrails that fired or failed.", "guardrail", "outcome")
        self._refused = counter("refused", "Requests that were not admitted.", "reason")
        self._log = counter("log_rows", "Rows of the traffic log.", "outcome")
        self._reloads = counter("reloads", "Configurations read anew.", "outcome")
        self.in_flight = gauge("in_flight", "Requests under way.")
        self.log_broken = gauge("log_broken", "1 while the traffic log cannot be written.")
        self.ready = gauge("ready", "1 while every engine is ready.")
        self.breaker = gauge("upstream_open", "1 while an upstream is left alone.", "upstream")
        self.engine_ready = gauge("engine_ready", "1 while a child process answers.", "engine")
        self.engine_queue = gauge("engine_queue", "Inputs waiting or under way.", "engine")
        self.unproven = gauge(
            "unproven", "1 for a release that is served without its proof.", "release", "reason"
        )
        self.release = gauge("release_info", "Releases that are served.", "release", "digest", "verdict")
        self.weight = gauge("route_weight", "Shares and thresholds in force.", "place", "kind")
        self._incidents = gauge("incidents", "Safety incidents that the watcher counted.", *_INCIDENT)
        self._incident_answers = gauge(
            "incident_answers", "Answers among which they were looked for.", *_INCIDENT
        )
        self._incident_upper = gauge(
            "incident_rate_upper", "Exact 95 % upper bound of their rate, at one look.", *_INCIDENT
        )
        self._incident_above = gauge(
            "incident_rate_above", "1 where the rate surely is above its limit.", *_INCIDENT
        )
        self._children: dict[tuple[str, ...], Any] = {}

    def _child(self, metric: Any, *labels: str) -> Any:
        # `labels()` costs three times as much as the count itself.
        key = (metric._name, *labels)
        found = self._children.get(key)
        if found is None:
            if len(self._children) > 10_000:  # statuses times arms never come near
                self._children.clear()
            found = self._children[key] = metric.labels(*labels)
        return found

    def request(self, operation: str, arm: str | None, status: int, seconds: float) -> None:
        """One request was answered."""
        self._child(self._requests, operation, arm or "none", str(status)).inc()
        self._child(self._seconds, operation).observe(seconds)

    def tokens(self, arm: str | None, n_in: int | None, n_out: int | None) -> None:
        """What an answer took, where that is known."""
        if n_in is not None:
            self._child(self._tokens, arm or "none", "input").inc(n_in)
        if n_out is not None:
            self._child(self._tokens, arm or "none", "output").inc(n_out)

    def first_token(self, seconds: float) -> None:
        """Of a stream."""
        self._first.observe(seconds)

    def escalated(self, reason: str) -> None:
        """A lean answer did not stand."""
        self._child(self._escalated, reason).inc()

    def upstream(self, name: str, outcome: str) -> None:
        """An attempt ended."""
        self._child(self._upstream, name, outcome).inc()

    def engine(self, name: str, event: str) -> None:
        """A child process started, crashed or hung."""
        self._child(self._engine, name, event).inc()

    def guardrail(self, name: str, outcome: str) -> None:
        """A guardrail fired or failed."""
        self._child(self._guard, name, outcome).inc()

    def refused(self, reason: str) -> None:
        """A request was not admitted."""
        self._child(self._refused, reason).inc()

    def log_rows(self, outcome: str, n: int = 1) -> None:
        """Rows were written, dropped or rolled."""
        self._child(self._log, outcome).inc(n)

    def reloaded(self, outcome: str) -> None:
        """A configuration was taken, or refused."""
        self._child(self._reloads, outcome).inc()

    def incidents(self, counts: Sequence[IncidentCount]) -> None:
        """What the watcher counted, all of it anew: what is not told any more is gone."""
        shown = (self._incidents, self._incident_answers, self._incident_upper, self._incident_above)
        for metric in shown:
            metric.clear()
        for one in counts:
            labels = one.source, one.kind, one.arm or "all"
            self._incidents.labels(*labels).set(one.n_incidents)
            self._incident_answers.labels(*labels).set(one.n)
            if one.high is not None:  # not known is not zero
                self._incident_upper.labels(*labels).set(one.high)
            if one.limit is not None:
                self._incident_above.labels(*labels).set(one.is_above)

    def page(self) -> bytes:
        """Prometheus' text format."""
        page: bytes = self._prom.generate_latest(self.registry)
        return page
