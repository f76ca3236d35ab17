"""What each step of a recipe changed: score, CPU time and size, on dev."""

from collections.abc import Mapping, Sequence

from jettison.backends.machine import answering_machine
from jettison.candidate import Candidate
from jettison.cost.measure import measure_costs
from jettison.decide.report_types import StageEffect
from jettison.evaluate.recalibrate import uncalibrated
from jettison.files import read_json, value_sha256, write_json
from jettison.loop.search import cost_inputs, first_look
from jettison.loop.workspace import Contender, Workspace
from jettison.record import mean_score

COST_S = 1.0
"""Seconds of measuring for each stage: enough to tell a halving from nothing."""
OPEN_S = 4.0
"""Seconds that opening one takes on top: without them in the budget, no stage is measured."""


def stage_effects(
    workspace: Workspace,
    finalists: Sequence[Contender],
    incumbent: Contender,
    *,
    measured: Sequence[Contender] = (),
) -> dict[str, tuple[StageEffect, ...]]:
    """Effects of the steps behind each finalist, by its name.

    Args:
        workspace: The run.
        finalists: Whose steps are told.
        incumbent: What the first step started from.
        measured: Contenders with costs; what came before their calibration costs the same, and is not
            measured again. Of two of one candidate the last counts.
    """
    chains = {c.name: intermediate_candidates(workspace, c.candidate) for c in finalists}
    stages = {candidate.digest: candidate for chain in chains.values() for _, candidate in chain}
    ratios: dict[str, float | None] = {}
    for contender in measured:
        raw = uncalibrated(contender.candidate)
        if raw is not None and contender.cost is not None and contender.cost.cpu_ratio is not None:
            ratios[raw.digest] = contender.cost.cpu_ratio.value
    rest = [stage for stage in stages.values() if stage.digest not in ratios]
    ratios |= _cpu_ratios(workspace, incumbent.candidate, rest)
    return {name: _effects(workspace, chain, incumbent, ratios) for name, chain in chains.items()}


def intermediate_candidates(workspace: Workspace, final: Candidate) -> list[tuple[str, Candidate]]:
    """The candidates along a lineage that still lie in the cache, first step first."""
    by_digest: dict[str, Candidate] = {}
    for folder in sorted((workspace.cache / "steps").glob("*/candidate.json")):
        candidate = Candidate.at(folder.parent)
        by_digest[candidate.digest] = candidate
    chain = []
    following = [applied.parents[0] for applied in final.lineage[1:] if applied.parents]
    for applied, digest in zip(final.lineage, [*following, final.digest], strict=False):
        made = final if digest == final.digest else by_digest.get(digest)
        if made is not None and applied.step not in ("calibrate", "cascade"):
            chain.append((applied.step, made))
    return chain


def _effects(
    workspace: Workspace,
    chain: Sequence[tuple[str, Candidate]],
    incumbent: Contender,
    ratios: Mapping[str, float | None],
) -> tuple[StageEffect, ...]:
    looked_at = first_look(workspace)
    base = mean_score(incumbent.records_of(looked_at), workspace.scorer)
    cpu: float | None = 1.0
    effects = []
    for step, candidate in chain:
        look = workspace.records(candidate, looked_at, "dev")
        score = mean_score(look, workspace.scorer)
        after = ratios.get(candidate.digest)
        effects.append(
            StageEffect(
                step=step,
                dev_loss=None if base is None or score is None else base - score,
                cpu_ratio=None if cpu is None or after is None else after / cpu,
                bytes=candidate.artifact_bytes,
                note=f"on {len(looked_at)} dev examples{_draw_of(step, candidate)}",
            )
        )
        base, cpu = score, after
    return tuple(effects)


def _draw_of(step: str, candidate: Candidate) -> str:
    """Of how many texts the step drew those it learned from, in words; nothing where it took all."""
    applied = next((one for one in reversed(candidate.lineage) if one.step == step), None)
    drawn = None if applied is None else applied.notes.get("drawn")
    return "" if drawn is None else f"; learned from {drawn['texts']:,} of {drawn['of']:,} texts"


def _cpu_ratios(
    workspace: Workspace, incumbent: Candidate, stages: Sequence[Candidate]
) -> dict[str, float | None]:
    """CPU-seconds per task of each stage over the incumbent's, interleaved in one run; kept."""
    candidates = sorted((c for c in stages if c.digest != incumbent.digest), key=lambda c: c.digest)
    found: dict[str, float | None] = {incumbent.digest: 1.0}
    if not candidates:
        return found
    inputs = cost_inputs(workspace)
    threads = workspace.config.threads
    measured = [incumbent.digest, [c.digest for c in candidates], inputs, threads, answering_machine()]
    key = value_sha256(measured)
    path = workspace.cache / "costs" / f"stages-{key[:20]}.json"
    if path.exists():
        return {**found, **read_json(path, dict[str, float | None])}
    left_s = workspace.clock.budget_left_s()
    if left_s is not None and left_s < (COST_S + OPEN_S) * (len(candidates) + 1):
        workspace.watcher.found("cost of each step: not measured, no time left in the budget")
        return found
    workspace.watcher.progress("cost of each step", None)
    costs = measure_costs(
        [incumbent, *candidates],
        inputs,
        rounds=6,
        openings=1,
        twin=False,
        seed=workspace.config.seed,
        threads=workspace.config.threads,
        budget_s=COST_S * (len(candidates) + 1),
        wall_s=left_s,
        throughput=False,
    )
    for candidate, cost in zip(candidates, costs[1:], strict=True):
        found[candidate.digest] = cost.cpu_ratio.value if cost.cpu_ratio else None
    write_json(path, found)
    return found
