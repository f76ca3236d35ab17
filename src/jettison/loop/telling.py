"""Gathers what the report tells: answers that changed, what was tried, what each step did."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from jettison.candidate import AppliedStep, lineage_by_part
from jettison.decide.pairing import count_flips, pair_records, score_pairs
from jettison.decide.report_types import FlipExample, ReportContent, Tried
from jettison.decision import Decision
from jettison.loop.failures import failure_findings
from jettison.loop.nominate import Ballot
from jettison.loop.search import Findings, tried
from jettison.loop.stages import stage_effects
from jettison.loop.workspace import Contender, Workspace
from jettison.record import Record

N_FLIPS = 60


@dataclass(frozen=True, kw_only=True)
class Answers:
    """The test records of one contender."""

    name: str
    records: Sequence[Record]


def report_content(
    workspace: Workspace,
    incumbent: Contender,
    finalists: Sequence[Contender],
    findings: Findings,
    ballot: Ballot,
    decision: Decision,
    answers: Sequence[Answers],
    inputs: dict[str, str],
) -> ReportContent:
    """Everything the report says, as plain records.

    Args:
        workspace: The run.
        incumbent: What the finalists were compared with.
        finalists: Those put to the test.
        findings: What the search came to.
        ballot: Who was nominated, and the chances that dev predicted.
        decision: The outcome.
        answers: Test records, the incumbent's first.
        inputs: Text of each test example by id.
    """
    chances = {
        o.name: f"{100 * o.chance:.0f} % likely to pass, by dev; least likely: {o.weakest}"
        for o in ballot.outlooks
    }
    measured = (*findings.contenders, *findings.arms, *finalists)
    asked = {c.name: c for c in (incumbent, *measured)}.values()
    stages = stage_effects(workspace, finalists, incumbent, measured=measured)
    put_to_test = [
        msgspec.structs.replace(
            tried(
                c,
                incumbent,
                status="finalist",
                reason=chances.get(c.name, "not cheaper than the incumbent"),
            ),
            stages=stages[c.name],
        )
        for c in finalists
    ]
    names = {c.name for c in finalists}
    others = [
        tried(
            c,
            incumbent,
            status="dropped",
            reason=f"not put to the test: {chances.get(c.name, 'costs too much')}",
        )
        for c in findings.contenders
        if c.name not in names
    ]
    return ReportContent(
        decision=decision,
        flips=tuple(
            flip for other in answers[1:] for flip in flips_of(answers[0], other, inputs, workspace.scorer)
        ),
        flip_counts={
            other.name: count_flips(
                score_pairs(pair_records(answers[0].records, other.records), workspace.scorer)
            )
            for other in answers[1:]
        },
        tried=(*put_to_test, *others, *findings.tried),
        lineage=_lineages([incumbent, *finalists]),
        findings=(*workspace.task.findings, *failure_findings(asked)),
        settings=resolved_settings(workspace),
        kind=workspace.task.kind,
    )


def _lineages(contenders: Sequence[Contender]) -> dict[str, tuple[AppliedStep, ...]]:
    """Steps by name; those of a cascade's arms stand by themselves, unless the arm was tested too."""
    tested = {contender.name for contender in contenders}
    found: dict[str, tuple[AppliedStep, ...]] = {}
    for contender in contenders:
        parts = lineage_by_part(contender.candidate)
        arms = [one for one in parts if one.part not in ("", contender.name)]
        found[contender.name] = tuple(step for one in parts if one not in arms for step in one.steps)
        found |= {f"{contender.name}, its {one.part}": one.steps for one in arms if one.part not in tested}
    return found


def flips_of(
    incumbent: Answers, other: Answers, inputs: dict[str, str], scorer: str = "label"
) -> list[FlipExample]:
    """Answers that changed, harmful ones first and the surest of them on top, at most `N_FLIPS`."""
    theirs = {record.example_id: record for record in incumbent.records}
    found = []
    for record in other.records:
        before = theirs[record.example_id]
        if record.output == before.output:
            continue
        found.append(
            FlipExample(
                candidate=other.name,
                id=record.example_id,
                input=inputs[record.example_id],
                expected=record.expected,
                incumbent_output=before.output,
                candidate_output=record.output,
                incumbent_confidence=before.confidence,
                candidate_confidence=record.confidence,
                slices=record.slices,
                harmful=(record.scores.get(scorer) or 0.0) < (before.scores.get(scorer) or 0.0),
            )
        )
    found.sort(key=lambda flip: (not flip.harmful, -(flip.candidate_confidence or 0.0)))
    return found[:N_FLIPS]


def resolved_settings(workspace: Workspace) -> dict[str, Any]:
    """The run's settings, defaults included."""
    found: dict[str, Any] = msgspec.to_builtins(workspace.config)
    return found


__all__ = ["Answers", "Tried", "report_content"]
