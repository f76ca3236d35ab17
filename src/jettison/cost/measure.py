"""Measures what candidates cost per task: each in processes of its own, in interleaved blocks.

Two figures are compared only when they were taken in the same round, on the same inputs, moments
apart; each run opens everything several times, since two processes of one model differ, and the
incumbent has a twin that tells what a ratio of equals came out as.
"""

import contextlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np

from jettison.candidate import Candidate
from jettison.cost.calls import Calls
from jettison.cost.cold import measure_cold_starts
from jettison.cost.grid import GridFile
from jettison.cost.inputs import deal_blocks
from jettison.cost.joules import Board, open_board
from jettison.cost.keeper import Keeper
from jettison.cost.moved import Traffic
from jettison.cost.noise import noise_marks, read_machine_state
from jettison.cost.per_correct import Judge, judged_scores
from jettison.cost.plan import (
    MIN_BLOCK_S,
    Plan,
    affordable_openings,
    plan_batches,
    plan_blocks,
    round_orders,
)
from jettison.cost.ratio import MOST_OPENINGS, OPENINGS
from jettison.cost.subject import (
    Progress,
    Subject,
    open_again,
    open_subjects,
    warm_up,
)
from jettison.cost.summaries import summaries
from jettison.decision import CUT_SHORT, CostSummary
from jettison.errors import InvalidInput, JettisonError
from jettison.task import Input

BATCHES = (1, 8, 32, 128)
"""Batch sizes that are tried for throughput."""
BATCH_ROUNDS = 5


def measure_costs(
    candidates: Sequence[Candidate],
    inputs: Sequence[Input],
    *,
    rounds: int = 30,
    openings: int = OPENINGS,
    block: int = 16,
    seed: int = 0,
    threads: int = 1,
    incumbent: int = 0,
    twin: bool = True,
    budget_s: float | None = 120.0,
    wall_s: float | None = None,
    usd_per_hour: float | None = None,
    throughput: bool = True,
    meter: str = "auto",
    grid: GridFile | None = None,
    keep_partial: bool = False,
    cold_starts: int = 0,
    own_rate_per_s: float | None = None,
    judged: Sequence[Input] = (),
    judge: Judge | None = None,
    progress: Progress | None = None,
) -> list[CostSummary]:
    """Measure the cost per task of some candidates beside one another.

    Args:
        candidates: At least one; each is opened in fresh processes by its own backend.
        inputs: Inputs that follow the team's own lengths (`sample_inputs`).
        rounds: Rounds wanted in all; in each, every candidate answers one block of the same inputs.
        openings: Fresh processes of each, one after the other: intervals are taken over them. With 1
            they are taken over rounds, and hold for the one process of each alone.
        block: Inputs per block, answered one at a time. Fast candidates go over them
            several times, so that a block lasts 50 ms or more.
        seed: Deals the inputs and draws the orders.
        threads: Threads of every numeric library in those processes.
        incumbent: Position of the candidate that ratios are taken against.
        twin: Open it twice, for the A/A ratio; without, a first look takes less time.
        budget_s: Seconds for the blocks of all candidates together; smaller blocks and
            fewer rounds (never under 6) are run to keep to it. Batches take up to a
            quarter more. None is no limit.
        wall_s: Seconds for everything, opening processes included: what does not fit is left out, to one
            opening of 6 rounds, and `marks` say so. None is no limit.
        usd_per_hour: Price of the machine, when money is wanted.
        throughput: Measure tasks per second in batches too; without it (and so without money)
            the run takes half as long.
        meter: Of energy: `auto`, `none`, or a plugin's name (`jettison.cost.joules.open_board`).
        grid: Of the electricity, for emissions, and watts that the user calibrated.
        keep_partial: Keep what was measured of a candidate whose process dies in the middle, or up to
            an interruption, and mark it, instead of raising.
        cold_starts: Starts of each candidate in fresh processes, on top of the budget; 6 or more have an
            interval.
        own_rate_per_s: The team's own arrivals a second: money and energy are also given at it, with the
            time in between. Wants `throughput`.
        judged: Inputs of dev examples that each candidate answers once, a quarter of the budget at most.
        judge: Tells right answers to these from wrong ones, for costs per correct task.
        progress: Called with a phrase and the share done.

    Returns:
        One summary per candidate, in their order.

    Raises:
        InvalidInput: No candidates or inputs, or `incumbent` is none of them.
        JettisonError: A candidate does not open or its process died; the message says why.
    """
    _check(candidates, inputs, incumbent, threads, openings)
    say = progress or _silent
    until = None if wall_s is None else time.monotonic() + wall_s
    rng = np.random.default_rng(seed)
    before = read_machine_state()
    keeper = Keeper(keep_partial)
    board = open_board(meter)
    run = _Run(
        len(candidates),
        inputs,
        block,
        threads,
        budget_s,
        openings,
        board,
        rng,
        keeper,
        say,
        judged,
        judge,
        until,
    )
    twins = [candidates[incumbent]] if twin else []
    subjects = _run_first(run, [*candidates, *twins], rounds, throughput=throughput)
    with keeper.interrupted():
        _run_others(run, subjects)
    cut = _cut_marks(run, openings, budget_s)
    marks = (*noise_marks(before, read_machine_state()), *keeper.marks, *cut)
    found = summaries(
        subjects[: len(candidates)],
        subjects[-1] if twin else None,
        incumbent,
        threads,
        usd_per_hour,
        own_rate_per_s,
        board,
        grid or GridFile(),
        len(inputs),
        marks,
    )
    if not cold_starts or keeper.marks:
        return found
    colds = measure_cold_starts(candidates, inputs, cold_starts, threads=threads, say=say)
    return [msgspec.structs.replace(one, cold=cold) for one, cold in zip(found, colds, strict=True)]


@dataclass
class _Run:
    """What stays the same over one run."""

    n_candidates: int
    """A subject after them is the incumbent's twin."""
    inputs: Sequence[Input]
    block: int
    threads: int
    budget_s: float | None
    openings: int
    board: Board
    rng: np.random.Generator
    keeper: Keeper
    say: Progress
    judged: Sequence[Input]
    judge: Judge | None
    until: float | None
    """On the monotonic clock, when all must be done; None is no limit."""
    plan: Plan = field(init=False)
    orders: list[list[int]] = field(init=False)
    """Of the rounds of all openings: where one ends, the next goes on backwards."""
    blocks: list[list[int]] = field(init=False)

    @property
    def passes(self) -> int:
        """Over batches, in each opening."""
        return -(-BATCH_ROUNDS // self.openings)


def _run_first(
    run: _Run, candidates: Sequence[Candidate], rounds: int, *, throughput: bool
) -> list[Subject]:
    """Open everything for the first time, plan the run, and measure."""
    started = time.monotonic()
    with contextlib.ExitStack() as stack:
        subjects = open_subjects(candidates, run.inputs, run.threads, stack, run.say)
        for subject in subjects:
            run.say(f"warming up {subject.candidate.name}", None)
            warm_up(subject, deal_blocks(run.inputs, run.block, rng=run.rng)[0], run.budget_s)
        rounds = _fit(run, rounds, open_s=time.monotonic() - started)
        run.plan = plan_blocks(
            [subject.task_s for subject in subjects],
            rounds=rounds,
            block=run.block,
            n_inputs=len(run.inputs),
            budget_s=run.budget_s,
            openings=run.openings,
        )
        run.orders = round_orders(len(subjects), run.plan.rounds * run.openings, rng=run.rng)
        run.blocks = deal_blocks(run.inputs, run.plan.block, rng=run.rng)
        with run.keeper.interrupted():
            _run_rounds(run, subjects, 0)
            if throughput:
                _choose_batches(run, subjects)
                _run_batches(run, subjects)
        _end_phase(run, subjects)
        with run.keeper.interrupted():
            _run_judged(run, subjects[: run.n_candidates])
    return subjects


def _fit(run: _Run, rounds: int, *, open_s: float) -> int:
    """Leave out openings that there is no time for; the rounds of those that remain."""
    left_s = None if run.until is None else max(0.0, run.until - time.monotonic() + open_s)
    # Passes over batches take up to a quarter of the blocks' time on top.
    blocks_s = None if run.budget_s is None else 1.25 * run.budget_s
    wanted = run.openings
    run.openings, fitted_s = affordable_openings(wanted, wall_s=left_s, open_s=open_s, blocks_s=blocks_s)
    run.budget_s = None if fitted_s is None else fitted_s / 1.25
    return max(1, round(rounds * run.openings / wanted))


def _cut_marks(run: _Run, openings: int, budget_s: float | None) -> tuple[str, ...]:
    """Says what there was no time for."""
    said = []
    if run.openings < openings:
        said.append(f"{run.openings} of {openings} openings in fresh processes")
    if budget_s is not None and run.budget_s is not None and run.budget_s < 0.99 * budget_s:
        said.append(f"{run.budget_s:.1f} of {budget_s:.1f} s of measuring")
    return (f"{CUT_SHORT}: {' and '.join(said)}.",) if said else ()


def _run_judged(run: _Run, subjects: Sequence[Subject]) -> None:
    """Have each candidate answer the same dev examples once, in batches, and judge what it says."""
    if run.judge is None or not run.judged or run.keeper.marks:
        return
    slowest_s = max(subject.task_s for subject in subjects)
    n = plan_batches(
        slowest_s,
        passes=1,
        n_inputs=len(run.judged),
        budget_s=run.budget_s,
        n_candidates=len(subjects),
    )
    # They come in random order, so that the first are a sample of all.
    inputs, rows = msgspec.to_builtins(list(run.judged[:n])), list(range(n))
    for subject in subjects:
        if subject.died is not None:
            continue
        run.say(f"judging answers of {subject.candidate.name}", None)
        with run.keeper.dying(subject):
            subject.process.ask("take", inputs=inputs)
            calls = msgspec.convert(
                subject.process.ask("play", rows=rows, due_s=[0.0] * n, max_batch=32, timeout_s=1e9), Calls
            )
            subject.correct = judged_scores([calls], run.judge)


def _run_others(run: _Run, subjects: list[Subject]) -> None:
    """The other openings, as far as there turns out to be time for them."""
    took_s = 0.0
    for number in range(1, run.openings):
        started = time.monotonic()
        if number >= 3 and run.until is not None and started + took_s > run.until:
            run.openings = number
            return
        _run_again(run, subjects, number)
        took_s = time.monotonic() - started


def _run_again(run: _Run, subjects: list[Subject], number: int) -> None:
    """The same in fresh processes, started in the other order."""
    if run.keeper.marks:
        return
    run.say(f"opening all again, {number + 1} of {run.openings}", number / run.openings)
    alive = [subject for subject in subjects if subject.died is None]
    alive = alive[::-1] if number % 2 else alive
    with contextlib.ExitStack() as stack:
        opened = open_again([s.candidate for s in alive], run.inputs, run.threads, stack)
        for subject, (process, found) in zip(alive, opened, strict=True):
            with run.keeper.dying(subject):
                if isinstance(found, JettisonError):
                    raise found
                subject.begin_opening(process, found)
                warm_up(subject, run.blocks[0], run.budget_s)
        _run_rounds(run, subjects, number)
        _run_batches(run, subjects)
        _end_phase(run, subjects)


def _end_phase(run: _Run, subjects: Sequence[Subject]) -> None:
    for subject in subjects:
        if subject.died is None:
            with run.keeper.dying(subject):
                subject.end_phase()


def _run_rounds(run: _Run, subjects: Sequence[Subject], opening: int) -> None:
    """In each round every candidate answers the same block, in an order that the next round reverses."""
    plan = run.plan
    first = opening * plan.rounds
    for number in range(first, first + plan.rounds):
        run.say("measuring one at a time", number / (plan.rounds * run.openings))
        # Two rounds to a block of inputs: a round and its reverse see the same texts.
        rows = run.blocks[number // 2 % len(run.blocks)]
        for index in run.orders[number]:
            subject = subjects[index]
            if subject.died is not None:
                continue
            with run.keeper.dying(subject), run.board.over(subject.spent):
                found = subject.process.ask("block", rows=rows, repeats=plan.repeats[index])
                latencies_s = np.asarray(found["latencies_ns"], float) / 1e9
                n_tasks = len(latencies_s)
                subject.cpu_s[-1].append(found["cpu_s"] / n_tasks)
                subject.held_s.append(max(0.0, float(latencies_s.sum()) - found["waited_s"]) / n_tasks)
                subject.opening_latencies_s[-1].extend(latencies_s.tolist())
                subject.traffic.append(msgspec.convert(found["traffic"], Traffic))
                subject.spent.n_tasks += n_tasks
                subject.spent.own_s += found["cpu_s"]


def _choose_batches(run: _Run, subjects: Sequence[Subject]) -> None:
    """Find each one's best batch size, by one pass each; the twin has none to find."""
    measured = subjects[: run.n_candidates]
    for subject in measured:
        if subject.died is not None:
            continue
        run.say(f"trying batches of {subject.candidate.name}", None)
        n = plan_batches(
            subject.task_s,
            passes=len(BATCHES) + run.passes * run.openings,
            n_inputs=len(run.inputs),
            budget_s=run.budget_s,
            n_candidates=len(measured),
        )
        rows = deal_blocks(run.inputs, n, rng=run.rng)[0][:n]
        with run.keeper.dying(subject):
            subject.batches = _best_batch(subject, rows)


def _run_batches(run: _Run, subjects: Sequence[Subject]) -> None:
    """Tasks per second in the best batch size: measured by other passes than those that chose it."""
    wanted = [subject for subject in subjects if subject.batches is not None]
    if not wanted:
        return
    for number, order in enumerate(round_orders(len(wanted), run.passes, rng=run.rng)):
        run.say("measuring batches", number / run.passes)
        for index in order:
            subject = wanted[index]
            if subject.died is None and subject.batches is not None:
                with run.keeper.dying(subject):
                    subject.rates_per_s.append(_rate(subject.process.ask("batches", **subject.batches)))


def _best_batch(subject: Subject, rows: list[int]) -> dict[str, Any]:
    """The batch size that got most done in one pass, and how often to go over the rows with it."""
    rates = {
        size: _rate(subject.process.ask("batches", rows=rows, batch=size, repeats=1))
        for size in sorted({min(size, len(rows)) for size in BATCHES})
    }
    best = max(rates, key=lambda size: rates[size])
    repeats = max(1, int(2 * MIN_BLOCK_S * rates[best] / len(rows)))
    return {"rows": rows, "batch": best, "repeats": repeats}


def _rate(reply: dict[str, float]) -> float:
    return reply["n_tasks"] / reply["wall_s"]


def _check(
    candidates: Sequence[Candidate], inputs: Sequence[Input], incumbent: int, threads: int, openings: int
) -> None:
    if not candidates:
        raise InvalidInput("the candidates to measure must be at least one, got none.")
    if not len(inputs):
        raise InvalidInput("the inputs to measure on must be at least one text, got none.")
    if not 0 <= incumbent < len(candidates):
        raise InvalidInput(f"incumbent must be a position in 0-{len(candidates) - 1}, got {incumbent}.")
    if threads < 1:
        raise InvalidInput(f"threads must be 1 or more, got {threads}.")
    if not 1 <= openings <= MOST_OPENINGS:
        raise InvalidInput(f"the openings must be in 1-{MOST_OPENINGS}, got {openings}.")


def _silent(message: str, share: float | None) -> None:
    """Progress nobody watches."""
