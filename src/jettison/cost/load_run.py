"""What stays the same over one run under load, and how one target plays one block of it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np

from jettison.cost.calls import Calls
from jettison.cost.http_target import HttpTarget
from jettison.cost.joules import Board
from jettison.cost.load_target import LoadTarget
from jettison.cost.load_types import ScenarioKind, Slo
from jettison.cost.schedule import poisson_schedule
from jettison.cost.subject import Progress
from jettison.errors import JettisonError
from jettison.task import Input

WARM_SHARE, MOST_WARM_WINDOWS = 0.1, 10


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
class Run:
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


@dataclass
class Block:
    """One round: the same for every target."""

    rows: list[int]
    due_s: list[float]
    warm_s: float = 0.0


def _play(target: LoadTarget, run: Run, block: Block, *, concurrency: int | None = None) -> Calls:
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


def play_or_die(
    target: LoadTarget, run: Run, block: Block, *, concurrency: int | None = None
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


def closed_block(n: int, run: Run, rng: np.random.Generator | None = None) -> Block:
    """Requests that are all due at once."""
    return Block(draw_rows(n, run, rng or run.spare_rng), [0.0] * n)


def poisson_block(rate: float, block_s: float, run: Run) -> Block:
    """Requests to warm up with, at a rate: five at least are expected."""
    due = poisson_schedule(rate, max(block_s, 5 / rate), rng=run.spare_rng)
    return Block(draw_rows(len(due), run, run.spare_rng), due)


def draw_rows(n: int, run: Run, rng: np.random.Generator) -> list[int]:
    """Rows of the inputs: every input once in random order, then again in another."""
    passes = [rng.permutation(len(run.inputs)) for _ in range(n // len(run.inputs) + 1)]
    return [int(row) for row in np.concatenate(passes)[:n]]


def warm_up_target(target: LoadTarget, run: Run, window: Callable[[], Block]) -> float:
    """Play windows until the median service times of three agree within 10 %; seconds of one task."""
    run.say(f"warming up {target.name}", None)
    middles: list[float] = []
    while len(middles) < MOST_WARM_WINDOWS and target.died is None:
        calls = play_or_die(target, run, window())
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
