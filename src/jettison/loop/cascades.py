"""Cascades of what the search left: every way to join two arms is weighed on dev, the best are made.

Weighing reads the arms' dev records and makes nothing; whatever looks worth it is then made for
real and measured. A cascade's answers on dev are made of what its arms answered there.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import msgspec
import numpy as np

from jettison.compress.cascade import certify_route, make_cascade, stands
from jettison.compress.recipe import Recipe
from jettison.decision import NotWorse
from jettison.errors import JettisonError
from jettison.loop.cascade_pairs import LEANER, cascade_pairs
from jettison.loop.config import RunConfig, default_gates
from jettison.loop.nominate import outlook
from jettison.loop.search import (
    Findings,
    cost_ratio,
    first_contender,
    not_tried,
    traffic_weights,
)
from jettison.loop.workspace import Contender, Workspace
from jettison.record import Record
from jettison.route import Cascade

N_MADE = 5
"""Leanest options that will likely pass, made for real."""
SAFE = 0.97
SAFER = 0.02
"""Chance to pass by which a dearer way to join the same arms must be safer to be made as well."""
N_NESTED = 3
"""Leanest cascades that leaner arms are put in front of."""
N_FRONTS = 2
"""Arms put in front of a cascade of two, one after the other: four answer in turn at most."""


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


SCOPE_RULES = (
    ScopeRule(escalate_below=0.1),
    ScopeRule(escalate_below=0.1, decline_below=0.01),
    ScopeRule(escalate_flagged=False),
    ScopeRule(escalate_flagged=False, decline_below=0.01),
    ScopeRule(escalate_flagged=False, decline_below=0.02),
    ScopeRule(escalate_flagged=False, decline_below=0.03),
)
"""With an out-of-scope label: ask the fallback about the tenth that the lean arm finds oddest; decline
the oddest hundredth at once; or leave scope to the lean arm, and decline none, one, two or three in
a hundred in-scope inputs as plainly out of scope."""


class Plan(NamedTuple):
    """How two arms are joined."""

    epsilon: float
    combine: Literal["fallback", "average"]
    scope: ScopeRule = ScopeRule()

    @property
    def words(self) -> str:
        mean = "mean" if self.combine == "average" else ""
        return " ".join(part for part in (f"@{self.epsilon:g}", mean, self.scope.words) if part)


@dataclass(frozen=True, kw_only=True)
class Option:
    """A cascade that could be made, with what the arms' dev records say it would do."""

    lean: Contender
    fallback: "Contender | Option"
    plan: Plan
    records: tuple[Record, ...]
    ratio: float
    """Expected CPU time over the incumbent's, on the task's mix of inputs."""
    chance: float

    @property
    def arms(self) -> str:
        """The arms in order, joined by arrows: what people call it by."""
        behind = self.fallback.arms if isinstance(self.fallback, Option) else self.fallback.name
        return f"{self.lean.name}→{behind}"

    @property
    def name(self) -> str:
        """The arms and how each two are joined: what tells it from all other options."""
        nested = isinstance(self.fallback, Option)
        behind = f"({self.fallback.name})" if nested else self.fallback.name
        return f"{self.lean.name}→{behind} {self.plan.words}"


def add_cascades(workspace: Workspace, incumbent: Contender, findings: Findings) -> None:
    """Weigh all cascades of the arms that the search left and make the promising; their costs come next."""
    arms = [c for c in (*findings.contenders, *findings.arms) if c.cost and c.cost.ratio]
    arms = sorted((*arms, incumbent), key=cost_ratio)
    pairs = cascade_pairs(arms, incumbent, workspace.scorer)
    options: list[Option] = []
    for index, (lean, fallback) in enumerate(pairs):
        workspace.watcher.stage(f"cascades {index + 1} of {len(pairs)}: {lean.name}→{fallback.name}")
        found = options_of(workspace, incumbent, lean, fallback)
        if not found:
            recipe = Recipe(name=f"{lean.name}→{fallback.name}", steps=({"step": "cascade"},))
            reason = "no threshold could be certified on dev at any epsilon"
            findings.tried.append(not_tried(recipe, reason, status="failed"))
        options += found
    inner = options
    for _ in range(N_FRONTS):
        inner = nested_options(workspace, incumbent, arms, inner)
        options = options + inner
    made = []
    chosen = shortlist(workspace, options)
    for option, name in zip(chosen, short_names(chosen), strict=True):
        workspace.watcher.progress(f"making {option.name}", None)
        made.append(_made(workspace, incumbent, option, name=name))
    findings.contenders += made


def nested_options(
    workspace: Workspace, incumbent: Contender, arms: Sequence[Contender], options: Sequence[Option]
) -> list[Option]:
    """The leanest likely cascades behind each arm that is much leaner than their own lean arm."""
    found = []
    inner = [option for option in options if option.lean is not arms[0]]
    for option in _apart(_leanest(workspace, inner))[:N_NESTED]:
        for arm in arms:
            if cost_ratio(arm) < LEANER * cost_ratio(option.lean):
                found += options_of(workspace, incumbent, arm, option)
    return found


def shortlist(workspace: Workspace, options: Sequence[Option]) -> list[Option]:
    """The leanest that will likely pass, a safer one, and when none is likely, the likeliest."""
    chosen = _apart(_leanest(workspace, options))[:N_MADE]
    chosen += [o for o in sorted(options, key=lambda o: o.ratio) if o.chance >= SAFE][:1]
    if not chosen:
        chosen = sorted(options, key=lambda o: -o.chance)[:1]
    return list({option.name: option for option in chosen}.values())


def _apart(options: Sequence[Option]) -> list[Option]:
    """Of each set of arms the leanest option, then only what is safer than the leaner ones."""
    kept: list[Option] = []
    safest: dict[str, float] = {}
    for option in options:
        if option.chance >= safest.get(option.arms, -1.0) + SAFER:
            kept.append(option)
            safest[option.arms] = option.chance
    return kept


def short_names(options: Sequence[Option]) -> list[str]:
    """A name for each that a report can say: its arms, numbered where several have the same."""
    found: list[str] = []
    for index, option in enumerate(options):
        n_before = sum(other.arms == option.arms for other in options[:index])
        found.append(option.arms if n_before == 0 else f"{option.arms} #{n_before + 1}")
    return found


def options_of(
    workspace: Workspace, incumbent: Contender, lean: Contender, fallback: Contender | Option
) -> list[Option]:
    """Every way to join two arms for which a threshold can be certified."""
    scopes = _scope_rules(workspace)
    ways: tuple[Literal["fallback", "average"], ...] = ("fallback", "average")
    if isinstance(fallback, Option) or not _can_average(lean, fallback):
        ways = ("fallback",)
    found = []
    for scope in scopes:
        for epsilon in epsilons_of(workspace.config):
            for combine in ways:
                option = _option(workspace, incumbent, lean, fallback, Plan(epsilon, combine, scope))
                found += [] if option is None else [option]
    return found


def _scope_rules(workspace: Workspace) -> tuple[ScopeRule, ...]:
    """Ways to treat what looks out of scope, as far as the run's settings leave a choice."""
    if workspace.task.out_of_scope is None:
        return (ScopeRule(),)
    if workspace.config.when_out_of_scope not in ("answer", "escalate"):
        return SCOPE_RULES
    escalates = workspace.config.when_out_of_scope == "escalate"
    kept = [r for r in SCOPE_RULES if r.escalate_flagged == escalates and r.decline_below is None]
    return tuple(kept)


def _can_average(lean: Contender, fallback: Contender) -> bool:
    """Whether both arms give logits of the same labels."""
    return bool(lean.candidate.labels) and all(
        any(record.logits is not None for record in arm.records[:20]) for arm in (lean, fallback)
    )


def epsilons_of(config: RunConfig) -> tuple[float, ...]:
    """Harm to certify cascades to: as set, or from a quarter of the tightest margin to half above it.

    Harm counts only answers that got worse; the gate weighs them against those that got better,
    so that somewhat more harm than the margin may still be no loss.
    """
    if config.epsilons is not None:
        return config.epsilons
    not_worse = [gate for gate in config.gates if isinstance(gate, NotWorse)]
    tightest = min((m for gate in not_worse for m in (gate.margin, *gate.margins.values())), default=0.01)
    return tuple(round(share * tightest, 6) for share in (0.25, 0.5, 1.0, 1.5))


def _option(
    workspace: Workspace, incumbent: Contender, lean: Contender, fallback: Contender | Option, plan: Plan
) -> Option | None:
    task, config = workspace.task, workspace.config
    try:
        route = certify_route(
            lean.candidate,
            task.development,
            lean_records=lean.records,
            incumbent_records=incumbent.records,
            epsilon=plan.epsilon,
            delta=config.delta,
            escalate_flagged=plan.scope.escalate_flagged,
            combine=plan.combine,
            escalate_below=plan.scope.escalate_below,
            decline_below=plan.scope.decline_below,
            scorer=workspace.scorer,
        ).route
    except JettisonError:
        return None
    records = weigh(workspace, lean, fallback, route, plan)
    weights = traffic_weights(workspace)
    escalated = sum(w for w, record in zip(weights, records, strict=True) if record.escalated)
    behind = fallback.ratio if isinstance(fallback, Option) else cost_ratio(fallback)
    gates = config.gates or default_gates(task.required_slices, task.out_of_scope, workspace.scorer)
    quality = [gate for gate in gates if isinstance(gate, NotWorse)]
    seen = outlook(
        replace(lean, records=records), incumbent, quality, n_test=task.slice_counts, seed=config.seed
    )
    ratio = cost_ratio(lean) + escalated / sum(weights) * behind
    return Option(lean=lean, fallback=fallback, plan=plan, records=records, ratio=ratio, chance=seen.chance)


def weigh(
    workspace: Workspace, lean: Contender, fallback: Contender | Option, route: Cascade, plan: Plan
) -> tuple[Record, ...]:
    """The dev records that a cascade would give, computed from those of its arms."""
    outside, by_flag = lean.candidate.out_of_scope, plan.scope.escalate_flagged
    average = plan.combine == "average" and isinstance(fallback, Contender)
    found = []
    for ours, theirs in zip(lean.records, fallback.records, strict=True):
        if stands(ours, route, out_of_scope=outside, escalate_flagged=by_flag):
            found.append(msgspec.structs.replace(ours, escalated=False))
            continue
        label, in_scope, scores = theirs.output, theirs.in_scope, theirs.scores
        if average and isinstance(fallback, Contender):
            label = _label_of_mean(lean, fallback, ours, theirs)
            if ours.in_scope is not None and theirs.in_scope is not None:
                in_scope = (ours.in_scope + theirs.in_scope) / 2
            scores = {**scores, "label": float(label == theirs.expected)}
        found.append(
            msgspec.structs.replace(theirs, output=label, in_scope=in_scope, scores=scores, escalated=True)
        )
    return tuple(found) if outside is None else _flagged_anew(workspace, found, outside)


def _label_of_mean(lean: Contender, fallback: Contender, ours: Record, theirs: Record) -> str | None:
    if ours.logits is None or theirs.logits is None:
        return theirs.output
    mean = np.asarray(ours.logits) / lean.candidate.calibration.temperature
    mean += np.asarray(theirs.logits) / fallback.candidate.calibration.temperature
    return lean.candidate.labels[int(mean.argmax())]


def _flagged_anew(workspace: Workspace, records: Sequence[Record], outside: str) -> tuple[Record, ...]:
    """Flags by the rank among the whole cascade's in-scope examples, as its calibration will set them."""
    fit = {example.id for example in workspace.task.development.dev_fit if example.expected != outside}
    reference = [r.in_scope for r in records if r.example_id in fit and r.in_scope is not None]
    if not reference:
        return tuple(records)
    limit = float(np.quantile(reference, workspace.config.false_alarm_share))
    abstain = workspace.config.when_out_of_scope == "abstain"
    found = []
    for record in records:
        flagged = record.in_scope is not None and record.in_scope < limit
        scores = {**record.scores, "out_of_scope": float(flagged == (record.expected == outside))}
        if flagged and abstain:
            scores["label"] = float(record.expected == outside)
            record = msgspec.structs.replace(record, output=outside, abstained=True)
        found.append(msgspec.structs.replace(record, flagged=flagged, scores=scores))
    return tuple(found)


def _leanest(workspace: Workspace, options: Sequence[Option]) -> list[Option]:
    """Those that will likely pass, leanest first."""
    likely = [option for option in options if option.chance >= workspace.config.nominate_at]
    return sorted(likely, key=lambda option: (option.ratio, option.name))


def _made(
    workspace: Workspace, incumbent: Contender, option: Option, *, name: str | None = None
) -> Contender:
    """The option as a real candidate, evaluated on dev as it lies on disk."""
    name, fallback = name or option.name, option.fallback
    behind = _made(workspace, incumbent, fallback) if isinstance(fallback, Option) else fallback
    plan = option.plan
    made = make_cascade(
        option.lean.candidate,
        behind.candidate,
        workspace.task.development,
        cache=workspace.cache / "cascades",
        epsilon=plan.epsilon,
        delta=workspace.config.delta,
        combine=plan.combine,
        escalate_flagged=plan.scope.escalate_flagged,
        escalate_below=plan.scope.escalate_below,
        decline_below=plan.scope.decline_below,
        scorer=workspace.scorer,
        lean_records=option.lean.records,
        fallback_records=behind.records,
        incumbent_records=incumbent.records,
    )
    recipe = Recipe(
        name=name,
        steps=({"step": "cascade", "epsilon": plan.epsilon, "combine": plan.combine},),
        family="cascade",
        why=f"{option.lean.name} answers what it is sure of, {behind.name} the rest",
    )
    candidate = workspace.calibrated(msgspec.structs.replace(made, name=name))
    contender = first_contender(workspace, candidate, recipe)
    return replace(contender, members=(option.lean.name, behind.name))
