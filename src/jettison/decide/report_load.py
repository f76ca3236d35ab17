"""The table of a run under load, in units people read, and the sentences it rests on."""

from collections.abc import Sequence

from jettison.cost.load_types import LoadReport, LoadSummary, Tail
from jettison.decide import report_words as words
from jettison.decide.report_costs import (
    CostRow,
    co2e_rows,
    energies,
    memory_rows,
    moved_notes,
    moved_rows,
    only,
    per_correct_rows,
)
from jettison.decision import Interval

NOT_CERTIFIED = "not certifiable"


def load_rows(report: LoadReport) -> list[CostRow]:
    """Every figure that was measured of at least one target; figures in the targets' order."""
    found = report.targets
    counts = (
        "scheduled arrival to end" if report.scenario in ("server", "trace") else "sent to end, no queue"
    )
    rows = [
        CostRow("Claim", "", [_claim(t, report) for t in found]),
        CostRow("Requests", "", [f"{t.n_tasks:,}" for t in found]),
        CostRow("Failed or timed out", "misses of every limit", [f"{t.n_failed:,}" for t in found]),
        CostRow("Rate asked", "", [words.rate(t.rate_asked_per_s) for t in found]),
        CostRow("Rate answered", "", [words.rate(t.rate_delivered_per_s) for t in found]),
        CostRow("Highest rate that meets the SLO", _slo(report), [_slo_rate(t) for t in found]),
        CostRow("Utilisation", "busy time over wall time", [_share(t.utilisation_share) for t in found]),
        CostRow("Latency, median", counts, [tail_words(t.latency_p50_s) for t in found]),
        CostRow("Latency, 95th percentile", "", [tail_words(t.latency_p95_s) for t in found]),
        CostRow("Latency, 99th percentile", "", [tail_words(t.latency_p99_s) for t in found]),
        CostRow(
            "Median latency over the first's",
            "paired blocks; A/A: a second copy of the first over it",
            _ratios([t.latency_ratio for t in found]),
        ),
        CostRow(
            "95th percentile over the first's", "paired blocks", _ratios([t.tail_ratio for t in found])
        ),
        CostRow(
            "Tasks per second over the first's",
            "paired blocks",
            _ratios([t.throughput_ratio for t in found]),
        ),
        CostRow(
            "Service time, median", "without the queue", [words.seconds(t.service_p50_s) for t in found]
        ),
        CostRow("Service time, 95th percentile", "", [words.seconds(t.service_p95_s) for t in found]),
        CostRow(
            "First token, median",
            "from the scheduled arrival",
            [words.seconds(t.first_token_p50_s) for t in found],
        ),
        CostRow("First token, 95th percentile", "", [words.seconds(t.first_token_p95_s) for t in found]),
        CostRow(
            "Between tokens, median",
            "every gap between chunks",
            [words.seconds(t.between_tokens_p50_s) for t in found],
        ),
        CostRow(
            "Between tokens, 95th percentile", "", [words.seconds(t.between_tokens_p95_s) for t in found]
        ),
        CostRow("Time per output token", "median", [words.seconds(t.token_p50_s) for t in found]),
        *_money_and_energy(found),
        *memory_rows([t.memory for t in found]),
        CostRow(
            "On the wire, payload", "bodies, per task", [words.size(t.wire_payload_bytes) for t in found]
        ),
        CostRow("On the wire, protocol", "HTTP, TLS", [words.size(t.wire_protocol_bytes) for t in found]),
        CostRow(
            "On the wire, packet headers",
            "modelled",
            [words.size(t.wire_packet_bytes) for t in found],
            is_estimate=True,
        ),
        CostRow("On the wire, sent again", "", [words.size(t.wire_resent_bytes) for t in found]),
        CostRow("Tokens of the prompt", "mean", [words.count_or_unknown(t.prompt_tokens) for t in found]),
        CostRow(
            "Tokens of the answer", "mean", [words.count_or_unknown(t.completion_tokens) for t in found]
        ),
        CostRow("Answers that are correct", "", [words.share_bounds(t.correct_share) for t in found]),
        *per_correct_rows([t.per_correct for t in found], [(t.energy_tier or "")[:1] for t in found]),
        *moved_rows([t.moved for t in found]),
        CostRow("Client late by, 99th percentile", "", [words.seconds(t.late_p99_s) for t in found]),
        CostRow("CPU of the client", "of one core", [_share(t.client_cpu_share) for t in found]),
    ]
    return [row for row in rows if any(figure != words.UNKNOWN for figure in row.figures)]


def load_notes(report: LoadReport) -> list[str]:
    """What the figures rest on: noise floor, refusals, marks, sources."""
    several = len(report.targets) > 1
    notes = [_aa_words(report)]
    for target in report.targets:
        lead = f"{target.name}: " if several else ""
        tails = (target.latency_p95_s, target.latency_p99_s)
        notes += [f"{lead}{tail.reason}" for tail in tails if tail is not None and tail.reason]
        notes += [f"{lead}{target.slo_reason}"] if target.slo_reason else []
        notes += [f"{lead}{mark}" for mark in target.marks]
        notes += [f"{lead}{n:,} times: {why}" for why, n in target.failures.items()]
        if (target.utilisation_share or 0.0) > 0.7:
            notes.append(
                f"{lead}busy {target.utilisation_share:.0%} of the time: the queue rules the tail."
            )
    notes += _energy_words(report)
    notes += sorted({f"Money: {t.usd_source}." for t in report.targets if t.usd_source})
    notes += moved_notes([t.name for t in report.targets], [t.moved for t in report.targets])
    if any(t.wire_packet_bytes for t in report.targets):
        notes.append(
            "Packet headers are modelled: 40 bytes of IP and TCP for each packet that was counted."
        )
    notes.append(
        f"Timers of this machine wake late by {words.seconds(report.timer_late_p50_s)} (median) and "
        f"{words.seconds(report.timer_late_p99_s)} (99th percentile): the measurement floor."
    )
    notes += [mark[0].upper() + mark[1:] for mark in report.marks]
    return [*dict.fromkeys(note for note in notes if note), *report.contexts]


def curve_words(report: LoadReport) -> str:
    """How to read the picture of latency against rate."""
    if report.slo is None:
        return ""
    return (
        f"The {100 * report.slo.share:g}th percentile with its 95 % interval at every rate that was tried. "
        f"A dot is full where {report.slo.words} was shown to hold, hollow where it was not; "
        "an interval that runs to the top has no upper end."
    )


def not_measured(report: LoadReport) -> list[str]:
    """What of latency and rate this run leaves open, and how to find it."""
    search = "`--scenario server --slo p95=20ms` searches for the highest rate that keeps to a limit."
    if report.scenario in ("single-stream", "offline"):
        asked = "one request at a time" if report.scenario == "single-stream" else "everything at once"
        return [
            f"Latency from a schedule, and how it grows with the rate, were not measured: this run asked "
            f"{asked}, and service time says nothing of a queue. {search}"
        ]
    if not any(target.curve for target in report.targets):
        return [f"Latency was measured at one load only; how it grows with the rate was not. {search}"]
    few = [target.name for target in report.targets if len(target.curve) < 2]
    return [f"Of {', '.join(few)} fewer than two rates were tried: the notes say why."] if few else []


def scenario_words(report: LoadReport) -> str:
    """The scenario in one line."""
    said = {
        "single-stream": "one request at a time, the next when the last is done",
        "offline": "everything asked at once",
        "server": "open loop, Poisson arrivals",
        "trace": "open loop, the trace's own arrivals",
    }[report.scenario]
    rate = f" at {words.rate(report.rate_per_s)}" if report.rate_per_s else ""
    return f"{report.scenario}: {said}{rate}; {report.n_blocks} interleaved blocks, seed {report.seed}"


def tail_words(tail: Tail | None) -> str:
    """A percentile with its interval, or that it cannot be told."""
    if tail is None:
        return words.UNKNOWN
    if tail.value_s is None:
        return "among the failed"
    if tail.low_s is None:
        return f"{words.seconds(tail.value_s)} (no interval)"
    if tail.high_s is None:
        return f"≥ {words.seconds(tail.low_s)}, {NOT_CERTIFIED}"
    return f"{words.seconds(tail.value_s)} [{words.seconds(tail.low_s)}, {words.seconds(tail.high_s)}]"


def ratio_words(ratio: Interval | None) -> str:
    """A ratio with its interval; said so when it shows no difference."""
    if ratio is None:
        return words.UNKNOWN
    shown = words.ratio(ratio)
    return f"{shown}: no difference shown" if ratio.low <= 1 <= ratio.high else shown


def _ratios(ratios: Sequence[Interval | None]) -> list[str]:
    """Ratios to the first target; of that itself how its twin compares with it."""
    own, *others = ratios
    is_compared = any(ratio is not None for ratio in others)
    said = words.REFERENCE if is_compared else words.UNKNOWN
    return [said if own is None else words.against_itself(own), *map(ratio_words, others)]


def _money_and_energy(found: Sequence[LoadSummary]) -> list[CostRow]:
    """Measured and estimated joules are rows of their own: they never share one."""
    kinds = [(t.energy_tier or "")[:1] for t in found]
    joules = [t.energy_j for t in found]
    guessed = [t.energy_j if kind == "E" else t.energy_rest_j for t, kind in zip(found, kinds, strict=True)]
    return [
        CostRow("Energy per task, measured", "", energies(only(joules, kinds, "M"))),
        CostRow("CPU time per task", "a fact: all threads", [words.seconds(t.cpu_s) for t in found]),
        CostRow("CPU time over the first's", "paired blocks", _ratios([t.cpu_ratio for t in found])),
        CostRow(
            "Energy per task, ESTIMATED",
            "at this rate, idle included",
            energies(guessed, is_estimate=True),
            is_estimate=True,
        ),
        *co2e_rows([t.co2e_g for t in found], kinds),
        CostRow(
            "Price per 1,000 tasks",
            "a machine here: at this rate, idle included; an address: by its tokens",
            [words.dollars(t.usd_per_1000) for t in found],
        ),
        CostRow(
            "Price per 1,000 tasks at the SLO's rate",
            "a machine here, kept at the highest rate that meets it",
            [_slo_price(t) for t in found],
        ),
        CostRow(
            "Price per 1,000 tasks at your rate",
            "idle time paid",
            [words.dollars(t.own_rate_usd_per_1000) for t in found],
        ),
    ]


def _energy_words(report: LoadReport) -> list[str]:
    """Tier, factor, boundary and source of every figure in joules, or that there is no meter."""
    told = {
        (t.energy_tier, t.energy_factor, t.energy_boundary, t.energy_source)
        for t in report.targets
        if t.energy_source
    } | {
        (t.energy_rest_tier, t.energy_rest_factor, "server", t.energy_rest_source)
        for t in report.targets
        if t.energy_rest_source
    }
    notes = []
    for tier, factor, boundary, source in sorted(told, key=str):
        kind = "measured" if str(tier).startswith("M") else "estimate"
        notes.append(
            f"Energy ({kind}, tier {tier}: ×/÷ {factor:g}; boundary: {boundary}; idle share at this rate): "
            f"{source}."
        )
    blind = [t.name for t in report.targets if t.energy_j is None]
    if blind:
        notes.append(f"Energy of {', '.join(blind)}: no meter, no joules.")
    return notes + sorted({f"CO₂e: {t.co2e_source}." for t in report.targets if t.co2e_source})


def _claim(target: LoadSummary, report: LoadReport) -> str:
    """Never a plain yes where anything was found that may have disturbed it."""
    if not target.is_claim:
        return "NO CLAIM"
    return "marked, see notes" if target.marks or report.marks else "yes"


def _aa_words(report: LoadReport) -> str:
    if report.aa_ratio is None:
        return (
            "The first target against its own twin (A/A): too few blocks, so the noise floor is not known."
        )
    openings = (
        f"; each that runs here was opened {report.n_openings} times, and intervals are over these"
        if report.n_openings > 1
        else "; each was opened once: intervals of ratios hold for these processes alone"
    )
    missed = (
        ""
        if report.aa_ratio.low <= 1 <= report.aa_ratio.high
        else " It misses 1: hold no ratio of this run for a difference that comes no farther from 1."
    )
    return (
        "The first target against its own twin in the same run (A/A), median latency: "
        f"{words.near_one(report.aa_ratio)}. That is the noise floor of this machine on this day"
        f"{openings}.{missed}"
    )


def _slo(report: LoadReport) -> str:
    return report.slo.words if report.slo else ""


def _slo_price(target: LoadSummary) -> str:
    is_searched_in_vain = bool(target.curve) and target.slo_rate_per_s is None
    return "no rate meets it" if is_searched_in_vain else words.dollars(target.slo_usd_per_1000)


def _slo_rate(target: LoadSummary) -> str:
    if target.slo_rate_per_s is not None:
        return words.rate(target.slo_rate_per_s)
    return "none" if target.curve else words.UNKNOWN


def _share(value: float | None) -> str:
    return words.percent(value, 0)
