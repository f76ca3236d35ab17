"""What interleaved rounds come to: one summary of costs for each that was measured."""

from collections.abc import Sequence

import numpy as np

from jettison.cost.artifact import compressed_bytes
from jettison.cost.energy import Energy, estimate_energy
from jettison.cost.grid import GridFile, co2e_g
from jettison.cost.joules import Board, is_shared, short_words
from jettison.cost.keeper import died_marks
from jettison.cost.latency import Latencies, latency_percentiles
from jettison.cost.load_summary import cdf_of
from jettison.cost.money import OwnRate, at_own_rate, usd_per_1000
from jettison.cost.moved import moved_bytes
from jettison.cost.per_correct import costs_per_correct
from jettison.cost.ratio import aa_noise, median_interval, openings_interval
from jettison.cost.subject import Subject, most_bytes, peak_interval, phase_memory
from jettison.decision import CostSummary, Interval

RATIOS = "CPU-second ratios of interleaved rounds"


def summaries(
    measured: Sequence[Subject],
    twin: Subject | None,
    incumbent: int,
    threads: int,
    usd_per_hour: float | None,
    own_rate_per_s: float | None,
    board: Board,
    grid: GridFile,
    n_inputs: int,
    marks: tuple[str, ...],
) -> list[CostSummary]:
    """One summary for each measured subject; what was not measured is None.

    Args:
        measured: After their rounds.
        twin: The incumbent once more: what ratios of equals came out as.
        incumbent: Its position among the measured.
        threads: That each had.
        usd_per_hour: Of the machine; None where nobody said.
        own_rate_per_s: The team's own rate, tasks a second.
        board: Counters of energy.
        grid: Watts of the machine and grams of its grid.
        n_inputs: Different inputs that they were asked.
        marks: What is to be said of all figures of this run.
    """
    base = measured[incumbent]
    among_equals = _ratios(twin, base) if twin else []
    aa_ratio = openings_interval(among_equals, of=RATIOS)
    shared = is_shared([subject.spent for subject in measured])
    summaries = []
    for index, subject in enumerate(measured):
        energies = _energies(subject, threads, board, grid, shared=shared)
        energy = energies[0] if energies else None
        traffic = subject.mean_traffic
        at_rate = at_own_rate(own_rate_per_s, subject.throughput_per_s, usd_per_hour)
        latencies_s = subject.latencies_s
        tails = latency_percentiles(subject.opening_latencies_s, n_inputs=n_inputs)
        own = () if subject.is_steady else ("the warm-up did not become steady: latencies may still fall.",)
        cost = CostSummary(
            cpu_s=openings_interval(subject.cpu_s, of="medians of rounds"),
            cpu_ratio=_unity()
            if index == incumbent
            else openings_interval(_ratios(subject, base), twins=among_equals, of=RATIOS),
            latency_p50_s=tails.values.get("latency_p50_s"),
            latency_p95_s=tails.values.get("latency_p95_s"),
            latency_p99_s=tails.values.get("latency_p99_s"),
            latency_quantiles_s=cdf_of(np.asarray(latencies_s)) if latencies_s else (),
            throughput_per_s=subject.throughput_per_s,
            peak_bytes=most_bytes(subject.phases),
            memory=phase_memory(subject.phases),
            load_s=subject.load_s,
            first_answer_s=subject.first_answer_s,
            bytes=subject.candidate.artifact_bytes,
            compressed_bytes=compressed_bytes(subject.candidate),
            energy_j=energy.energy_j if energy else None,
            energy_tier=energy.tier if energy else None,
            energy_factor=energy.factor if energy else None,
            energy_source=energy.source if energy else None,
            energy_boundary=energy.boundary if energy else None,
            co2e_g=co2e_g(energy, grid.grid),
            co2e_source=grid.grid.words if grid.grid and energy else None,
            usd_per_1000=usd_per_1000(subject.throughput_per_s, usd_per_hour),
            own_rate_per_s=at_rate.rate_per_s if at_rate else None,
            own_machines=at_rate.n_machines if at_rate else None,
            own_rate_usd_per_1000=at_rate.usd_per_1000 if at_rate else None,
            own_rate_energy_j=_energy_at(at_rate, subject, threads, grid)
            if energy and not energy.is_measured
            else None,
            moved=moved_bytes(subject.candidate, traffic),
            prompt_tokens=traffic.prompt_tokens,
            completion_tokens=traffic.completion_tokens,
            intervals=_intervals(subject, tails, usd_per_hour),
            at_least=tails.at_least,
            n_tasks=len(latencies_s),
            threads=threads,
            n_openings=sum(1 for rounds in subject.cpu_s if rounds),
            noise_share=aa_noise(aa_ratio.value) if aa_ratio else None,
            aa_ratio=aa_ratio,
            marks=(
                *marks,
                *own,
                *died_marks(subject),
                *short_words(subject.spent),
                *map(_rest_words, energies[1:]),
            ),
        )
        summaries.append(costs_per_correct(cost, subject.correct) if subject.correct else cost)
    return summaries


def _energy_at(at_rate: OwnRate | None, subject: Subject, threads: int, grid: GridFile) -> float | None:
    """Estimated joules of a task at the team's own rate: the time between tasks is held too."""
    if at_rate is None or not subject.held_s:
        return None
    cpu_s = float(np.median([value for rounds in subject.cpu_s for value in rounds]))
    watts = grid.watts.watts if grid.watts else None
    held_s = at_rate.n_machines / at_rate.rate_per_s
    return estimate_energy(cpu_s, held_s, threads=threads, calibrated=watts).energy_j


def _energies(
    subject: Subject, threads: int, board: Board, grid: GridFile, *, shared: bool
) -> tuple[Energy, ...]:
    def estimate() -> Energy | None:
        cpu = [value for rounds in subject.cpu_s for value in rounds]
        if not cpu:
            return None
        cpu_s, held_s = float(np.median(cpu)), float(np.median(subject.held_s))
        watts = grid.watts.watts if grid.watts else None
        return estimate_energy(cpu_s, held_s, threads=threads, calibrated=watts)

    return board.energies(subject.spent, estimate, is_shared=shared)


def _rest_words(rest: Energy) -> str:
    """Beside a measured accelerator: what no counter sees, never in the same figure."""
    return (
        f"beside what was measured, the processor took an ESTIMATED {rest.energy_j:.2g} J a task "
        f"(tier {rest.tier}: ×/÷ {rest.factor:g})."
    )


def _ratios(subject: Subject, base: Subject) -> list[list[float]]:
    """Of the rounds that both have, opening by opening."""
    return [
        [a / b for a, b in zip(ours, theirs, strict=False) if b > 0]
        for ours, theirs in zip(subject.cpu_s, base.cpu_s, strict=False)
    ]


def _unity() -> Interval:
    return Interval(value=1.0, low=1.0, high=1.0, method="the incumbent itself")


def _intervals(subject: Subject, tails: Latencies, usd_per_hour: float | None) -> dict[str, Interval]:
    """What openings and samples leave open; costs with too few are left out."""
    found = tails.intervals
    peak = peak_interval(subject.phases)
    if peak is not None:
        found["peak_bytes"] = peak
    rate = median_interval(subject.rates_per_s, method="median of passes over batches, ranks of the passes")
    if rate is None:
        return found
    found["throughput_per_s"] = rate
    usd = [usd_per_1000(end, usd_per_hour) for end in (rate.value, rate.high, rate.low)]
    if None not in usd:
        value, low, high = (end or 0.0 for end in usd)
        found["usd_per_1000"] = Interval(value=value, low=low, high=high, method=rate.method)
    return found
