"""What the suites showed of each finalist, for the report: curves, tiers, found slices, attacks."""

import os
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np

from jettison.compress.incumbent_language import is_language
from jettison.decide.curves import as_stored, confidence_curves, with_refuted, written_by_users
from jettison.decide.pairing import record_score
from jettison.decide.report_evidence import (
    AttackOutcome,
    LostExample,
    SliceSearch,
    SuiteEvidence,
    WorstSlice,
)
from jettison.decide.slices import in_slice
from jettison.decide.suite_comparisons import suite_comparisons
from jettison.errors import NotEnoughData
from jettison.evaluate.suites.attack import CODE_VERSION, Attack, attack_records
from jettison.evaluate.suites.discover import Discovery, FoundSlice, discover_slices
from jettison.files import read_json, value_sha256, write_json
from jettison.loop.suite_run import notes_of, tier_counts
from jettison.loop.suites import Attacked, attacked_candidate, drawn, judge_robust
from jettison.loop.telling import Answers
from jettison.loop.workspace import Contender, Workspace
from jettison.record import Record
from jettison.stats.clustered import mean_difference_ci
from jettison.stats.group_jackknife import DIFFERENCE
from jettison.task import Example

ATTACKED = 100
MOST_EXAMPLES = 10
LEAST_ATTACKED = 20
"""Fewer right answers leave the share of success unknown within twenty points."""


def suite_evidence(
    workspace: Workspace,
    contenders: Sequence[Contender],
    answers: Sequence[Answers],
    examples: Sequence[Example],
) -> SuiteEvidence:
    """Everything the report shows beside the gates; nothing here decides.

    Args:
        workspace: The run.
        contenders: The incumbent first.
        answers: Their test records, in the same order.
        examples: The test examples.
    """
    base, *others = answers
    known = {example.id for example in examples}
    of_task = [r for r in base.records if r.example_id in known]
    scorer = workspace.scorer
    unfitted = {example.id for example in workspace.task.development.dev_certify}
    curves = [
        confidence_curves(
            one.name,
            [r for r in one.records if r.example_id in known],
            None if one is base else of_task,
            scorer,
            dev=[r for r in contender.records if r.example_id in unfitted],
        )
        for one, contender in zip(answers, contenders, strict=True)
    ]
    comparisons = [
        row
        for one in others
        for row in suite_comparisons(
            one.name,
            of_task,
            [r for r in one.records if r.example_id in known],
            scorer=scorer,
            seed=workspace.config.seed,
        )
    ]
    searches = [slice_search(workspace, base, one, examples) for one in others]
    attacks = attack_outcomes(workspace, contenders, answers, examples)
    notes = [
        one for one in notes_of(workspace.suite) if not (attacks and one.startswith("tier adversarial:"))
    ]
    return SuiteEvidence(
        curves=with_refuted([one for one in curves if one is not None]),
        comparisons=tuple(comparisons),
        searches=tuple(one for one in searches if one is not None),
        attacks=attacks,
        tiers=tier_counts(workspace.suite),
        not_built=tuple(notes),
    )


def slice_search(
    workspace: Workspace, incumbent: Answers, other: Answers, examples: Sequence[Example]
) -> SliceSearch | None:
    """Subgroups of what users wrote in which a candidate loses more; None where there is too little."""
    scorer = workspace.scorer
    theirs = {r.example_id: r for r in incumbent.records}
    mine = {r.example_id: r for r in other.records}
    on = written_by_users(list(incumbent.records))
    judged: list[Example] = []
    loss: list[float] = []
    for example in examples:
        if example.id not in theirs or not in_slice(theirs[example.id], on):
            continue
        before = record_score(theirs[example.id], scorer)
        after = record_score(mine[example.id], scorer)
        if before is not None and after is not None:
            judged.append(example)
            loss.append(before - after)
    try:
        found = discover_slices(judged, loss, seed=workspace.config.seed)
    except NotEnoughData:
        return None
    slices = [_worst(other.name, one, judged, np.array(loss), mine) for one in found.found]
    return _searched(other.name, found, slices)


def attack_outcomes(
    workspace: Workspace,
    contenders: Sequence[Contender],
    answers: Sequence[Answers],
    examples: Sequence[Example],
) -> tuple[AttackOutcome, ...]:
    """Each contender under its own attack, as `[suites] attacked` says; finished attacks are kept."""
    settings = workspace.config.suites
    if settings is None or workspace.task.kind in ("choose", "rank"):
        return ()
    n = settings.attacked
    if n is None:
        n = 0 if is_language(contenders[0].candidate) else ATTACKED
    on = written_by_users(list(answers[0].records))
    inside = {r.example_id for r in answers[0].records if in_slice(r, on)}
    some = drawn([e for e in examples if e.id in inside], n, seed=workspace.config.seed)
    if len(some) < LEAST_ATTACKED:
        return ()
    found: list[Attacked] = []
    for index, contender in enumerate(contenders):
        workspace.watcher.stage(f"attack {index + 1} of {len(contenders)}: {contender.name}")
        found.append(_attacked(workspace, contender, some, budget=settings.budget))
    return tuple(_outcome(one, found[0], budget=settings.budget) for one in found)


def _attacked(
    workspace: Workspace, contender: Contender, examples: Sequence[Example], *, budget: int
) -> Attacked:
    candidate = contender.candidate
    key = value_sha256(
        [CODE_VERSION, candidate.digest, [(e.id, e.input) for e in examples], budget, workspace.config.seed]
    )
    kept: Path = workspace.cache / "attacks" / f"{key[:20]}.json"
    if kept.exists():
        attacks = read_json(kept, tuple[Attack, ...])
        records = attack_records(attacks, digest=candidate.digest)
        return Attacked(name=contender.name, digest=candidate.digest, attacks=attacks, records=records)
    if candidate.backend == "hf":
        cores = workspace.config.training_threads or os.cpu_count() or 1
        candidate = msgspec.structs.replace(candidate, settings={**candidate.settings, "threads": cores})
    made = attacked_candidate(
        candidate,
        workspace.task,
        examples,
        name=contender.name,
        budget=budget,
        seed=workspace.config.seed,
        progress=workspace.watcher.progress,
    )
    write_json(kept, made.attacks)
    return made


def _outcome(one: Attacked, incumbent: Attacked, *, budget: int) -> AttackOutcome:
    difference = None
    if one is not incumbent:
        # The margin plays no part in the interval.
        difference = judge_robust(incumbent, one, margin=0.1).difference
    won = [attack for attack in one.attacks if attack.succeeded]
    return AttackOutcome(
        candidate=one.name,
        n=len(one.attacks),
        n_right=one.n_right,
        success=None if one.success_share is None else as_stored(one.success_share),
        mean_queries=one.mean_queries,
        budget=budget,
        robust_difference=difference,
        examples=tuple(
            LostExample(text=a.text, before=a.example.input, expected=a.example.expected, answer=a.answer)
            for a in won[:MOST_EXAMPLES]
        ),
    )


def _worst(
    name: str, one: FoundSlice, judged: Sequence[Example], loss: np.ndarray, mine: dict[str, Record]
) -> WorstSlice:
    tested = list(one.confirmed_on)
    groups = [judged[i].group or f"\0{judged[i].id}" for i in tested]
    lost_here = loss[tested]
    bounds = DIFFERENCE if np.isin(lost_here, (-1.0, 0.0, 1.0)).all() else None
    seen = mean_difference_ci(lost_here, np.zeros(len(tested)), groups=groups, bounds=bounds)
    lost = [judged[i] for i in one.members if loss[i] > 0][:MOST_EXAMPLES]
    return WorstSlice(
        candidate=name,
        name=one.name,
        n=one.n,
        loss=one.loss,
        low=seen.low,
        high=seen.high,
        rest_loss=one.rest_loss,
        p_value=one.p_value,
        examples=tuple(
            LostExample(text=e.input, expected=e.expected, answer=mine[e.id].output) for e in lost
        ),
    )


def _searched(name: str, found: Discovery, slices: Sequence[WorstSlice]) -> SliceSearch:
    return SliceSearch(
        candidate=name,
        n_searched=found.n_searched,
        n_tested=found.n_tested,
        n_validate=found.n_validate,
        alpha=found.alpha,
        found=tuple(slices),
    )
