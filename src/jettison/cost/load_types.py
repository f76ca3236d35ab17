"""What a run under load found: one record a target, every field with its unit."""

from typing import Literal

import msgspec

from jettison.decision import CDF_SHARES, Interval, MovedBytes, PhaseMemory

ScenarioKind = Literal["single-stream", "offline", "server", "trace"]


class Slo(msgspec.Struct, frozen=True, kw_only=True):
    """A limit that a percentile of the latencies must keep to."""

    share: float
    """Which percentile, as a share: 0.95 is p95."""
    limit_s: float

    @property
    def words(self) -> str:
        """As it is written on the command line."""
        return f"p{100 * self.share:g} <= {1000 * self.limit_s:g} ms"


class Tail(msgspec.Struct, frozen=True, kw_only=True):
    """A percentile with its interval, in seconds."""

    value_s: float | None
    """None: it lies among the requests that failed."""
    low_s: float | None
    high_s: float | None
    """None: not certifiable from this run; `reason` says what is missing."""
    n_missing: int | None = None
    """At least so many more requests would be needed."""
    reason: str = ""
    method: str = ""


class RatePoint(msgspec.Struct, frozen=True, kw_only=True):
    """What was seen at one rate."""

    rate_per_s: float
    n_tasks: int
    latency_p50_s: float | None
    tail: Tail
    """Of the percentile that the SLO names; p95 without one."""
    missed_share: float
    """Requests that failed or timed out."""
    is_met: bool | None
    """Whether the SLO was shown to hold (upper bound within it) or not to (lower bound beyond it);
    None where the run could not tell, or without an SLO."""
    is_valid: bool
    """Whether the client kept to its schedule."""


class LoadSummary(msgspec.Struct, frozen=True, kw_only=True):
    """One target under load. None is not measured."""

    name: str
    kind: Literal["candidate", "address"]
    n_tasks: int
    n_failed: int
    """Failed or timed out: misses of every limit, and part of every percentile."""
    failures: dict[str, int] = msgspec.field(name="n_by_failure")
    """Why, and how often."""
    rate_asked_per_s: float | None
    rate_delivered_per_s: float
    """Answers a second."""
    utilisation_share: float | None
    """Busy time over wall time of a model that runs here."""
    latency_p50_s: Tail | None
    latency_p95_s: Tail | None
    latency_p99_s: Tail | None
    """Latencies count from when a request was due."""
    latency_quantiles_s: tuple[float | None, ...]
    """At `CDF_SHARES`; None among the failed."""
    service_p50_s: float | None
    service_p95_s: float | None
    """Service time counts from when it was sent: what a tool that hides the queue would show."""
    first_token_p50_s: float | None
    first_token_p95_s: float | None
    between_tokens_p50_s: float | None
    between_tokens_p95_s: float | None
    """Gaps between chunks of text, all pooled; a chunk is not always one token."""
    token_p50_s: float | None
    """Time per output token: (end - first token) / (tokens - 1)."""
    cpu_s: float | None
    """CPU-seconds per task of a model that runs here; the work of a server elsewhere is not to be seen."""
    client_cpu_share: float
    """CPU that the client took, as a share of one core."""
    late_p50_s: float
    late_p99_s: float
    late_max_s: float
    """How long after it could have been sent a request was sent."""
    gaps_ks_p: float | None
    """Kolmogorov-Smirnov p-value of the gaps as sent against exponential ones; None but for Poisson."""
    latency_ratio: Interval | None
    """Median latency over the first target's, paired blocks, over openings. Of the first target itself:
    its twin's over its own (A/A)."""
    tail_ratio: Interval | None
    """95th percentile over the first target's, likewise; None where too few requests fall in an opening."""
    cpu_ratio: Interval | None = None
    """CPU-seconds over the first target's, likewise; None where the work is not done here."""
    throughput_ratio: Interval | None = None
    """Offline: tasks a second over the first target's, likewise."""
    slo_rate_per_s: float | None = None
    """The highest rate at which the SLO was shown to hold."""
    slo_reason: str = ""
    curve: tuple[RatePoint, ...] = ()
    service_quantiles_s: tuple[float | None, ...] = ()
    """Of service times at `CDF_SHARES`; None among the failed."""
    wire_payload_bytes: float | None = None
    """Per task: bodies of requests and answers."""
    wire_protocol_bytes: float | None = None
    """Per task: what the TCP streams carried beside the bodies (HTTP and TLS)."""
    wire_packet_bytes: float | None = None
    """Per task, modelled: 40 bytes of IP and TCP headers for each packet counted."""
    wire_resent_bytes: float | None = None
    """Per task: sent again because it was lost."""
    prompt_tokens: float | None = None
    completion_tokens: float | None = None
    """Mean per task, as the server counted them."""
    energy_j: float | None = None
    """Per task at this rate, idle share included; `energy_tier` says how it is known."""
    energy_dynamic_j: float | None = None
    energy_idle_j: float | None = None
    energy_tier: str | None = None
    energy_factor: float | None = None
    energy_boundary: str | None = None
    energy_source: str | None = None
    energy_rest_j: float | None = None
    """Per task, estimated: the processor beside a measured accelerator, where no counter sees it."""
    energy_rest_tier: str | None = None
    energy_rest_factor: float | None = None
    energy_rest_source: str | None = None
    co2e_g: float | None = None
    """Per task, of `energy_j`; None without the user's grid factor."""
    co2e_source: str | None = None
    usd_per_1000: float | None = None
    """Of a machine here at this rate, idle time paid; of an address by its tokens."""
    usd_source: str | None = None
    slo_usd_per_1000: float | None = None
    """Of a machine here kept at `slo_rate_per_s`."""
    own_rate_per_s: float | None = None
    """The user's own arrivals a second, where the scenario has no rate of its own."""
    own_machines: int | None = msgspec.field(default=None, name="n_machines_at_own_rate")
    own_rate_usd_per_1000: float | None = None
    """Idle time paid."""
    moved: MovedBytes | None = None
    correct_share: Interval | None = None
    per_correct: dict[str, Interval] = msgspec.field(default_factory=dict)
    """Cost → what one correct answer takes of it."""
    memory: PhaseMemory | None = None
    """Of a model that runs here."""
    is_claim: bool = True
    """False: the run was spoiled, and its figures are no claim."""
    marks: tuple[str, ...] = ()
    """What may have disturbed it, or why it is no claim."""


class LoadReport(msgspec.Struct, frozen=True, kw_only=True):
    """All targets of one run, the one that ratios are taken against first."""

    scenario: ScenarioKind
    rate_per_s: float | None
    duration_s: float
    n_blocks: int
    seed: int
    slo: Slo | None
    targets: tuple[LoadSummary, ...]
    aa_ratio: Interval | None
    """Median latency of the first target over that of its own twin, paired: what a ratio shows when
    nothing differs."""
    aa_cpu_ratio: Interval | None
    """The same of CPU-seconds, where it runs here."""
    timer_late_p50_s: float
    timer_late_p99_s: float
    """How late this machine's timers are: the measurement floor."""
    machine: dict[str, str]
    created: str
    marks: tuple[str, ...] = ()
    """What may have disturbed the whole run."""
    n_openings: int = 1
    """Fresh processes of each target that runs here, among which the blocks are parted."""
    contexts: tuple[str, ...] = ()
    """Where figures fall among published ones, or why they do not compare."""
    quantile_share: tuple[float, ...] = CDF_SHARES
    """The shares that all `*_quantiles_s` are at."""
    format: int = 1
