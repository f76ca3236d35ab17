"""A run under load of two targets: one measured by a counter, one estimated, with a searched rate."""

import msgspec

from jettison.cost.load_types import CDF_SHARES, LoadReport, LoadSummary, RatePoint, Slo, Tail
from jettison.decision import Interval


def target(name: str, scale_s: float, **more: object) -> LoadSummary:
    due = tuple(scale_s * (1 + 4 * share) for share in CDF_SHARES)
    service = tuple(scale_s * (1 + share) for share in CDF_SHARES)
    fields = {
        "name": name,
        "kind": "candidate",
        "n_tasks": 800,
        "n_failed": 0,
        "n_by_failure": {},
        "rate_asked_per_s": 40.0,
        "rate_delivered_per_s": 39.7,
        "utilisation_share": 0.4,
        "latency_p50_s": tail(3 * scale_s),
        "latency_p95_s": tail(4.8 * scale_s),
        "latency_p99_s": tail(5 * scale_s),
        "latency_quantiles_s": due,
        "service_quantiles_s": service,
        "service_p50_s": 1.5 * scale_s,
        "service_p95_s": 1.95 * scale_s,
        "first_token_p50_s": None,
        "first_token_p95_s": None,
        "between_tokens_p50_s": None,
        "between_tokens_p95_s": None,
        "token_p50_s": None,
        "cpu_s": scale_s,
        "client_cpu_share": 0.02,
        "late_p50_s": 0.0001,
        "late_p99_s": 0.0002,
        "late_max_s": 0.0003,
        "gaps_ks_p": 0.6,
        "latency_ratio": None,
        "tail_ratio": None,
        "wire_packet_bytes": 240.0,
        "energy_j": 3 * scale_s,
        "energy_factor": 2.0,
        "energy_boundary": "server",
        "energy_source": "a source",
        "co2e_g": scale_s / 3000,
        "co2e_source": "400 g/kWh",
        "per_correct": {"energy_j": interval(4 * scale_s), "cpu_s": interval(1.2 * scale_s)},
        "usd_per_1000": 0.01,
        **more,
    }
    return msgspec.convert(fields, LoadSummary)


def load_report(*, scenario: str = "server", with_curve: bool = True) -> LoadReport:
    slo = Slo(share=0.95, limit_s=0.05)
    rates = (20.0, 40.0, 60.0) if with_curve else ()
    curve = tuple(
        RatePoint(
            rate_per_s=rate,
            n_tasks=300,
            latency_p50_s=rate / 4000,
            tail=tail(rate / 1000),
            missed_share=0.0,
            is_met=rate < 50,
            is_valid=True,
        )
        for rate in rates
    )
    return LoadReport(
        scenario=scenario,  # type: ignore[arg-type]
        rate_per_s=40.0,
        duration_s=20.0,
        n_blocks=6,
        seed=0,
        slo=slo if with_curve else None,
        targets=(
            target("metered", 0.008, energy_tier="M2", curve=curve, slo_rate_per_s=40.0),
            target("guessed", 0.002, energy_tier="E2", curve=curve, slo_rate_per_s=40.0),
        ),
        aa_ratio=interval(1.0),
        aa_cpu_ratio=interval(1.0),
        timer_late_p50_s=0.0001,
        timer_late_p99_s=0.002,
        machine={"cpu": "AMD EPYC"},
        created="2026-11-26T12:00:00Z",
    )


def tail(value_s: float) -> Tail:
    return Tail(value_s=value_s, low_s=0.9 * value_s, high_s=1.1 * value_s)


def interval(value: float) -> Interval:
    return Interval(value=value, low=0.9 * value, high=1.1 * value)
