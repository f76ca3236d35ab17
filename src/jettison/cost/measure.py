"""Measures what candidates cost per task: each in its own process, in interleaved blocks.

Two figures are compared only when they were taken in the same round, on the same inputs, moments
apart; each run opens the incumbent twice and reports what a ratio of equals came out as.
"""

import contextlib
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np

from jettison.candidate import Candidate
from jettison.cost.artifact import compressed_bytes
from jettison.cost.cold import measure_cold_starts
from jettison.cost.energy import Energy, estimate_energy
from jettison.cost.grid import GridFile, co2e_g
from jettison.cost.inputs import deal_blocks
from jettison.cost.joules import Board, is_shared, open_board, short_words
from jettison.cost.keeper import Keeper, died_marks
from jettison.cost.load_summary import cdf_of
from jettison.cost.money import usd_per_1000
from jettison.cost.noise import noise_marks, read_machine_state
from jettison.cost.plan import MIN_BLOCK_S, Plan, plan_batches, plan_blocks, round_orders
from jettison.cost.ratio import aa_noise, median_interval
from jettison.cost.subject import Progress, Subject, most_bytes, open_subjects, phase_memory, warm_up
from jettison.decision import CostSummary, Interval
from jettison.errors import InvalidInput
from jettison.task import Input

BATCHES = (1, 8, 32, 128)
"""Batch sizes that are tried for throughput."""
BATCH_ROUNDS = 5
_LEAST_SAMPLES = {0.5: 1, 0.95: 59, 0.99: 299}
"""Fewest samples whose largest exceeds the percentile with 95 % confidence: log(0.05) / log(p)."""


def measure_costs(
    candidates: Sequence[Candidate],
    inputs: Sequence[Input],
    *,
    rounds: int = 30,
    block: int = 16,
    seed: int = 0,
    threads: int = 1,
    incumbent: int = 0,
    budget_s: float | None = 120.0,
    usd_per_hour: float | None = None,
    throughput: bool = True,
    meter: str = "auto",
    grid: GridFile | None = None,
    keep_partial: bool = False,
    cold_starts: int = 0,
    progress: Progress | None = None,
) -> list[CostSummary]:
    """Measure the cost per task of some candidates beside one another.

    Args:
        candidates: At least one; each is opened in a fresh process by its own backend.
        inputs: Inputs that follow the team's own lengths (`sample_inputs`).
        rounds: Rounds wanted; in each, every candidate answers one block of the same inputs.
        block: Inputs per block, answered one at a time. Fast candidates go over them
            several times, so that a block lasts 50 ms or more.
        seed: Deals the inputs and draws the orders.
        threads: Threads of every numeric library in those processes.
        incumbent: Position of the candidate that ratios are taken against.
        budget_s: Seconds for the blocks of all candidates together; smaller blocks and
            fewer rounds (never under 6) are run to keep to it. Batches take up to a
            quarter more. None is no limit.
        usd_per_hour: Price of the machine, when money is wanted.
        throughput: Measure tasks per second in batches too; without it (and so without money)
            the run takes half as long.
        meter: Of energy: `auto`, `none`, or a plugin's name (`jettison.cost.joules.open_board`).
        grid: Of the electricity, for emissions, and watts that the user calibrated.
        keep_partial: Keep what was measured of a candidate whose process dies in the middle, or up to
            an interruption, and mark it, instead of raising.
        cold_starts: Starts of each candidate in fresh processes, on top of the budget; 6 or more have an
            interval.
        progress: Called with a phrase and the share done.

    Returns:
        One summary per candidate, in their order.

    Raises:
        InvalidInput: No candidates or inputs, or `incumbent` is none of them.
        JettisonError: A candidate does not open or its process died; the message says why.
    """
    _check(candidates, inputs, incumbent, threads)
    say = progress or _silent
    rng = np.random.default_rng(seed)
    before = read_machine_state()
    board = open_board(meter)
    with contextlib.ExitStack() as stack:
        subjects = open_subjects([*candidates, candidates[incumbent]], inputs, threads, stack, say)
        for subject in subjects:
            say(f"warming up {subject.candidate.name}", None)
            warm_up(subject, deal_blocks(inputs, block, rng=rng)[0], budget_s)
        plan = plan_blocks(
            [subject.task_s for subject in subjects],
            rounds=rounds,
            block=block,
            n_inputs=len(inputs),
            budget_s=budget_s,
        )
        keeper = Keeper(keep_partial)
        with keeper.interrupted():
            _run_rounds(subjects, inputs, plan, rng, board, keeper, say)
            if throughput:
                _run_batches(subjects[:-1], inputs, budget_s, rng, keeper, say)
        for subject in subjects:
            if subject.died is not None:
                continue
            with keeper.dying(subject):
                subject.end_phase()
    marks = (*noise_marks(before, read_machine_state()), *keeper.marks)
    found = _summaries(subjects, incumbent, threads, usd_per_hour, board, grid or GridFile(), marks, rng)
    if not cold_starts or keeper.marks:
        return found
    colds = measure_cold_starts(candidates, inputs, cold_starts, threads=threads, rng=rng, say=say)
    return [msgspec.structs.replace(one, cold=cold) for one, cold in zip(found, colds, strict=True)]


def _run_rounds(
    subjects: list[Subject],
    inputs: Sequence[Input],
    plan: Plan,
    rng: np.random.Generator,
    board: Board,
    keeper: Keeper,
    say: Progress,
) -> None:
    """In each round every candidate answers the same block, in an order that the next round reverses."""
    blocks = deal_blocks(inputs, plan.block, rng=rng)
    for number, order in enumerate(round_orders(len(subjects), plan.rounds, rng=rng)):
        say("measuring one at a time", number / plan.rounds)
        # Two rounds to a block of inputs: a round and its reverse see the same texts.
        rows = blocks[number // 2 % len(blocks)]
        for index in order:
            subject = subjects[index]
            if subject.died is not None:
                continue
            with keeper.dying(subject), board.over(subject.spent):
                found = subject.process.ask("block", rows=rows, repeats=plan.repeats[index])
                latencies_s = np.asarray(found["latencies_ns"], float) / 1e9
                n_tasks = len(latencies_s)
                subject.cpu_s.append(found["cpu_s"] / n_tasks)
                subject.held_s.append(max(0.0, float(latencies_s.sum()) - found["waited_s"]) / n_tasks)
                subject.latencies_s.extend(latencies_s.tolist())
                subject.spent.n_tasks += n_tasks
                subject.spent.own_s += found["cpu_s"]


def _run_batches(
    subjects: list[Subject],
    inputs: Sequence[Input],
    budget_s: float | None,
    rng: np.random.Generator,
    keeper: Keeper,
    say: Progress,
) -> None:
    """Tasks per second in the best batch size: chosen by one pass each, measured by others."""
    runs: dict[int, dict[str, Any]] = {}
    for index, subject in enumerate(subjects):
        say(f"trying batches of {subject.candidate.name}", None)
        n = plan_batches(
            subject.task_s,
            passes=len(BATCHES) + BATCH_ROUNDS,
            n_inputs=len(inputs),
            budget_s=budget_s,
            n_candidates=len(subjects),
        )
        rows = deal_blocks(inputs, n, rng=rng)[0][:n]
        if subject.died is None:
            with keeper.dying(subject):
                runs[index] = _best_batch(subject, rows)
    found: list[list[float]] = [[] for _ in subjects]
    for number, order in enumerate(round_orders(len(subjects), BATCH_ROUNDS, rng=rng)):
        say("measuring batches", number / BATCH_ROUNDS)
        for index in order:
            if subjects[index].died is None:
                with keeper.dying(subjects[index]):
                    found[index].append(_rate(subjects[index].process.ask("batches", **runs[index])))
    for subject, rates_found in zip(subjects, found, strict=True):
        subject.throughput_per_s = float(np.median(rates_found)) if rates_found else None


def _best_batch(subject: Subject, rows: list[int]) -> dict[str, Any]:
    """The batch size that got most done in one pass, and how often to go over the rows with it."""
    rates = {
        size: _rate(subject.process.ask("batches", rows=rows, batch=size, repeats=1))
        for size in sorted({min(size, len(rows)) for size in BATCHES})
    }
    best = max(rates, key=lambda size: rates[size])
    repeats = max(1, int(2 * MIN_BLOCK_S * rates[best] / len(rows)))
    return {"rows": rows, "batch": best, "repeats": repeats}


def _summaries(
    subjects: list[Subject],
    incumbent: int,
    threads: int,
    usd_per_hour: float | None,
    board: Board,
    grid: GridFile,
    marks: tuple[str, ...],
    rng: np.random.Generator,
) -> list[CostSummary]:
    *measured, twin = subjects
    base = measured[incumbent]
    twins = _ratios(twin, base)
    noise = aa_noise(float(np.median(twins))) if twins else None
    shared = is_shared([subject.spent for subject in measured])
    summaries = []
    for index, subject in enumerate(measured):
        energies = _energies(subject, threads, board, grid, shared=shared)
        energy = energies[0] if energies else None
        own = () if subject.is_steady else ("the warm-up did not become steady: latencies may still fall.",)
        summaries.append(
            CostSummary(
                cpu_s=median_interval(subject.cpu_s, rng=rng),
                cpu_ratio=_ratio(subject, base, rng) if index != incumbent else _unity(),
                latency_p50_s=_percentile(subject.latencies_s, 0.5),
                latency_p95_s=_percentile(subject.latencies_s, 0.95),
                latency_p99_s=_percentile(subject.latencies_s, 0.99),
                latency_quantiles_s=cdf_of(np.asarray(subject.latencies_s)) if subject.latencies_s else (),
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
                n_tasks=len(subject.latencies_s),
                threads=threads,
                noise_share=noise,
                marks=(
                    *marks,
                    *own,
                    *died_marks(subject),
                    *short_words(subject.spent),
                    *map(_rest_words, energies[1:]),
                ),
            )
        )
    return summaries


def _energies(
    subject: Subject, threads: int, board: Board, grid: GridFile, *, shared: bool
) -> tuple[Energy, ...]:
    def estimate() -> Energy | None:
        if not subject.cpu_s:
            return None
        cpu_s, held_s = float(np.median(subject.cpu_s)), float(np.median(subject.held_s))
        watts = grid.watts.watts if grid.watts else None
        return estimate_energy(cpu_s, held_s, threads=threads, calibrated=watts)

    return board.energies(subject.spent, estimate, is_shared=shared)


def _rest_words(rest: Energy) -> str:
    """Beside a measured accelerator: what no counter sees, never in the same figure."""
    return (
        f"beside what was measured, the processor took an ESTIMATED {rest.energy_j:.2g} J a task "
        f"(tier {rest.tier}: ×/÷ {rest.factor:g})."
    )


def _ratio(subject: Subject, base: Subject, rng: np.random.Generator) -> Interval | None:
    return median_interval(
        _ratios(subject, base),
        rng=rng,
        method="median of per-round CPU-second ratios, interleaved blocks, bootstrap over rounds",
    )


def _ratios(subject: Subject, base: Subject) -> list[float]:
    """Of the rounds that both have."""
    return [a / b for a, b in zip(subject.cpu_s, base.cpu_s, strict=False) if b > 0]


def _unity() -> Interval:
    return Interval(value=1.0, low=1.0, high=1.0, method="the incumbent itself")


def _percentile(latencies_s: list[float], share: float) -> float | None:
    """An order statistic, rounded up; None when too few samples reach past the percentile."""
    if len(latencies_s) < _LEAST_SAMPLES[share]:
        return None
    return float(np.quantile(latencies_s, share, method="inverted_cdf"))


def _rate(reply: dict[str, float]) -> float:
    return reply["n_tasks"] / reply["wall_s"]


def _check(candidates: Sequence[Candidate], inputs: Sequence[Input], incumbent: int, threads: int) -> None:
    if not candidates:
        raise InvalidInput("the candidates to measure must be at least one, got none.")
    if not len(inputs):
        raise InvalidInput("the inputs to measure on must be at least one text, got none.")
    if not 0 <= incumbent < len(candidates):
        raise InvalidInput(f"incumbent must be a position in 0-{len(candidates) - 1}, got {incumbent}.")
    if threads < 1:
        raise InvalidInput(f"threads must be 1 or more, got {threads}.")


def _silent(message: str, share: float | None) -> None:
    """Progress nobody watches."""
