"""The decision of a run: the test split is read once for its question, and its answer is kept."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from jettison.backends.machine import answering_machine, describe_machine
from jettison.decide.decide import Evidence, decide
from jettison.decide.render import read_decision, write_decision
from jettison.decision import CostSummary, Decision, Gate
from jettison.errors import CannotWrite
from jettison.files import value_sha256, write_json
from jettison.loop.nominate import Ballot
from jettison.loop.remote_words import why_no_money
from jettison.loop.safety import safety_records
from jettison.loop.search import (
    NO_TIME,
    Findings,
)
from jettison.loop.telling import Answers
from jettison.loop.workspace import Contender, Workspace
from jettison.task import Example, TestReading


@dataclass(frozen=True, kw_only=True)
class Judged:
    """A decision with the test records it was made of."""

    decision: Decision
    examples: tuple[Example, ...]
    answers: tuple[Answers, ...]
    """The incumbent's first."""
    probes: tuple[Example, ...] = ()
    """Safety probes, whose records stand among the answers."""


def decide_on_test(
    workspace: Workspace,
    incumbent: Contender,
    finalists: Sequence[Contender],
    ballot: Ballot,
    gates: Sequence[Gate],
    probes: Sequence[Example],
    findings: Findings,
) -> Judged:
    """Read the test split, once for this question, and decide; a finished decision is kept as it is."""
    task = workspace.task
    contenders = [incumbent, *finalists]
    # The question is about those that may be released. What else is shown is no part of it: a later run
    # that found more to show, and nominates the same, asks the same.
    asked = [incumbent, *(c for c in finalists if c.name in (ballot.nominee, ballot.fallback))]
    if len(asked) == 1:
        asked = contenders
    purpose = value_sha256(
        {
            "task": task.development.digest,
            "test": task.test_digest,
            "candidates": [c.candidate.digest for c in asked],
            "roles": [ballot.nominee, ballot.fallback],
            "gates": gates,
            **({"probes": [probe.id for probe in probes]} if probes else {}),
            "seed": workspace.config.seed,
        }
    )
    workspace.watcher.stage("the decision, on the test split")
    reading = _read_test(workspace, purpose, is_choice=bool(finalists))
    examples = workspace.slicer.apply(reading.examples)
    # A cascade answers from what its arms answered: they come first.
    order = sorted(contenders, key=lambda contender: contender.candidate.backend == "cascade")
    keep_logits = reads_logits(contenders)
    for contender in order:
        workspace.watcher.progress(f"asking {contender.name}", None)
        workspace.records(contender.candidate, examples, "test", keep_logits=keep_logits)
    evidence = []
    for contender in contenders:
        role = _role(contender, incumbent, ballot)
        records = workspace.records(contender.candidate, examples, "test", keep_logits=keep_logits)
        records += safety_records(workspace, contender.candidate, probes)
        evidence.append(
            Evidence(
                name=contender.name,
                digest=contender.candidate.digest,
                records=records,
                cost=contender.cost or CostSummary(),
                role=role,
                steps=contender.words,
            )
        )
    kept = workspace.cache / "decisions" / _evidence_key(purpose, evidence)[:20] / "decision.json"
    decision = read_decision(kept) if kept.exists() else None
    if decision is None or {c.name for c in decision.candidates} != {e.name for e in evidence}:
        decision = decide(
            task.name,
            evidence[0],
            evidence[1:],
            gates,
            test_digest=task.test_digest,
            n_test_reads=reading.n_reads,
            seed=workspace.config.seed,
            machine={**describe_machine(), "threads": str(workspace.config.threads)},
            created=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        )
        write_json(kept, decision)
    untested = _why_untested(workspace, findings) if not finalists else ""
    if untested:
        decision = msgspec.structs.replace(decision, reasons=(untested,))
    no_money = why_no_money(incumbent, workspace.config.usd_per_hour)
    if no_money and ballot.nominee is None:
        decision = msgspec.structs.replace(decision, reasons=(no_money, *decision.reasons))
    write_decision(workspace.folder, decision)
    answers = tuple(Answers(name=e.name, records=e.records) for e in evidence)
    return Judged(decision=decision, examples=examples, answers=answers, probes=tuple(probes))


def _why_untested(workspace: Workspace, findings: Findings) -> str:
    """Why nothing was put to the test, where time was what lacked or nothing could be made."""
    n_late = sum(one.reason.startswith(NO_TIME) for one in findings.tried)
    if not n_late:
        failed = [one for one in findings.tried if one.status == "failed"]
        if not failed or len(failed) < len(findings.tried):
            return ""
        return (
            f"None of {len(failed)} recipes could be made; the first, {failed[0].name}: {failed[0].reason}"
        )
    budget = workspace.config.budget
    told = f"{budget:g} s" if isinstance(budget, int | float) else budget
    return (
        f"{n_late} of {len(findings.tried)} recipes had no time in the budget of {told}. Give it more with "
        "`--budget`, or `budget` in jettison.toml."
    )


def _read_test(workspace: Workspace, purpose: str, *, is_choice: bool) -> TestReading:
    """The test examples; where the task's folder is read-only the ledger stands in the run's own.

    A suite holds the test split of the task it was built of, whose readings count on.
    """
    readings = []
    for task in (workspace.task, workspace.whole):
        if task is None:
            continue
        try:
            readings.append(task.read_test(purpose=purpose, is_choice=is_choice))
        except CannotWrite:
            ledger = workspace.folder / "test_reads.jsonl"
            readings.append(task.read_test(purpose=purpose, ledger=ledger, is_choice=is_choice))
    n_reads = max(reading.n_reads for reading in readings)
    return msgspec.structs.replace(readings[0], n_reads=n_reads)


def _role(contender: Contender, incumbent: Contender, ballot: Ballot) -> str:
    if contender is incumbent:  # a candidate that came out as the same model is another contender
        return "incumbent"
    if contender.name == ballot.nominee:
        return "nominee"
    return "fallback" if contender.name == ballot.fallback else "shown"


def _evidence_key(purpose: str, evidence: Sequence[Evidence]) -> str:
    """The question with all that may change its answer: records but for their time, costs, this machine."""
    told = [
        [e.name, e.role, e.cost, [msgspec.structs.replace(r, time=None) for r in e.records]]
        for e in evidence
    ]
    return value_sha256([purpose, told, answering_machine()])


def reads_logits(contenders: Sequence[Contender]) -> bool:
    """Whether records must hold logits: a cascade among them may take the mean of its arms'."""
    return any(contender.candidate.backend == "cascade" for contender in contenders)
