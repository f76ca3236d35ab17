"""One target under load: its process, the blocks it played, and the summary they make."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import msgspec
import numpy as np

from jettison.candidate import Candidate
from jettison.cost.calls import Calls
from jettison.cost.energy import Energy, estimate_energy
from jettison.cost.grid import GridFile, co2e_g
from jettison.cost.http_target import HttpTarget
from jettison.cost.joules import Board, Spent, short_words
from jettison.cost.load_summary import (
    WireShares,
    block_ratio,
    cdf_of,
    cpu_per_task,
    cpu_ratio,
    failures_of,
    mean_or_none,
    percentile_or_none,
    tail_of,
    throughput_ratio,
    times_of,
)
from jettison.cost.load_types import LoadSummary, ScenarioKind
from jettison.cost.memory import MemoryUse
from jettison.cost.money import at_own_rate, usd_at_rate
from jettison.cost.moved import Traffic, moved_bytes
from jettison.cost.per_correct import Judge, correct_share, judged_scores, per_correct
from jettison.cost.process import MeasuredProcess
from jettison.cost.slo import Found
from jettison.cost.subject import phase_memory
from jettison.cost.timers import TimerFloor
from jettison.cost.token_prices import TokenPrices, bundled_token_prices
from jettison.cost.validity import Validity, check_blocks
from jettison.decision import Interval


class Prices(msgspec.Struct, frozen=True, kw_only=True):
    """What things cost, as the user gives it. None is not known."""

    usd_per_hour: float | None = None
    """Of the machine that a local candidate runs on."""
    tokens: TokenPrices | None = None
    """Of the models at addresses; None takes the bundled table, for addresses elsewhere alone."""
    grid: GridFile = GridFile()
    """Of the electricity, and watts that the user calibrated."""
    own_rate_per_s: float | None = None
    """The team's own arrivals a second, where the scenario has no rate of its own."""


class Played(NamedTuple):
    """One block that was played."""

    whole: Calls
    kept: Calls
    """Without its warm-up."""


@dataclass
class LoadTarget:
    """The process that is open now, and what it and those before it have played so far."""

    target: Candidate | HttpTarget
    process: MeasuredProcess
    openings: list[list[Played]] = field(default_factory=list)
    """Blocks of each process, one after the other; of an address, parts of the one."""
    spent: Spent = field(default_factory=Spent)
    """What the machine's meters saw of its blocks."""
    found: Found | None = None
    died: str | None = None
    is_steady: bool = True
    phases: list[list[MemoryUse]] = field(default_factory=list)
    """Memory of loading, warm-up (and search), and what was measured, opening by opening; empty for an
    address."""

    @property
    def blocks(self) -> list[Calls]:
        """Of all openings, warm-up left out."""
        return [block for part in self.parts for block in part]

    @property
    def whole(self) -> list[Calls]:
        """The same blocks with it: counters of bytes are of whole blocks."""
        return [block for part in self.whole_parts for block in part]

    @property
    def parts(self) -> list[list[Calls]]:
        """Blocks of each opening, warm-up left out."""
        return [[played.kept for played in part] for part in self.openings]

    @property
    def whole_parts(self) -> list[list[Calls]]:
        """Blocks of each opening, with it."""
        return [[played.whole for played in part] for part in self.openings]

    @property
    def name(self) -> str:
        """Of the candidate or address."""
        return self.target.name

    @property
    def is_metered(self) -> bool:
        """Whether it works on this machine, so that its meters see it."""
        return isinstance(self.target, Candidate) or self.target.is_here


def summarize(
    target: LoadTarget,
    base: LoadTarget,
    twin: LoadTarget,
    *,
    is_open: bool,
    kind: ScenarioKind,
    rate_per_s: float | None,
    floor: TimerFloor,
    threads: int,
    prices: Prices,
    board: Board,
    is_shared: bool,
    judge: Judge | None,
) -> LoadSummary:
    """Everything that a target's blocks tell."""
    blocks = [block for block in target.blocks if len(block.rows)]
    times = _joined(blocks, lambda b: times_of(b, is_open=is_open))
    service = _joined(blocks, lambda b: b.service_s)
    first = _joined(blocks, lambda b: b.first_token_s)
    gaps = _joined(blocks, lambda b: np.asarray(b.gaps_s))
    late = _joined(blocks, lambda b: np.asarray(b.late_s))
    n = len(times)
    runs_here = isinstance(target.target, Candidate)
    wall_s = sum(block.wall_s for block in target.whole)
    n_whole = sum(len(block.rows) for block in target.whole)
    n_answered = sum(int(block.is_ok.sum()) for block in target.whole)
    rate = n_answered / wall_s if wall_s > 0 else 0.0
    cpu_s = _cpu_s(target)
    valid = (
        check_blocks(blocks, floor=floor, is_poisson=kind == "server", is_open=is_open, runs_here=runs_here)
        if blocks
        else Validity(False, ("no claim: nothing was measured.",), None)
    )
    energies = _energies(
        target, cpu_s, rate, threads, prices.grid, board, is_shared=is_shared and runs_here
    )
    energy = energies[0] if energies else None
    rest = energies[1] if len(energies) > 1 else None
    grid = prices.grid.grid
    wire = WireShares(target.whole)
    correct = judged_scores(target.whole, judge) if judge else []
    prompt_tokens = mean_or_none([t for b in blocks for t in b.prompt_tokens])
    completion_tokens = mean_or_none([t for b in blocks for t in b.completion_tokens])
    money = _money(target, rate, prices, prompt_tokens, completion_tokens)
    usd = money.usd_per_1000
    at_rate = None
    if runs_here and not is_open:
        at_rate = at_own_rate(prices.own_rate_per_s, rate, prices.usd_per_hour)
    # Of the first target: how its own twin compares (A/A).
    ours, equal = (twin if target is base else target), twin
    return LoadSummary(
        name=target.name,
        kind="candidate" if runs_here else "address",
        n_tasks=n,
        n_failed=int(sum((~block.is_ok).sum() for block in blocks)),
        failures=failures_of(blocks),
        rate_asked_per_s=rate_per_s if kind == "server" else _asked(target) if kind == "trace" else None,
        rate_delivered_per_s=rate,
        utilisation_share=_utilisation(target, wall_s),
        latency_p50_s=tail_of(times, 0.5),
        latency_p95_s=tail_of(times, 0.95),
        latency_p99_s=tail_of(times, 0.99),
        latency_quantiles_s=cdf_of(times) if n else (),
        service_p50_s=percentile_or_none(service, 0.5),
        service_p95_s=percentile_or_none(service, 0.95),
        first_token_p50_s=percentile_or_none(first, 0.5),
        first_token_p95_s=percentile_or_none(first, 0.95),
        between_tokens_p50_s=percentile_or_none(gaps, 0.5),
        between_tokens_p95_s=percentile_or_none(gaps, 0.95),
        token_p50_s=percentile_or_none(_joined(blocks, lambda b: b.token_s), 0.5),
        cpu_s=cpu_s,
        client_cpu_share=sum(b.client_cpu_s for b in target.whole) / wall_s if wall_s > 0 else 0.0,
        late_p50_s=percentile_or_none(late, 0.5) or 0.0,
        late_p99_s=percentile_or_none(late, 0.99) or 0.0,
        late_max_s=percentile_or_none(late, 1.0) or 0.0,
        gaps_ks_p=valid.gaps_ks_p,
        latency_ratio=block_ratio(ours.parts, base.parts, 0.5, is_open=is_open, twin=equal.parts),
        tail_ratio=block_ratio(ours.parts, base.parts, 0.95, is_open=is_open, twin=equal.parts),
        throughput_ratio=throughput_ratio(ours.whole_parts, base.whole_parts, twin=equal.whole_parts)
        if kind == "offline"
        else None,
        cpu_ratio=cpu_ratio(ours.whole_parts, base.whole_parts, twin=equal.whole_parts),
        slo_rate_per_s=target.found.rate_per_s if target.found else None,
        slo_reason=target.found.reason if target.found else "",
        curve=target.found.curve if target.found else (),
        service_quantiles_s=cdf_of(service) if n else (),
        wire_payload_bytes=wire.payload_bytes,
        wire_protocol_bytes=wire.protocol_bytes,
        wire_packet_bytes=wire.packet_bytes,
        wire_resent_bytes=wire.resent_bytes,
        prompt_tokens=prompt_tokens,
        completion_tokens=completion_tokens,
        energy_j=energy.energy_j if energy else None,
        energy_dynamic_j=energy.dynamic_j if energy else None,
        energy_idle_j=energy.idle_j if energy else None,
        energy_tier=energy.tier if energy else None,
        energy_factor=energy.factor if energy else None,
        energy_boundary=energy.boundary if energy else None,
        energy_source=energy.source if energy else None,
        energy_rest_j=rest.energy_j if rest else None,
        energy_rest_tier=rest.tier if rest else None,
        energy_rest_factor=rest.factor if rest else None,
        energy_rest_source=rest.source if rest else None,
        co2e_g=co2e_g(energy, grid),
        co2e_source=grid.words if grid and energy else None,
        usd_per_1000=usd,
        usd_source=money.source,
        slo_usd_per_1000=_usd_at_slo(target, prices),
        own_rate_per_s=at_rate.rate_per_s if at_rate else None,
        own_machines=at_rate.n_machines if at_rate else None,
        own_rate_usd_per_1000=at_rate.usd_per_1000 if at_rate else None,
        moved=moved_bytes(
            target.target,
            Traffic(
                prompt_tokens=prompt_tokens,
                completion_tokens=completion_tokens,
                escalated_share=_escalated_share(target),
            ),
        )
        if isinstance(target.target, Candidate)
        else None,
        memory=phase_memory(target.phases) if target.phases else None,
        correct_share=correct_share(correct),
        per_correct=_per_correct(target, correct, energy, usd, wire, is_open=is_open),
        is_claim=valid.is_claim,
        marks=(*valid.marks, *_own_marks(target, n_whole), *short_words(target.spent)),
    )


class _Money(NamedTuple):
    usd_per_1000: float | None = None
    source: str | None = None


def _money(
    target: LoadTarget,
    rate_per_s: float,
    prices: Prices,
    prompt_tokens: float | None,
    completion_tokens: float | None,
) -> _Money:
    """Of a machine here by the hour, at the run's rate; of an address by its tokens."""
    if isinstance(target.target, Candidate):
        usd = usd_at_rate(rate_per_s, prices.usd_per_hour) if rate_per_s > 0 else None
        if usd is None:
            return _Money()
        return _Money(
            usd, f"this machine at ${prices.usd_per_hour:g} an hour, paid for while it waits, too"
        )
    model = target.target.model
    # A server of one's own may call a model as a vendor does: that price is not its price.
    table = prices.tokens or (None if target.target.is_here else bundled_token_prices())
    usd = table.usd_per_1000(model, prompt_tokens, completion_tokens) if table else None
    return _Money(usd, table.words(model) if table and model and usd is not None else None)


def _usd_at_slo(target: LoadTarget, prices: Prices) -> float | None:
    """Of a machine here, kept at the highest rate that was shown to meet the SLO."""
    rate = target.found.rate_per_s if target.found else None
    return usd_at_rate(rate, prices.usd_per_hour) if rate and isinstance(target.target, Candidate) else None


def _escalated_share(target: LoadTarget) -> float | None:
    told = [(block.n_escalated, len(block.rows)) for block in target.whole if block.n_escalated is not None]
    n = sum(tasks for _, tasks in told)
    return sum(passed for passed, _ in told) / n if n else None


def _per_correct(
    target: LoadTarget,
    correct: list[float],
    energy: Energy | None,
    usd_per_1000: float | None,
    wire: WireShares,
    *,
    is_open: bool,
) -> dict[str, Interval]:
    """What one correct answer takes of each cost that was measured."""
    parts = [part for part in target.parts if sum(len(b.rows) for b in part)]
    means = [float(_joined(part, lambda b: times_of(b, is_open=is_open)).mean()) for part in parts]
    streams = None
    if wire.payload_bytes is not None and wire.protocol_bytes is not None:
        streams = wire.payload_bytes + wire.protocol_bytes
    costs: dict[str, list[float]] = {
        "latency_s": means,
        "cpu_s": [spent for part in target.whole_parts if (spent := cpu_per_task(part)) is not None],
        "energy_j": [energy.energy_j] if energy else [],
        "usd": [usd_per_1000 / 1000] if usd_per_1000 else [],
        "wire_bytes": [streams] if streams else [],
    }
    found = {name: per_correct(values, correct) for name, values in costs.items()}
    return {name: interval for name, interval in found.items() if interval is not None}


def _own_marks(target: LoadTarget, n: int) -> tuple[str, ...]:
    marks = []
    if target.died is not None:
        marks.append(f"the target stopped answering after {n:,} requests, which are kept: {target.died}")
    if not target.is_steady:
        marks.append("the warm-up did not become steady: latencies may still fall.")
    failed = sum(int((~block.is_ok).sum()) for block in target.blocks)
    if failed:
        marks.append(f"{failed:,} requests failed or timed out; they count as misses of every limit.")
    return tuple(marks)


def _cpu_s(target: LoadTarget) -> float | None:
    spent = [b.cpu_s / len(b.rows) for b in target.whole if b.cpu_s is not None and len(b.rows)]
    return float(np.median(spent)) if spent else None


def _utilisation(target: LoadTarget, wall_s: float) -> float | None:
    busy = [block.busy_s for block in target.whole]
    return None if None in busy or wall_s <= 0 else sum(b for b in busy if b is not None) / wall_s


def _asked(target: LoadTarget) -> float | None:
    lengths = [block.due_s[-1] for block in target.whole if len(block.due_s)]
    n = sum(len(block.rows) for block in target.whole)
    return n / sum(lengths) if sum(lengths) > 0 else None


def _energies(
    target: LoadTarget,
    cpu_s: float | None,
    rate_per_s: float,
    threads: int,
    grid: GridFile,
    board: Board,
    *,
    is_shared: bool,
) -> tuple[Energy, ...]:
    """Measured and estimated, at this rate: between requests the machine is held too."""

    def estimate() -> Energy | None:
        if cpu_s is None or rate_per_s <= 0:
            return None
        watts = grid.watts.watts if grid.watts else None
        return estimate_energy(cpu_s, 1 / rate_per_s, threads=threads, calibrated=watts)

    return board.energies(target.spent, estimate, is_shared=is_shared)


def _joined(blocks: list[Calls], of: Callable[[Calls], np.ndarray]) -> np.ndarray:
    return np.concatenate([of(block) for block in blocks]) if blocks else np.empty(0)
