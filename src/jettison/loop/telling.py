"""Gathers what the report tells: answers that changed, what was tried, what each step did."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from jettison.candidate import Candidate
from jettison.decide.report_types import FlipExample, ReportContent, StageEffect, Tried
from jettison.decision import Decision
from jettison.loop.nominate import Ballot
from jettison.loop.search import N_FIRST_LOOK, Findings, tried
from jettison.loop.workspace import Contender, Workspace
from jettison.record import Record, mean_score

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
        o.name: f"{o.chance:.0%} likely to pass, by dev; weakest: {o.weakest}" for o in ballot.outlooks
    }
    put_to_test = [
        msgspec.structs.replace(
            tried(
                c,
                incumbent,
                status="finalist",
                reason=chances.get(c.name, "not cheaper than the incumbent"),
            ),
            stages=stage_effects(workspace, c, incumbent),
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
        flips=tuple(flip for other in answers[1:] for flip in flips_of(answers[0], other, inputs)),
        tried=(*put_to_test, *others, *findings.tried),
        lineage={c.name: c.candidate.lineage for c in (incumbent, *finalists)},
        findings=workspace.task.findings,
        settings=resolved_settings(workspace),
    )


def flips_of(incumbent: Answers, other: Answers, inputs: dict[str, str]) -> list[FlipExample]:
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
                harmful=bool(before.scores.get("label") == 1.0 and record.scores.get("label") == 0.0),
            )
        )
    found.sort(key=lambda flip: (not flip.harmful, -(flip.candidate_confidence or 0.0)))
    return found[:N_FLIPS]


def stage_effects(
    workspace: Workspace, contender: Contender, incumbent: Contender
) -> tuple[StageEffect, ...]:
    """What each step of a recipe changed, on the first dev examples: score, size."""
    chain = intermediate_candidates(workspace, contender.candidate)
    base = mean_score(incumbent.records[:N_FIRST_LOOK], "label")
    effects = []
    for step, candidate in chain:
        score = mean_score(workspace.records(candidate, workspace.dev[:N_FIRST_LOOK], "dev"), "label")
        effects.append(
            StageEffect(
                step=step,
                dev_loss=None if base is None or score is None else base - score,
                bytes=candidate.artifact_bytes,
                note=f"on {min(N_FIRST_LOOK, len(workspace.dev))} dev examples",
            )
        )
        base = score
    return tuple(effects)


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


def resolved_settings(workspace: Workspace) -> dict[str, Any]:
    """The run's settings, defaults included."""
    found: dict[str, Any] = msgspec.to_builtins(workspace.config)
    return found


__all__ = ["Answers", "Tried", "report_content"]
