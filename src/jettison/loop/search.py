"""The search: make candidates, cheap evidence first, drop what is dominated, cascade what is left.

Everything here reads train, dev and unlabelled inputs; no test example is within reach.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import msgspec
import numpy as np

from jettison.backends.machine import answering_machine
from jettison.candidate import CUT_NOTE, Candidate
from jettison.compress.deadline import Deadline
from jettison.compress.recipe import Recipe, describe_step
from jettison.compress.recipe_texts import draw_words
from jettison.compress.recipe_types import work_of
from jettison.compress.step import step_from
from jettison.cost.per_correct import costs_per_correct
from jettison.decide.report_types import Tried
from jettison.decision import CUT_SHORT, CostSummary
from jettison.errors import CannotWrite, JettisonError, OutOfTime, Unanswered
from jettison.files import is_disk_full, read_json, value_sha256, write_json
from jettison.loop.failures import failure_words
from jettison.loop.remote import costs_of
from jettison.loop.time_plan import decision_s, time_for_costs
from jettison.loop.watcher import Clock
from jettison.loop.workspace import Contender, Workspace
from jettison.record import mean_score
from jettison.task import Example, Input

Status = Literal["finalist", "dominated", "failed", "dropped"]

NO_TIME = "no time left in the budget"
N_FIRST_LOOK = 400
HOPELESS_LOSS = 0.25
STUDENTS = ("student",)
"""Families whose errors are so unlike a transformer's that they do not make one needless behind them."""
LOOK_SHARE = 0.5
"""Of the incumbent's time for dev, what a candidate takes to be looked at."""
QUICK_SHARE = 0.25
FEWEST_HALVED = 4
"""Rivals in a family that is halved: a quarter of the training of three costs as much as it saves."""


@dataclass
class Findings:
    """What a search came to: grown as it goes, read when it ends."""

    contenders: list[Contender] = field(default_factory=list)
    arms: list[Contender] = field(default_factory=list)
    """Dropped as candidates of their own, but of use behind a leaner one."""
    tried: list[Tried] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Making:
    """With what candidates are made."""

    workspace: Workspace
    incumbent: Contender
    threads: int
    deadline: Deadline | None
    """When their steps must be done."""


def search(
    workspace: Workspace,
    incumbent: Contender,
    recipes: Sequence[Recipe],
    *,
    training_threads: int,
    example_s: float,
) -> Findings:
    """Try recipes inside the budget and return every candidate worth a decision.

    Args:
        workspace: The run.
        incumbent: What the candidates start from and are compared with.
        recipes: Cheapest first.
        training_threads: Threads to make candidates with.
        example_s: CPU-seconds of the incumbent for one input in a batch.
    """
    findings = Findings()
    rest_s = decision_s(workspace, example_s)
    reserve_s = rest_s + time_for_costs(workspace)
    making = Making(
        workspace=workspace,
        incumbent=incumbent,
        threads=training_threads,
        deadline=_deadline(workspace, reserve_s + LOOK_SHARE * example_s * len(workspace.dev)),
    )
    planned = _halved(making, recipes, findings, reserve_s=reserve_s)
    taught_s = 0.0
    for index, recipe in enumerate(planned):
        left_s = workspace.clock.left_s(
            _work_s(workspace.clock, planned[index:], taught_s), reserve_s=reserve_s
        )
        workspace.watcher.stage(f"candidate {index + 1} of {len(planned)}: {recipe.name}", left_s)
        fitting = _fitting(workspace.clock, recipe, taught_s, reserve_s=reserve_s)
        if fitting is None:
            findings.tried.append(not_tried(recipe, NO_TIME))
            workspace.watcher.found(f"{recipe.name}: left out, no time in the budget")
            continue
        if draw := draw_words(fitting):
            workspace.watcher.found(f"{recipe.name}: {draw}")
        started = time.monotonic()
        _try(making, fitting, findings)
        took_s = time.monotonic() - started
        workspace.clock.learn(estimate_s=fitting.estimate_s, took_s=took_s, work=work_of(fitting))
        taught_s += fitting.shared_s
    _cost_and_drop(workspace, incumbent, findings, rest_s=rest_s)
    return findings


def _fitting(clock: Clock, recipe: Recipe, taught_s: float, *, reserve_s: float) -> Recipe | None:
    """What is left to do of a recipe, from as many texts as there is time for; None where there is none."""
    for one in (recipe, *recipe.fewer):
        rest = _rest_of(one, taught_s)
        if clock.has_time_for(rest.estimate_s, work=work_of(rest), reserve_s=reserve_s):
            return rest
    return None


def _deadline(workspace: Workspace, reserve_s: float) -> Deadline | None:
    """When making must end for the budget to hold what follows; None without a budget."""
    at_s = workspace.clock.ends_at_s(reserve_s=reserve_s)
    if at_s is None:
        return None
    return Deadline(at_s, budget=f"{workspace.config.budget}", clock=workspace.clock.now)


def _rest_of(recipe: Recipe, taught_s: float) -> Recipe:
    """What is left to do of a recipe where others have spent some of the time that they share."""
    spent_s = min(recipe.shared_s, taught_s)
    return msgspec.structs.replace(
        recipe, estimate_s=recipe.estimate_s - spent_s, shared_s=recipe.shared_s - spent_s
    )


def _work_s(clock: Clock, recipes: Sequence[Recipe], taught_s: float) -> float:
    """Time of some recipes together; what they share counts once, and not where it is spent."""
    work_s = 0.0
    for recipe in recipes:
        rest = _rest_of(recipe, taught_s)
        work_s += clock.corrected_s(rest.estimate_s, work=work_of(rest))
        taught_s += rest.shared_s
    return work_s


def first_contender(workspace: Workspace, candidate: Candidate, recipe: Recipe) -> Contender:
    """Evaluate a candidate on all of dev."""
    return Contender(
        candidate=candidate,
        recipe=recipe,
        records=workspace.records(candidate, workspace.dev, "dev"),
        scorer=workspace.scorer,
    )


def with_costs(
    workspace: Workspace,
    incumbent: Contender,
    contenders: Sequence[Contender],
    *,
    thorough: bool,
    wall_s: float | None = None,
) -> tuple[Contender, list[Contender]]:
    """Measure incumbent and contenders interleaved in one run, or read that run's figures.

    Args:
        workspace: The run.
        incumbent: What ratios are taken against.
        contenders: Candidates beside it.
        thorough: As for the decision, in several openings; else a first look.
        wall_s: Seconds that all of it may take, or nearly: less is measured where they do not do, and the
            figures say so. None is no limit.
    """
    config = workspace.config
    inputs = cost_inputs(workspace)
    candidates = [incumbent.candidate, *(c.candidate for c in contenders)]
    rounds, share = (24, 1.0) if thorough else (8, 0.5)
    settings: dict[str, Any] = {
        "rounds": rounds,
        "openings": config.cost_openings if thorough else 1,
        "twin": thorough,
        # Large blocks: what a cascade costs depends on which inputs a block happens to hold.
        "block": max(16, len(inputs) // 4),
        "threads": config.threads,
        "usd_per_hour": config.usd_per_hour,
        "own_rate_per_s": config.rate_per_s if thorough else None,
        "budget_s": config.cost_s * share * len(candidates),
        "throughput": thorough,
    }
    measured = [[c.digest for c in candidates], inputs, config.seed, settings, answering_machine()]
    key = value_sha256(measured)[:20]
    folder = workspace.cache / "costs"
    # What a budget cut short is found again by a run of that budget alone.
    kept = [folder / f"{key}.json", folder / f"{key}-within-{config.budget}.json"]
    path = next((path for path in kept if path.exists()), None)
    if path is not None:
        costs = read_json(path, list[CostSummary])
    else:
        costs = costs_of(
            [incumbent, *contenders],
            inputs,
            seed=config.seed,
            settings={**settings, "wall_s": wall_s},
            progress=workspace.watcher.progress,
        )
        write_json(kept[any(map(is_cut_short, costs))], costs)
    for mark in sorted({mark for cost in costs for mark in cost.marks if mark.startswith(CUT_SHORT)}):
        workspace.watcher.found(f"costs: {mark}")
    first, *others = [
        replace(contender, cost=costs_per_correct(cost, _scores(contender)))
        for contender, cost in zip([incumbent, *contenders], costs, strict=True)
    ]
    return first, others


def is_cut_short(cost: CostSummary) -> bool:
    """Whether a run's budget left no time to measure it in full."""
    return cost.cut_short is not None


def _scores(contender: Contender) -> list[float]:
    """What its dev records were judged, those that nobody could judge left out."""
    found = (record.scores.get(contender.scorer) for record in contender.records)
    return [score for score in found if score is not None]


def cost_inputs(workspace: Workspace) -> list[Input]:
    """The inputs costs are measured on: dev inputs with dev's lengths, in the test split's mix of scope.

    How often the lean arm of a cascade must pass on depends on how many inputs are out of scope. The
    test split says how many there are in the job; only that count of it is used.
    """
    weights = dict(zip((e.id for e in workspace.dev), traffic_weights(workspace), strict=True))
    examples = sorted(workspace.dev, key=lambda e: (len(e.input), e.id))
    n = min(workspace.config.n_cost_tasks, len(examples))
    reached = np.cumsum([weights[e.id] for e in examples])
    places = np.searchsorted(reached, (np.arange(n) + 0.5) * reached[-1] / n)
    return [examples[int(place)].asked for place in places]


def traffic_weights(workspace: Workspace) -> list[float]:
    """Weight of each dev example that gives dev the test split's share of out-of-scope inputs."""
    counts = workspace.task.slice_counts
    shares = {}
    for scope in ("in", "out"):
        n_dev = sum(example.slices.get("scope") == scope for example in workspace.dev)
        n_test = counts.get(f"scope={scope}", 0)
        shares[scope] = n_test / n_dev if n_dev and n_test else None
    if None in shares.values():
        return [1.0] * len(workspace.dev)
    return [float(shares[example.slices["scope"]] or 0.0) for example in workspace.dev]


def _halved(
    making: Making, recipes: Sequence[Recipe], findings: Findings, *, reserve_s: float
) -> list[Recipe]:
    """Successive halving: of a family of four or more trained recipes, train each briefly, keep half.

    Where the budget has no time for that, all stay, and are tried one after the other as far as it goes.
    """
    workspace, planned = making.workspace, list(recipes)
    families = {r.family for r in recipes if quick_version(r) is not None}
    for family in sorted(families):
        rivals = [r for r in recipes if r.family == family and quick_version(r) is not None]
        short_s = QUICK_SHARE * sum(recipe.estimate_s for recipe in rivals)
        if len(rivals) < FEWEST_HALVED or not workspace.clock.has_time_for(short_s, reserve_s=reserve_s):
            continue
        looks = [_short_look(making, recipe) for recipe in rivals]
        ranked = sorted(
            (1.0 if look is None else -look, recipe.name)
            for recipe, look in zip(rivals, looks, strict=True)
            if not isinstance(look, str)
        )
        kept = {name for _, name in ranked[: (len(rivals) + 1) // 2]}
        for recipe, look in zip(rivals, looks, strict=True):
            if recipe.name in kept:
                continue
            planned.remove(recipe)
            if isinstance(look, str):
                findings.tried.append(_not_made(recipe, look))
                workspace.watcher.found(f"{recipe.name}: {look}")
                continue
            seen = "not judged" if look is None else f"{look:.1%}"
            reason = f"behind its rivals after short training ({seen} on dev)"
            findings.tried.append(not_tried(recipe, reason, score=look))
    return planned


def _short_look(making: Making, recipe: Recipe) -> float | str | None:
    """First score of what is briefly trained, None where nobody can judge it; or why there is none."""
    quick = quick_version(recipe)
    assert quick is not None
    making.workspace.watcher.stage(f"short training of {recipe.name}")
    made = _made(making, quick)
    return made if isinstance(made, str) else _first_look(making.workspace, made)


def quick_version(recipe: Recipe) -> Recipe | None:
    """The recipe up to its training step, with a quarter of the epochs; None when nothing is trained."""
    steps = []
    for step in recipe.steps:
        if step["step"] in ("distill", "finetune"):
            epochs: int = step_from(step).epochs  # type: ignore[attr-defined]  # both steps have them
            steps.append({**step, "epochs": max(1, round(epochs * QUICK_SHARE))})
            return msgspec.structs.replace(recipe, name=f"{recipe.name} (short)", steps=tuple(steps))
        steps.append(step)
    return None


def _try(making: Making, recipe: Recipe, findings: Findings) -> None:
    workspace, incumbent = making.workspace, making.incumbent
    made = _made(making, recipe)
    if isinstance(made, str):
        findings.tried.append(_not_made(recipe, _with_draw(made, recipe)))
        workspace.watcher.found(f"{recipe.name}: {made}")
        return
    for applied in made.lineage:
        if CUT_NOTE in applied.notes:
            workspace.watcher.found(f"{recipe.name}: {applied.step} was cut short by the budget")
    look = _first_look(workspace, made)
    looked_at = first_look(workspace)
    reference = mean_score(incumbent.records_of(looked_at), workspace.scorer)
    if look is not None and reference is not None and reference - look > HOPELESS_LOSS:
        reason = (
            f"loses {100 * (reference - look):.1f} points on a first look at {len(looked_at)} dev examples"
        )
        told = _with_draw(reason, recipe)
        findings.tried.append(not_tried(recipe, told, status="dropped", score=look))
        workspace.watcher.found(f"{recipe.name}: dropped, {reason}")
        if failed := failure_words(workspace.records(made, looked_at, "dev")):
            workspace.watcher.found(f"warning: {recipe.name}: {failed}")
        return
    contender = first_contender(workspace, made, recipe)
    findings.contenders.append(contender)
    score, base = contender.dev_score, incumbent.dev_score
    if score is not None and base is not None:
        workspace.watcher.found(f"{recipe.name}: {score:.1%} on dev ({100 * (score - base):+.1f} points)")
    if failed := failure_words(contender.records):
        workspace.watcher.found(f"warning: {recipe.name}: {failed}")


def _made(making: Making, recipe: Recipe) -> Candidate | str:
    """The candidate, or why there is none: one recipe's failure does not end the run."""
    try:
        return making.workspace.make(
            recipe, making.incumbent.candidate, making.threads, deadline=making.deadline
        )
    except Unanswered:
        raise  # what a teacher elsewhere could not say now it may say in the next run
    except CannotWrite:
        raise  # a full disk says nothing of the recipe, and the next would meet it too
    except OutOfTime as error:
        return f"{NO_TIME}: {error}"
    except JettisonError as error:
        return str(error)
    except Exception as error:  # steps are plugins around libraries that raise anything
        if isinstance(error, MemoryError) or is_disk_full(error):
            raise
        first = " ".join(str(error).split())[:300]
        return f"failed: {type(error).__name__}: {first}"


def _not_made(recipe: Recipe, reason: str) -> Tried:
    """A recipe that there was too little time for, or that failed, as the report tells it."""
    return not_tried(recipe, reason, status="dropped" if reason.startswith(NO_TIME) else "failed")


def first_look(workspace: Workspace) -> tuple[Example, ...]:
    """The dev examples that a candidate is asked first: drawn, as files come sorted by label or source."""
    dev = workspace.dev
    if len(dev) <= N_FIRST_LOOK:
        return dev
    rng = np.random.default_rng(workspace.config.seed)
    return tuple(dev[i] for i in sorted(rng.choice(len(dev), N_FIRST_LOOK, replace=False)))


def _first_look(workspace: Workspace, candidate: Candidate) -> float | None:
    records = workspace.records(candidate, first_look(workspace), "dev")
    return mean_score(records, workspace.scorer)


def _cost_and_drop(
    workspace: Workspace, incumbent: Contender, findings: Findings, *, rest_s: float
) -> None:
    """Measure what everything costs, then drop whatever another beats on dev and on cost."""
    if not findings.contenders:
        return
    workspace.watcher.stage("cost of the candidates, interleaved")
    left_s = workspace.clock.budget_left_s(reserve_s=rest_s)
    _, measured = with_costs(
        workspace,
        incumbent,
        findings.contenders,
        thorough=False,
        wall_s=None if left_s is None else left_s / 3,  # cascades and finalists are still to be measured
    )
    kept = []
    for contender in measured:
        better = next((c for c in measured if dominates(c, contender)), None)
        if better is None or contender.recipe.family == "free":
            kept.append(contender)
            continue
        reason = f"{better.name} is at least as good on dev and costs less"
        findings.arms.append(contender)
        findings.tried.append(tried(contender, incumbent, status="dominated", reason=reason))
        workspace.watcher.found(f"{contender.name}: dropped, {reason}")
    findings.contenders[:] = kept


def dominates(one: Contender, other: Contender) -> bool:
    """Whether `one` is at least as good on dev and costs clearly less (intervals apart)."""
    if one is other or one.dev_score is None or other.dev_score is None:
        return False
    a = one.cost.ratio if one.cost else None
    b = other.cost.ratio if other.cost else None
    return a is not None and b is not None and one.dev_score >= other.dev_score and a.high < b.low


def tried(contender: Contender, incumbent: Contender, *, status: Status, reason: str) -> Tried:
    """A candidate that was made and evaluated on dev, as the report tells it."""
    score, base = contender.dev_score, incumbent.dev_score
    ratio = contender.cost.ratio if contender.cost else None
    return Tried(
        name=contender.name,
        steps=contender.words,
        dev_score=score,
        dev_loss_vs_incumbent=None if score is None or base is None else base - score,
        cpu_ratio=None if ratio is None else ratio.value,
        bytes=contender.candidate.artifact_bytes,
        status=status,
        reason=_with_draw(reason, contender.recipe),
    )


def _with_draw(reason: str, recipe: Recipe) -> str:
    """A reason, and that the candidate learned from some of the texts alone, where it did."""
    draw = draw_words(recipe)
    return f"{reason}; {draw}" if draw else reason


def not_tried(
    recipe: Recipe, reason: str, *, status: Status = "dropped", score: float | None = None
) -> Tried:
    """A recipe of which no candidate came, as the report tells it."""
    return Tried(
        name=recipe.name,
        steps=tuple(describe_step(step) for step in recipe.steps),
        dev_score=score,
        status=status,
        reason=reason,
    )


def cost_ratio(contender: Contender) -> float:
    """Cost per task over the incumbent's; the incumbent's own is 1."""
    ratio = contender.cost.ratio if contender.cost else None
    return 1.0 if ratio is None else ratio.value
