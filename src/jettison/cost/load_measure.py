"""Measures targets under load: scenarios by MLPerf's names, blocks interleaved, latency from the schedule.

Every block of every target gets the same inputs at the same moments of a schedule that was fixed
before; targets take turns in an order that the next round reverses; the first one has a twin, and
how the two compare is the noise floor of the run.
"""

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np

from jettison.backends.machine import describe_machine
from jettison.candidate import Candidate
from jettison.cost.calls import Calls
from jettison.cost.canary import run_canary
from jettison.cost.http_target import HttpTarget
from jettison.cost.joules import Board, is_shared, open_board
from jettison.cost.load_summary import block_ratio, cpu_ratio, tail_of, times_of
from jettison.cost.load_target import LoadTarget, Prices, summarize
from jettison.cost.load_types import LoadReport, RatePoint, ScenarioKind, Slo
from jettison.cost.memory import MemoryUse
from jettison.cost.noise import noise_marks, read_machine_state
from jettison.cost.plan import round_orders
from jettison.cost.process import MeasuredProcess
from jettison.cost.published import Figure, contexts
from jettison.cost.schedule import cut_trace, poisson_schedule
from jettison.cost.slo import find_rate
from jettison.cost.subject import Progress, ask_memory, forget_pages
from jettison.cost.timers import measure_timers
from jettison.cost.validity import machine_marks
from jettison.errors import InvalidInput, JettisonError
from jettison.stats.tail import percentile
from jettison.task import Input

WARM_SHARE, MOST_WARM_WINDOWS = 0.1, 10
LEAST_BLOCKS, MOST_BLOCKS, BLOCK_S = 6, 30, 2.0
MOST_PROBE_S, LEAST_PROBE_TASKS, UNLOADED_TASKS = 30.0, 150.0, 60
Judge = Callable[[int, str], float | None]
"""Judges the answer to the input of a row: 1 right, 0 wrong, None cannot tell."""


class Scenario(msgspec.Struct, frozen=True, kw_only=True):
    """How requests arrive."""

    kind: ScenarioKind
    rate_per_s: float | None = None
    """Of `server`, where no SLO is searched for."""
    slo: Slo | None = None
    """Of `server`: the highest rate that meets it is searched for."""
    trace_s: tuple[float, ...] = ()
    """Of `trace`: arrivals, seconds from the first."""
    duration_s: float = 60.0
    """Seconds of measured blocks of each target."""
    max_batch: int = 1
    """The most waiting requests that a local model takes at once."""
    timeout_s: float = 30.0

    @property
    def is_open(self) -> bool:
        """Whether requests are due at moments of their own."""
        return self.kind in ("server", "trace")


@dataclass
class _Run:
    """What stays the same over one run."""

    scenario: Scenario
    inputs: Sequence[Input]
    rng: np.random.Generator
    """Draws the blocks, and nothing else: they hang on the seed alone."""
    spare_rng: np.random.Generator
    """Draws what may be long or short: warm-ups, probes."""
    say: Progress
    board: Board
    canary_s: list[float] = field(default_factory=list)
    marks: list[str] = field(default_factory=list)


def measure_load(
    targets: Sequence[Candidate | HttpTarget],
    inputs: Sequence[Input],
    scenario: Scenario,
    *,
    seed: int = 0,
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
    _check(targets, inputs, scenario)
    run = _Run(
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
            rate = _search(everyone[:-1], run, scenario.slo)
        # Where no rate meets the limit, the curve is the finding: there is no rate to run blocks at.
        blocks = [] if scenario.kind == "server" and rate is None else _schedules(everyone, run, rate)
        if blocks:
            _run_blocks(everyone, run, blocks)
    marks = (*noise_marks(before, read_machine_state()), *machine_marks(run.canary_s), *run.marks)
    *measured, twin = everyone
    base = measured[0]
    summaries = tuple(
        summarize(
            target,
            base,
            is_open=scenario.is_open,
            kind=scenario.kind,
            rate_per_s=rate,
            floor=floor,
            threads=threads,
            prices=prices or Prices(),
            board=run.board,
            is_shared=is_shared([t.spent for t in measured if isinstance(t.target, Candidate)]),
            judge=judge,
            seed=seed,
        )
        for target in measured
    )
    return LoadReport(
        scenario=scenario.kind,
        rate_per_s=rate,
        duration_s=scenario.duration_s,
        n_blocks=len(blocks),
        seed=seed,
        slo=scenario.slo,
        targets=summaries,
        aa_ratio=block_ratio(twin.blocks, base.blocks, 0.5, rng=run.rng, is_open=scenario.is_open),
        aa_cpu_ratio=cpu_ratio(twin.blocks, base.blocks, rng=run.rng),
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


@dataclass
class _Block:
    """One round: the same for every target."""

    rows: list[int]
    due_s: list[float]
    warm_s: float = 0.0


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
    if isinstance(target, Candidate):
        forget_pages(target)
    process = stack.enter_context(MeasuredProcess(target, threads=threads))
    phases: list[MemoryUse] = []
    if isinstance(target, Candidate):
        process.ask("open", path=str(target.path), threads=threads)
        phases.append(ask_memory(process))
    else:
        process.ask("reach", target=msgspec.to_builtins(target))
    first = process.ask("take", inputs=msgspec.to_builtins(list(inputs)))
    if first["error"]:
        raise JettisonError(
            f"{target.name!r} must answer to be measured, but its first answer failed: {first['error']}"
        )
    return LoadTarget(target=target, process=process, phases=phases)


def _play(target: LoadTarget, run: _Run, block: _Block, *, concurrency: int | None = None) -> Calls:
    more: dict[str, Any] = {"timeout_s": run.scenario.timeout_s, "concurrency": concurrency}
    if run.scenario.kind == "single-stream" or concurrency == 1:
        more |= {"concurrency": 1, "timeout_s": 1e9}
    elif run.scenario.kind == "offline":
        # Everything is due at once: nothing may time out for waiting its turn.
        more |= {"timeout_s": 1e9, "max_batch": max(run.scenario.max_batch, 32)}
        if isinstance(target.target, HttpTarget):
            more["concurrency"] = target.target.concurrency
    else:
        more["max_batch"] = run.scenario.max_batch
    found = target.process.ask("play", rows=block.rows, due_s=block.due_s, **more)
    return msgspec.convert(found, Calls)


def _play_or_die(
    target: LoadTarget, run: _Run, block: _Block, *, concurrency: int | None = None
) -> Calls | None:
    """What a block found; a target that dies in it is marked, and one that left nothing gives None."""
    try:
        calls = _play(target, run, block, concurrency=concurrency)
    except JettisonError as error:
        target.died = str(error)
        return None
    if calls.stopped is not None:
        target.died = calls.stopped
    return calls if calls.rows else None


def _schedules(everyone: Sequence[LoadTarget], run: _Run, rate: float | None) -> list[_Block]:
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
        blocks = [_Block(_rows(len(due), run, run.rng), due, warm_s) for due in drawn]
        for target in everyone:
            _warm_up(target, run, lambda: _poisson_block(rate, min(0.5, block_s), run))
        return blocks
    slowest_s = max(_warm_up(target, run, lambda: _closed_block(8, run)) for target in everyone)
    n = int(np.clip(block_s / max(slowest_s, 1e-6), 4, 20_000))
    return [_closed_block(n, run, run.rng) for _ in range(n_blocks)]


def _trace_blocks(everyone: Sequence[LoadTarget], run: _Run, n_blocks: int) -> list[_Block]:
    kept = [due for due in run.scenario.trace_s if due <= run.scenario.duration_s]
    if len(kept) < len(run.scenario.trace_s):
        run.marks.append(
            f"of the trace, the first {run.scenario.duration_s:g} s were played: "
            f"{len(kept):,} of {len(run.scenario.trace_s):,} requests."
        )
    for target in everyone:
        _warm_up(target, run, lambda: _closed_block(8, run))
    return [_Block(_rows(len(due), run, run.rng), due) for due in cut_trace(kept, n_blocks)]


def _closed_block(n: int, run: _Run, rng: np.random.Generator | None = None) -> _Block:
    return _Block(_rows(n, run, rng or run.spare_rng), [0.0] * n)


def _poisson_block(rate: float, block_s: float, run: _Run) -> _Block:
    due = poisson_schedule(rate, max(block_s, 5 / rate), rng=run.spare_rng)
    return _Block(_rows(len(due), run, run.spare_rng), due)


def _rows(n: int, run: _Run, rng: np.random.Generator) -> list[int]:
    """Rows of the inputs: every input once in random order, then again in another."""
    passes = [rng.permutation(len(run.inputs)) for _ in range(n // len(run.inputs) + 1)]
    return [int(row) for row in np.concatenate(passes)[:n]]


def _warm_up(target: LoadTarget, run: _Run, window: Callable[[], _Block]) -> float:
    """Play windows until the median service times of three agree within 10 %; seconds of one task."""
    run.say(f"warming up {target.name}", None)
    middles: list[float] = []
    while len(middles) < MOST_WARM_WINDOWS and target.died is None:
        calls = _play_or_die(target, run, window())
        if calls is None:
            break
        if calls.stopped is not None or not calls.is_ok.any():
            target.is_steady = False
            break
        middles.append(float(np.median(calls.service_s[calls.is_ok])))
        last = middles[-3:]
        if len(last) == 3 and max(last) <= 1.1 * min(last):
            return float(np.median(last))
    target.is_steady = False
    return float(np.median(middles)) if middles else 1.0


def _run_blocks(everyone: Sequence[LoadTarget], run: _Run, blocks: Sequence[_Block]) -> None:
    """Every target plays every block; one that dies keeps what it has, and the others go on."""
    orders = round_orders(len(everyone), len(blocks), rng=run.rng)
    _end_phase(everyone)
    try:
        for number, (order, block) in enumerate(zip(orders, blocks, strict=True)):
            run.say(f"measuring ({run.scenario.kind})", number / len(blocks))
            for index in order:
                run.canary_s.append(run_canary(repeats=2))
                _run_block(everyone[index], run, block)
    except KeyboardInterrupt:
        run.marks.append("interrupted: the figures are of the blocks up to then.")
    _end_phase(everyone)


def _end_phase(everyone: Sequence[LoadTarget]) -> None:
    """Keep the memory of the phase that ends here; one that has died or been interrupted tells none."""
    for target in everyone:
        if target.phases and target.died is None:
            with contextlib.suppress(JettisonError):
                target.phases.append(ask_memory(target.process))


def _run_block(target: LoadTarget, run: _Run, block: _Block) -> None:
    if target.died is not None:
        return
    board = run.board if target.is_metered else Board(())
    with board.over(target.spent):
        calls = _play_or_die(target, run, block)
    if calls is None:
        return
    target.spent.n_tasks += len(calls.rows)
    target.spent.own_s += (calls.cpu_s or 0.0) + calls.client_cpu_s
    target.whole.append(calls)
    target.blocks.append(calls.since(block.warm_s))


def _search(targets: Sequence[LoadTarget], run: _Run, slo: Slo) -> float | None:
    """Search every target's highest rate; the one to compare them at is the least of these."""
    for target in targets:
        _warm_up(target, run, lambda: _closed_block(8, run))
        unloaded = None if target.died else _unloaded(target, run, slo)
        if unloaded is None:
            continue
        target.found = find_rate(
            lambda rate, target=target: _probe(target, run, rate, slo),  # type: ignore[misc]
            first_per_s=0.5 * unloaded.rate_per_s,
            slo=slo,
            unloaded=unloaded,
        )
    rates = [target.found.rate_per_s for target in targets if target.found and target.found.rate_per_s]
    return min(rates) if rates else None


def _unloaded(target: LoadTarget, run: _Run, slo: Slo) -> RatePoint | None:
    """What one request at a time shows: no rate can do better."""
    calls = _play_or_die(target, run, _closed_block(UNLOADED_TASKS, run), concurrency=1)
    if calls is None:
        return None
    rate = max(1, int(calls.is_ok.sum())) / max(calls.wall_s, 1e-6)
    return _point(calls.service_s, [0.0], rate, slo)


def _probe(target: LoadTarget, run: _Run, rate: float, slo: Slo) -> RatePoint | None:
    """Play one rate, longer when the first stretch cannot tell."""
    run.say(f"searching the rate of {target.name}: {rate:.3g} per second", None)
    parts: list[np.ndarray] = []
    late_s: list[float] = []
    point: RatePoint | None = None
    length_s = min(MOST_PROBE_S, _probe_tasks(slo.share) / rate)
    for _ in range(3):
        warm_s = WARM_SHARE * length_s
        due = poisson_schedule(rate, length_s + warm_s, rng=run.spare_rng)
        block = _Block(_rows(len(due), run, run.spare_rng), due)
        calls = None if target.died else _play_or_die(target, run, block)
        if calls is None or not (kept := calls.since(warm_s)).rows:
            break
        parts.append(kept.latency_s)
        late_s += kept.late_s
        point = _point(np.concatenate(parts), late_s, rate, slo)
        if point.is_met is not None:
            break
    return point


def _probe_tasks(share: float) -> float:
    """Twice as many as a finite upper bound takes where samples are independent: t squared p / (1 - p)."""
    return max(LEAST_PROBE_TASKS, 2 * 4.4 * share / (1 - share))


def _point(latency_s: np.ndarray, late_s: list[float], rate: float, slo: Slo) -> RatePoint:
    tail = tail_of(latency_s, slo.share)
    assert tail is not None
    is_met: bool | None = None
    if tail.value_s is None or (tail.low_s is not None and tail.low_s > slo.limit_s):
        is_met = False
    elif tail.high_s is not None and tail.high_s <= slo.limit_s:
        is_met = True
    middle = percentile(latency_s, 0.5)
    # A client that sends late makes the target look slow, never fast: only a miss is in doubt.
    is_valid = bool(is_met) or percentile(late_s, 0.99) <= 0.5 * slo.limit_s
    return RatePoint(
        rate_per_s=rate,
        n_tasks=len(latency_s),
        latency_p50_s=middle if np.isfinite(middle) else None,
        tail=tail,
        missed_share=float(np.mean(~np.isfinite(latency_s))),
        is_met=is_met,
        is_valid=is_valid,
    )


def _check(targets: Sequence[Candidate | HttpTarget], inputs: Sequence[Input], scenario: Scenario) -> None:
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


def _silent(message: str, share: float | None) -> None:
    """Progress nobody watches."""


__all__ = ["Judge", "Prices", "Scenario", "measure_load", "times_of"]
