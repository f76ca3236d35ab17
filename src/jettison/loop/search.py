"""The search: make candidates, cheap evidence first, drop what is dominated, cascade what is left.

Everything here reads train, dev and unlabelled inputs; no test example is within reach.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple

import msgspec

from jettison.candidate import Candidate
from jettison.compress.cascade import make_cascade
from jettison.compress.recipe import Recipe, describe_step
from jettison.cost.measure import measure_costs
from jettison.decide.report_types import Tried
from jettison.decision import CostSummary, NotWorse
from jettison.errors import JettisonError
from jettison.files import read_json, value_sha256, write_json
from jettison.loop.config import RunConfig, default_gates
from jettison.loop.nominate import outlook
from jettison.loop.workspace import Contender, Workspace
from jettison.record import mean_score


class ScopeRule(NamedTuple):
    """How a cascade treats what its lean arm finds odd; see `jettison.route.Cascade`."""

    escalate_below: float | None = None
    decline_below: float | None = None
    escalate_flagged: bool = True

    @property
    def words(self) -> str:
        parts = [] if self.escalate_flagged else ["lean scope"]
        parts += [] if self.escalate_below is None else [f"scope>{self.escalate_below:g}"]
        parts += [] if self.decline_below is None else [f"declines<{self.decline_below:g}"]
        return " ".join(parts)


class Plan(NamedTuple):
    """How two arms are joined."""

    epsilon: float
    combine: Literal["fallback", "average"]
    scope: ScopeRule = ScopeRule()

    @property
    def words(self) -> str:
        mean = "mean" if self.combine == "average" else ""
        return " ".join(part for part in (f"@{self.epsilon:g}", mean, self.scope.words) if part)


Status = Literal["finalist", "dominated", "failed", "dropped"]

N_FIRST_LOOK = 400
HOPELESS_LOSS = 0.25
SCOPE_RULES = (
    ScopeRule(escalate_below=0.1),
    ScopeRule(escalate_below=0.1, decline_below=0.01),
    ScopeRule(escalate_flagged=False),
)
"""With an out-of-scope label: ask the fallback about the tenth that the lean arm finds oddest; the same,
but decline the oddest hundredth at once; or leave scope to the lean arm and go by confidence alone."""
N_NESTED = 2
N_MEASURED = 6
STUDENTS = ("student",)
"""Families whose errors are so unlike a transformer's that they do not make one needless behind them."""
QUICK_SHARE = 0.25


@dataclass
class Findings:
    """What a search came to: grown as it goes, read when it ends."""

    contenders: list[Contender] = field(default_factory=list)
    arms: list[Contender] = field(default_factory=list)
    """Dropped as candidates of their own, but of use behind a leaner one."""
    tried: list[Tried] = field(default_factory=list)


def search(
    workspace: Workspace, incumbent: Contender, recipes: Sequence[Recipe], *, training_threads: int
) -> Findings:
    """Try recipes inside the budget and return every candidate worth a decision.

    Args:
        workspace: The run.
        incumbent: What the candidates start from and are compared with.
        recipes: Cheapest first.
        training_threads: Threads to make candidates with.
    """
    findings = Findings()
    reserve_s = 60.0 + 2.0 * workspace.config.n_cost_tasks * _seconds_per_task(incumbent)
    planned = _halved(workspace, incumbent, recipes, findings, training_threads)
    for index, recipe in enumerate(planned):
        left = sum(workspace.clock.corrected_s(r.estimate_s) for r in planned[index:])
        workspace.watcher.stage(f"candidate {index + 1} of {len(planned)}: {recipe.name}", left + reserve_s)
        if not workspace.clock.has_time_for(recipe.estimate_s, reserve_s=reserve_s):
            findings.tried.append(_not_tried(recipe, "no time left in the budget"))
            workspace.watcher.found(f"{recipe.name}: left out, no time in the budget")
            continue
        _try(workspace, incumbent, recipe, findings, training_threads)
    _cost_and_drop(workspace, incumbent, findings)
    _add_cascades(workspace, incumbent, findings)
    return findings


def first_contender(workspace: Workspace, candidate: Candidate, recipe: Recipe) -> Contender:
    """Evaluate a candidate on all of dev."""
    return Contender(
        candidate=candidate, recipe=recipe, records=workspace.records(candidate, workspace.dev, "dev")
    )


def with_costs(
    workspace: Workspace, incumbent: Contender, contenders: Sequence[Contender], *, thorough: bool
) -> tuple[Contender, list[Contender]]:
    """Measure incumbent and contenders interleaved in one run, or read that run's figures."""
    config = workspace.config
    inputs = cost_inputs(workspace)
    candidates = [incumbent.candidate, *(c.candidate for c in contenders)]
    settings = {"thorough": thorough, "threads": config.threads, "usd": config.usd_per_hour}
    key = value_sha256([[c.digest for c in candidates], inputs, settings])[:20]
    path = workspace.cache / "costs" / f"{key}.json"
    if path.exists():
        costs = read_json(path, list[CostSummary])
    else:
        costs = measure_costs(
            candidates,
            inputs,
            rounds=30 if thorough else 6,
            seed=config.seed,
            budget_s=config.cost_s * (1.0 if thorough else 0.34) * len(candidates),
            threads=config.threads,
            usd_per_hour=config.usd_per_hour,
            progress=workspace.watcher.progress,
        )
        write_json(path, costs)
    return replace(incumbent, cost=costs[0]), [
        replace(contender, cost=cost) for contender, cost in zip(contenders, costs[1:], strict=True)
    ]


def cost_inputs(workspace: Workspace) -> list[str]:
    """The inputs costs are measured on: evenly through dev sorted by length, so its lengths are kept."""
    examples = sorted(workspace.dev, key=lambda e: (len(e.input), e.id))
    n = min(workspace.config.n_cost_tasks, len(examples))
    return [examples[int((i + 0.5) * len(examples) / n)].input for i in range(n)]


def _halved(
    workspace: Workspace,
    incumbent: Contender,
    recipes: Sequence[Recipe],
    findings: Findings,
    training_threads: int,
) -> list[Recipe]:
    """Successive halving: of a family of three or more trained recipes, train each briefly, keep half."""
    planned = list(recipes)
    families = {r.family for r in recipes if quick_version(r) is not None}
    for family in sorted(families):
        rivals = [r for r in recipes if r.family == family and quick_version(r) is not None]
        if len(rivals) < 3:
            continue
        scores: dict[str, float] = {}
        for recipe in rivals:
            quick = quick_version(recipe)
            assert quick is not None
            workspace.watcher.stage(f"short training of {recipe.name}")
            made = _made(workspace, incumbent, quick, training_threads)
            look = None if isinstance(made, str) else _first_look(workspace, made)
            scores[recipe.name] = -1.0 if look is None else look
        keep = sorted(rivals, key=lambda r: (-scores[r.name], r.name))[: (len(rivals) + 1) // 2]
        for recipe in rivals:
            if recipe not in keep:
                planned.remove(recipe)
                reason = f"behind its rivals after short training ({scores[recipe.name]:.1%} on dev)"
                findings.tried.append(_not_tried(recipe, reason, score=scores[recipe.name]))
    return planned


def quick_version(recipe: Recipe) -> Recipe | None:
    """The recipe up to its training step, with a quarter of the epochs; None when nothing is trained."""
    steps = []
    for step in recipe.steps:
        if step["step"] in ("distill", "finetune"):
            steps.append({**step, "epochs": max(1, round(step.get("epochs", 8) * QUICK_SHARE))})
            return msgspec.structs.replace(recipe, name=f"{recipe.name} (short)", steps=tuple(steps))
        steps.append(step)
    return None


def _try(
    workspace: Workspace,
    incumbent: Contender,
    recipe: Recipe,
    findings: Findings,
    training_threads: int,
) -> None:
    started = time.monotonic()
    made = _made(workspace, incumbent, recipe, training_threads)
    workspace.clock.learn(estimate_s=recipe.estimate_s, took_s=time.monotonic() - started)
    if isinstance(made, str):
        findings.tried.append(_not_tried(recipe, made, status="failed"))
        workspace.watcher.found(f"{recipe.name}: {made}")
        return
    look = _first_look(workspace, made)
    reference = mean_score(incumbent.records[:N_FIRST_LOOK], "label")
    if look is not None and reference is not None and reference - look > HOPELESS_LOSS:
        reason = f"loses {reference - look:.1%} on a first look at {N_FIRST_LOOK} dev examples"
        findings.tried.append(_not_tried(recipe, reason, status="dropped", score=look))
        workspace.watcher.found(f"{recipe.name}: dropped, {reason}")
        return
    contender = first_contender(workspace, made, recipe)
    findings.contenders.append(contender)
    score, base = contender.dev_score, incumbent.dev_score
    if score is not None and base is not None:
        workspace.watcher.found(f"{recipe.name}: {score:.1%} on dev ({score - base:+.1%})")


def _made(
    workspace: Workspace, incumbent: Contender, recipe: Recipe, training_threads: int
) -> Candidate | str:
    """The candidate, or why there is none: one recipe's failure does not end the run."""
    try:
        return workspace.make(recipe, incumbent.candidate, training_threads)
    except JettisonError as error:
        return str(error)


def _first_look(workspace: Workspace, candidate: Candidate) -> float | None:
    records = workspace.records(candidate, workspace.dev[:N_FIRST_LOOK], "dev")
    return mean_score(records, "label")


def _cost_and_drop(workspace: Workspace, incumbent: Contender, findings: Findings) -> None:
    """Measure what everything costs, then drop whatever another beats on dev and on cost."""
    workspace.watcher.stage("cost of the candidates, interleaved")
    _, measured = with_costs(workspace, incumbent, findings.contenders, thorough=False)
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
    a = one.cost.cpu_ratio if one.cost else None
    b = other.cost.cpu_ratio if other.cost else None
    return a is not None and b is not None and one.dev_score >= other.dev_score and a.high < b.low


def _add_cascades(workspace: Workspace, incumbent: Contender, findings: Findings) -> None:
    """Cascades of two arms that differ much in cost; the promising ones are measured."""
    arms = sorted((*findings.contenders, *findings.arms, incumbent), key=_ratio)
    pairs = cascade_pairs([arm for arm in arms if arm is incumbent or _is_measured(arm)])
    made: list[Contender] = []
    for index, (lean, fallback) in enumerate(pairs):
        workspace.watcher.stage(f"cascades {index + 1} of {len(pairs)}: {lean.name}→{fallback.name}")
        made += _cascades_of(workspace, incumbent, lean, fallback, findings)
    by_name = {contender.name: contender for contender in arms}
    promising = undominated([(c, expected_ratio(c, by_name)) for c in made])
    nested = _nested(workspace, incumbent, arms[0], promising, findings)
    by_name |= {contender.name: contender for contender in promising}
    ratios = {c.name: expected_ratio(c, by_name) for c in promising}
    expected = [(c, ratios[c.name]) for c in promising]
    expected += [(c, expected_ratio(c, by_name, ratios)) for c in nested]
    promising = _worth_measuring(workspace, incumbent, undominated(expected))
    if promising:
        workspace.watcher.stage(f"cost of {len(promising)} cascades, interleaved")
        _, promising = with_costs(workspace, incumbent, promising, thorough=False)
    findings.contenders += promising


def _nested(
    workspace: Workspace,
    incumbent: Contender,
    front: Contender,
    cascades: Sequence[Contender],
    findings: Findings,
) -> list[Contender]:
    """Three arms: the cheapest of all in front of the leanest cascades that will likely pass without it."""
    config, n_test = workspace.config, workspace.task.slice_counts
    gates = config.gates or default_gates(workspace.task.required_slices, workspace.task.out_of_scope)
    quality = [gate for gate in gates if isinstance(gate, NotWorse)]
    likely = [
        cascade
        for cascade in cascades
        if front.name not in cascade.members
        and outlook(cascade, incumbent, quality, n_test=n_test, seed=config.seed).chance
        >= config.nominate_at
    ]
    found = []
    for cascade in likely[:N_NESTED]:
        workspace.watcher.stage(f"cascades: {front.name} before {cascade.name}")
        found += _cascades_of(workspace, incumbent, front, cascade, findings)
    return found


def _worth_measuring(
    workspace: Workspace, incumbent: Contender, cascades: Sequence[Contender]
) -> list[Contender]:
    """The leanest few of those that may pass; when none may, the likeliest."""
    chances = {c.name: _chance(workspace, incumbent, c) for c in cascades}
    able = [c for c in cascades if chances[c.name] >= 0.5 * workspace.config.nominate_at]
    return able[:N_MEASURED] or sorted(cascades, key=lambda c: -chances[c.name])[:1]


def _chance(workspace: Workspace, incumbent: Contender, contender: Contender) -> float:
    """Predicted probability of holding the gates on quality; cost is not known yet."""
    task, config = workspace.task, workspace.config
    gates = config.gates or default_gates(task.required_slices, task.out_of_scope)
    quality = [gate for gate in gates if isinstance(gate, NotWorse)]
    return outlook(contender, incumbent, quality, n_test=task.slice_counts, seed=config.seed).chance


def epsilons_of(config: RunConfig) -> tuple[float, ...]:
    """Harm to certify cascades to: as set, or from a quarter of the tightest margin to half above it.

    Harm counts only answers that got worse; the gate weighs them against those that got better,
    so that somewhat more harm than the margin may still be no loss.
    """
    if config.epsilons is not None:
        return config.epsilons
    margins = [gate.margin for gate in config.gates if isinstance(gate, NotWorse)] or [0.01]
    return tuple(round(share * min(margins), 6) for share in (0.25, 0.5, 1.0, 1.5))


def cascade_pairs(arms: Sequence[Contender]) -> list[tuple[Contender, Contender]]:
    """Pairs of a lean arm and a fallback worth joining, of arms in order of cost.

    An arm that another beats by a hundredth on dev at no greater cost is no use in front; one
    that another equals for clearly less is no use behind. A fallback need not be better than the
    lean arm overall: their errors differ, and the mean of both is often better than either.
    """
    front = [a for a in arms if not any(_ratio(o) <= _ratio(a) and _gain(o, a) > 0.01 for o in arms)]
    behind = [
        a
        for a in arms
        if not any(
            _ratio(o) < 0.9 * _ratio(a) and _gain(o, a) > -0.0005
            for o in arms
            if o.recipe.family not in STUDENTS
        )
    ]
    return [
        (lean, fallback)
        for lean in front
        for fallback in behind
        if _ratio(lean) < 0.5 * _ratio(fallback) and _gain(fallback, lean) > -0.02
    ]


def _gain(one: Contender, other: Contender) -> float:
    """Dev score of one over the other's."""
    return (one.dev_score or 0.0) - (other.dev_score or 0.0)


def _is_measured(contender: Contender) -> bool:
    return contender.cost is not None and contender.cost.cpu_ratio is not None


def undominated(expected: Sequence[tuple[Contender, float]]) -> list[Contender]:
    """Those that no other beats on dev score at no greater cost; of equals, the first."""
    kept: list[Contender] = []
    best = -1.0
    for contender, _ in sorted(expected, key=lambda pair: (pair[1], -(pair[0].dev_score or 0.0))):
        score = contender.dev_score or 0.0
        if score > best:
            kept.append(contender)
            best = score
    return kept


def _cascades_of(
    workspace: Workspace, incumbent: Contender, lean: Contender, fallback: Contender, findings: Findings
) -> list[Contender]:
    """The cascades of two arms: every epsilon, with the way to answer escalated inputs that dev prefers."""
    has_scope = workspace.task.out_of_scope is not None
    epsilons = epsilons_of(workspace.config)
    middle = sorted(epsilons)[len(epsilons) // 2]
    rivals = [
        made
        for combine in ("fallback", "average")
        if (made := _cascade(workspace, incumbent, (lean, fallback), Plan(middle, combine), findings))
    ]
    if not rivals:
        return []
    combine = max(rivals, key=lambda c: c.dev_score or 0.0).candidate.lineage[-2].settings["combine"]
    scopes = SCOPE_RULES if has_scope else (ScopeRule(),)
    plans = [Plan(epsilon, combine, scope) for epsilon in epsilons for scope in scopes]
    found = [_cascade(workspace, incumbent, (lean, fallback), plan, findings) for plan in plans]
    return [made for made in found if made is not None]


def expected_ratio(
    cascade: Contender, arms: Mapping[str, Contender], known: Mapping[str, float] | None = None
) -> float:
    """Cost of a cascade over the incumbent's, from its arms' and the share of dev it escalates.

    Args:
        cascade: With dev records.
        arms: By name.
        known: Ratios of arms that are not measured themselves, being cascades.
    """
    lean, fallback = (arms[name] for name in cascade.members)
    passed_on = sum(record.arm != "lean" for record in cascade.records) / max(1, len(cascade.records))
    behind = (known or {}).get(fallback.name, _ratio(fallback))
    return _ratio(lean) + passed_on * behind


def _cascade(
    workspace: Workspace,
    incumbent: Contender,
    arms: tuple[Contender, Contender],
    plan: Plan,
    findings: Findings,
) -> Contender | None:
    lean, fallback = arms
    behind = f"({fallback.name})" if fallback.members else fallback.name
    name = f"{lean.name}→{behind} {plan.words}"
    recipe = Recipe(
        name=name,
        steps=({"step": "cascade", "epsilon": plan.epsilon, "combine": plan.combine},),
        family="cascade",
        why=f"{lean.name} answers what it is sure of, {fallback.name} the rest",
    )
    try:
        made = make_cascade(
            lean.candidate,
            fallback.candidate,
            workspace.task.development,
            cache=workspace.cache / "cascades",
            epsilon=plan.epsilon,
            delta=workspace.config.delta,
            combine=plan.combine,
            escalate_flagged=plan.scope.escalate_flagged,
            escalate_below=plan.scope.escalate_below,
            decline_below=plan.scope.decline_below,
            lean_records=lean.records,
            fallback_records=fallback.records,
            incumbent_records=incumbent.records,
        )
    except JettisonError as error:
        findings.tried.append(_not_tried(recipe, str(error), status="failed"))
        return None
    candidate = workspace.calibrated(msgspec.structs.replace(made, name=name))
    contender = first_contender(workspace, candidate, recipe)
    return replace(contender, members=(lean.name, fallback.name))


def tried(contender: Contender, incumbent: Contender, *, status: Status, reason: str) -> Tried:
    """A candidate that was made and evaluated on dev, as the report tells it."""
    score, base = contender.dev_score, incumbent.dev_score
    ratio = contender.cost.cpu_ratio if contender.cost else None
    return Tried(
        name=contender.name,
        steps=contender.words,
        dev_score=score,
        dev_loss_vs_incumbent=None if score is None or base is None else base - score,
        cpu_ratio=None if ratio is None else ratio.value,
        bytes=contender.candidate.artifact_bytes,
        status=status,
        reason=reason,
    )


def _not_tried(
    recipe: Recipe, reason: str, *, status: Status = "dropped", score: float | None = None
) -> Tried:
    return Tried(
        name=recipe.name,
        steps=tuple(describe_step(step) for step in recipe.steps),
        dev_score=score,
        status=status,
        reason=reason,
    )


def _ratio(contender: Contender) -> float:
    """CPU-seconds per task over the incumbent's; the incumbent's own is 1."""
    ratio = contender.cost.cpu_ratio if contender.cost else None
    return 1.0 if ratio is None else ratio.value


def _seconds_per_task(incumbent: Contender) -> float:
    cost = incumbent.cost
    return cost.cpu_s.value if cost is not None and cost.cpu_s is not None else 0.05
