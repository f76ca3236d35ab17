"""Measures targets under load: scenarios by MLPerf's names, blocks interleaved, latency from the schedule.

Every block of every target gets the same inputs at the same moments of a schedule that was fixed
before; targets take turns in an order that the next round reverses; the first one has a twin, and
how the two compare is the noise floor of the run.
"""

import contextlib
import time
from collections.abc import Sequence

import msgspec
import numpy as np

from jettison.backends.machine import describe_machine
from jettison.candidate import Candidate
from jettison.cost.canary import run_canary
from jettison.cost.http_target import HttpTarget
from jettison.cost.joules import Board, is_shared, open_board
from jettison.cost.load_run import (
    WARM_SHARE,
    Block,
    Run,
    Scenario,
    closed_block,
    draw_rows,
    play_or_die,
    poisson_block,
    warm_up_target,
)
from jettison.cost.load_search import search_rates
from jettison.cost.load_target import LoadTarget, Played, Prices, summarize
from jettison.cost.load_types import LoadReport
from jettison.cost.noise import noise_marks, read_machine_state
from jettison.cost.per_correct import Judge
from jettison.cost.plan import round_orders
from jettison.cost.process import MeasuredProcess
from jettison.cost.published import Figure, contexts
from jettison.cost.ratio import MOST_OPENINGS, OPENINGS
from jettison.cost.schedule import cut_trace, poisson_schedule
from jettison.cost.subject import Progress, ask_memory, forget_pages, open_again, open_process
from jettison.cost.timers import measure_timers
from jettison.cost.validity import machine_marks
from jettison.errors import InvalidInput, JettisonError
from jettison.task import Input

LEAST_BLOCKS, MOST_BLOCKS, BLOCK_S = 6, 30, 2.0


def measure_load(
    targets: Sequence[Candidate | HttpTarget],
    inputs: Sequence[Input],
    scenario: Scenario,
    *,
    seed: int = 0,
    openings: int = OPENINGS,
    threads: int = 1,
    prices: Prices | None = None,
    judge: Judge | None = None,
    meter: str = "auto",
    kind: str | None = None,
    progress: Progress | None = None,
) -> LoadReport:
    """Measure targets under one scenario, beside one another.

    Args:
        targets: Candidates, opened in fresh processes, and addresses; ratios are against the first.
        inputs: What is asked, in random order.
        scenario: How requests arrive.
        seed: Draws schedules, inputs and orders before anything is sent.
        openings: Fresh processes of each candidate, one after the other, among which the blocks are
            parted: ratios are taken over them. A server at an address is not started again.
        threads: Threads of every numeric library of a candidate.
        prices: Of the machine, of tokens, of carbon.
        judge: Tells right answers from wrong ones, for costs per correct task.
        meter: Of energy: `auto`, `none`, or a plugin's name (`jettison.cost.joules.open_board`).
        kind: Of the task, which says what one of it is (`jettison.cost.published`); None: not known.
        progress: Called with a phrase and the share done.

    Returns:
        One summary a target. A target that died in the middle has the figures up to then, marked.

    Raises:
        InvalidInput: There are no targets or inputs, or the scenario lacks what it needs.
        JettisonError: A target does not open or does not answer its first request.
    """
    _check(targets, inputs, scenario, openings)
    run = Run(
        scenario,
        inputs,
        np.random.default_rng(seed),
        np.random.default_rng([seed, 1]),
        progress or _silent,
        open_board(meter),
    )
    before = read_machine_state()
    floor = measure_timers()
    with contextlib.ExitStack() as stack:
        everyone = [
            _open(target, inputs, threads, stack, run.say, twin=i == len(targets))
            for i, target in enumerate([*targets, targets[0]])
        ]
        rate = scenario.rate_per_s
        if scenario.slo is not None:
            rate = search_rates(everyone[:-1], run, scenario.slo)
        # Where no rate meets the limit, the curve is the finding: there is no rate to run blocks at.
        blocks = [] if scenario.kind == "server" and rate is None else _schedules(everyone, run, rate)
        if blocks:
            _run_blocks(everyone, run, blocks, openings=openings, threads=threads, stack=stack)
    marks = (*noise_marks(before, read_machine_state()), *machine_marks(run.canary_s), *run.marks)
    *measured, twin = everyone
    base = measured[0]
    summaries = tuple(
        summarize(
            target,
            base,
            twin,
            is_open=scenario.is_open,
            kind=scenario.kind,
            rate_per_s=rate,
            floor=floor,
            threads=threads,
            prices=prices or Prices(),
            board=run.board,
            is_shared=is_shared([t.spent for t in measured if isinstance(t.target, Candidate)]),
            judge=judge,
        )
        for target in measured
    )
    return LoadReport(
        scenario=scenario.kind,
        rate_per_s=rate,
        duration_s=scenario.duration_s,
        n_blocks=len(blocks),
        n_openings=max((len(target.openings) for target in measured), default=0),
        seed=seed,
        slo=scenario.slo,
        targets=summaries,
        aa_ratio=summaries[0].latency_ratio,
        aa_cpu_ratio=summaries[0].cpu_ratio,
        timer_late_p50_s=floor.late_p50_s,
        timer_late_p99_s=floor.late_p99_s,
        machine=describe_machine(),
        created=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        marks=marks,
        contexts=contexts(
            [
                Figure(
                    name=found.name,
                    energy_j=found.energy_j,
                    tier=found.energy_tier,
                    boundary=found.energy_boundary,
                    completion_tokens=found.completion_tokens,
                )
                for found in summaries
            ],
            kind,
        ),
    )


def _open(
    target: Candidate | HttpTarget,
    inputs: Sequence[Input],
    threads: int,
    stack: contextlib.ExitStack,
    say: Progress,
    *,
    twin: bool,
) -> LoadTarget:
    say(f"opening {target.name}{' again' if twin else ''}", None)
    process = stack.enter_context(MeasuredProcess(target, threads=threads))
    opened = LoadTarget(target=target, process=process)
    if isinstance(target, Candidate):
        forget_pages(target)
        opened.phases.append([open_process(process, target, inputs, threads).loaded])
        return opened
    process.ask("reach", target=msgspec.to_builtins(target))
    first = process.ask("take", inputs=msgspec.to_builtins(list(inputs)))
    if first["error"]:
        raise JettisonError(
            f"{target.name!r} must answer to be measured, but its first answer failed: {first['error']}"
        )
    return opened


def _open_again(
    everyone: Sequence[LoadTarget], run: Run, threads: int, number: int, stack: contextlib.ExitStack
) -> None:
    """Go on in fresh processes, started in the other order; a server at an address stays as it is."""
    here = [(t, t.target) for t in everyone if isinstance(t.target, Candidate) and t.died is None]
    here = here[::-1] if number % 2 else here
    for target, _ in here:
        target.process.close()
    opened = open_again([candidate for _, candidate in here], run.inputs, threads, stack)
    for (target, _), (process, found) in zip(here, opened, strict=True):
        target.process = process
        if isinstance(found, JettisonError):
            target.died = str(found)
            continue
        target.phases.append([found.loaded])
        warm_up_target(target, run, lambda: closed_block(8, run))


def _schedules(everyone: Sequence[LoadTarget], run: Run, rate: float | None) -> list[Block]:
    """All blocks of the run, drawn before the first is played; targets are warm after it."""
    scenario = run.scenario
    n_blocks = int(np.clip(scenario.duration_s / BLOCK_S, LEAST_BLOCKS, MOST_BLOCKS))
    block_s = scenario.duration_s / n_blocks
    if scenario.kind == "trace":
        return _trace_blocks(everyone, run, n_blocks)
    if scenario.kind == "server":
        assert rate is not None
        warm_s = min(0.25 * block_s, max(WARM_SHARE * block_s, 5 / rate))
        drawn = [poisson_schedule(rate, warm_s + block_s, rng=run.rng) for _ in range(n_blocks)]
        blocks = [Block(draw_rows(len(due), run, run.rng), due, warm_s) for due in drawn]
        for target in everyone:
            warm_up_target(target, run, lambda: poisson_block(rate, min(0.5, block_s), run))
        return blocks
    slowest_s = max(warm_up_target(target, run, lambda: closed_block(8, run)) for target in everyone)
    n = int(np.clip(block_s / max(slowest_s, 1e-6), 4, 20_000))
    return [closed_block(n, run, run.rng) for _ in range(n_blocks)]


def _trace_blocks(everyone: Sequence[LoadTarget], run: Run, n_blocks: int) -> list[Block]:
    kept = [due for due in run.scenario.trace_s if due <= run.scenario.duration_s]
    if len(kept) < len(run.scenario.trace_s):
        run.marks.append(
            f"of the trace, the first {run.scenario.duration_s:g} s were played: "
            f"{len(kept):,} of {len(run.scenario.trace_s):,} requests."
        )
    for target in everyone:
        warm_up_target(target, run, lambda: closed_block(8, run))
    return [Block(draw_rows(len(due), run, run.rng), due) for due in cut_trace(kept, n_blocks)]


def _run_blocks(
    everyone: Sequence[LoadTarget],
    run: Run,
    blocks: Sequence[Block],
    *,
    openings: int,
    threads: int,
    stack: contextlib.ExitStack,
) -> None:
    """Every target plays every block; one that dies keeps what it has, and the others go on."""
    orders = round_orders(len(everyone), len(blocks), rng=run.rng)
    _end_phase(everyone)
    try:
        for number, part in enumerate(np.array_split(np.arange(len(blocks)), min(openings, len(blocks)))):
            if number:
                run.say(f"opening all again, {number + 1} of {openings}", int(part[0]) / len(blocks))
                _open_again(everyone, run, threads, number, stack)
                _end_phase(everyone)
            for target in everyone:
                target.openings.append([])
            for index in part:
                run.say(f"measuring ({run.scenario.kind})", int(index) / len(blocks))
                for position in orders[index]:
                    run.canary_s.append(run_canary(repeats=2))
                    _run_block(everyone[position], run, blocks[index])
            _end_phase(everyone)
    except KeyboardInterrupt:
        run.marks.append("interrupted: the figures are of the blocks up to then.")


def _end_phase(everyone: Sequence[LoadTarget]) -> None:
    """Keep the memory of the phase that ends here; one that has died or been interrupted tells none."""
    for target in everyone:
        if target.phases and target.died is None:
            with contextlib.suppress(JettisonError):
                target.phases[-1].append(ask_memory(target.process))


def _run_block(target: LoadTarget, run: Run, block: Block) -> None:
    if target.died is not None:
        return
    board = run.board if target.is_metered else Board(())
    with board.over(target.spent):
        calls = play_or_die(target, run, block)
    if calls is None:
        return
    target.spent.n_tasks += len(calls.rows)
    target.spent.own_s += (calls.cpu_s or 0.0) + calls.client_cpu_s
    target.openings[-1].append(Played(calls, calls.since(block.warm_s)))


def _check(
    targets: Sequence[Candidate | HttpTarget], inputs: Sequence[Input], scenario: Scenario, openings: int
) -> None:
    if not targets or not len(inputs):
        raise InvalidInput(
            f"a run must have a target and an input at least, got {len(targets)} and {len(inputs)}."
        )
    if scenario.kind == "server" and (scenario.rate_per_s is None) == (scenario.slo is None):
        given = "neither" if scenario.rate_per_s is None else "both"
        raise InvalidInput(
            f"server must have a rate (--rate) or a limit to find the best rate for (--slo), got {given}."
        )
    if scenario.kind == "trace" and not scenario.trace_s:
        raise InvalidInput("trace must have arrivals, got none. Give --trace FILE.")
    if scenario.kind != "server" and (scenario.slo is not None or scenario.rate_per_s is not None):
        raise InvalidInput(f"a rate and an SLO are of the server scenario, got them for {scenario.kind}.")
    if not 0 < scenario.duration_s <= 86400 or scenario.max_batch < 1:
        raise InvalidInput(
            f"the duration must be in 0-86400 s and the batch 1 or more, got {scenario.duration_s:g} and "
            f"{scenario.max_batch}."
        )
    if not 1 <= openings <= MOST_OPENINGS:
        raise InvalidInput(f"the openings must be in 1-{MOST_OPENINGS}, got {openings}.")


def _silent(message: str, share: float | None) -> None:
    """Progress nobody watches."""


__all__ = ["Judge", "Prices", "Scenario", "measure_load"]
