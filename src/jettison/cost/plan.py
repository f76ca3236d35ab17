"""How many rounds, inputs and repeats a run can afford: fast ones are resolved, slow ones end."""

from collections.abc import Sequence

import msgspec
import numpy as np

from jettison.cost.ratio import MIN_ROUNDS

MIN_BLOCK_S = 0.05
"""A block shorter than this would be judged by the timer and the scheduler, not by the model."""
MIN_BLOCK_INPUTS = 4
MIN_BATCH_INPUTS = 8
ALIKE = 1.5
"""Candidates whose warm-up times lie within this factor go over their blocks equally often."""


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """Blocks of one run."""

    rounds: int
    """Of each opening."""
    block: int
    """Inputs per block, the same for every candidate."""
    repeats: tuple[int, ...]
    """How often each candidate goes over its block; those that are about equally fast equally often."""


def plan_blocks(
    task_s: Sequence[float],
    *,
    rounds: int,
    block: int,
    n_inputs: int,
    budget_s: float | None,
    openings: int = 1,
) -> Plan:
    """Fit the run into the budget: smaller blocks first, then fewer rounds, never fewer than 6 in all.

    Args:
        task_s: Seconds that one task takes each candidate, warm.
        rounds: Rounds wanted, of all openings together.
        block: Inputs per block wanted.
        n_inputs: Inputs there are.
        budget_s: Seconds for all blocks together; None is no limit.
        openings: Over which the rounds are spread, one each at least.
    """
    block = max(1, min(block, n_inputs))
    wanted = max(rounds, MIN_ROUNDS)
    if budget_s is not None:
        while block > MIN_BLOCK_INPUTS and wanted * _round_s(task_s, block) > budget_s:
            block = max(MIN_BLOCK_INPUTS, block // 2)
        affordable = int(budget_s / _round_s(task_s, block))
        wanted = max(MIN_ROUNDS, min(wanted, affordable))
    each = max(1, round(wanted / openings))
    return Plan(rounds=each, block=block, repeats=_same_repeats(task_s, block))


def plan_batches(
    task_s: float, *, passes: int, n_inputs: int, budget_s: float | None, n_candidates: int
) -> int:
    """How many inputs a candidate's batches take: its share of a quarter of the budget, at least 8.

    Args:
        task_s: Seconds that one task takes it, warm, one at a time: batches are hardly slower.
        passes: How often it will go over them.
        n_inputs: Inputs there are.
        budget_s: Of the whole run; None takes all inputs.
        n_candidates: Candidates that share it.
    """
    if budget_s is None:
        return n_inputs
    affordable = int(0.25 * budget_s / n_candidates / (passes * max(task_s, 1e-7)))
    return min(n_inputs, max(MIN_BATCH_INPUTS, affordable))


def affordable_openings(
    wanted: int, *, wall_s: float | None, open_s: float, blocks_s: float | None
) -> tuple[int, float | None]:
    """How many openings fit in the time there is, and the seconds for the blocks of these.

    One is always made. Two are never: an interval over two is too wide to be of use.

    Args:
        wanted: Openings, 1 or more.
        wall_s: Seconds for all; None is no limit.
        open_s: Seconds that opening and warming up all candidates takes once.
        blocks_s: Seconds for the blocks of the wanted openings; None is no limit.
    """
    if wall_s is None or blocks_s is None:
        return wanted, blocks_s
    each_s = open_s + blocks_s / wanted
    fitting = min(wanted, int(wall_s / each_s))
    if fitting >= 3 or fitting == wanted:
        return fitting, blocks_s * fitting / wanted
    return 1, min(blocks_s, max(0.0, wall_s - open_s))


def round_orders(n: int, rounds: int, *, rng: np.random.Generator) -> list[list[int]]:
    """Who comes when: a random order, then the same backwards, so that a steady drift cancels (ABBA)."""
    orders: list[list[int]] = []
    while len(orders) < rounds:
        order = [int(i) for i in rng.permutation(n)]
        orders += [order, order[::-1]]
    return orders[:rounds]


def _same_repeats(task_s: Sequence[float], block: int) -> tuple[int, ...]:
    """Two of one speed must not differ by how warm-up times happened to round.

    Who goes over its block more often is warmer, for as long as the run lasts.
    """
    repeats = [0] * len(task_s)
    first_s = 0.0
    for index in np.argsort(task_s):
        if not first_s or task_s[index] > ALIKE * first_s:
            first_s = task_s[index]
        repeats[index] = _repeats(first_s, block)
    return tuple(repeats)


def _repeats(task_s: float, block: int) -> int:
    return max(1, int(np.ceil(MIN_BLOCK_S / max(task_s * block, 1e-7))))


def _round_s(task_s: Sequence[float], block: int) -> float:
    return sum(t * block * _repeats(t, block) for t in task_s)
