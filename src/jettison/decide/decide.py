"""Turns the evidence of one reading of the test split into a decision.

Candidates come with a role that was fixed before the test split was read. The nominee,
chosen on dev, spends most of the gates' alpha; at most one fallback spends the rest, so
that both together err no more often than the gates say (Bonferroni). Further candidates
are shown for information and cannot be released by this decision. A test split that was read before leaves
half the alpha of the reading before, so that retries together err at most twice alpha, unless a nominee
was picked by what it had shown on this test split (`jettison.stats.spending`). A candidate's own
gates and slices must all hold, which costs no alpha (intersection-union, Berger 1982). A gate that only
blocks what is shown to lose keeps all of its alpha, since its error is to block.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from jettison.decide.costs import judge_at_most, judge_cheaper
from jettison.decide.gates import judge_not_shown_worse, judge_not_worse
from jettison.decide.metrics import arm_shares, slice_counts, summarize
from jettison.decide.pareto import mark_pareto
from jettison.decide.tell import caveats, headline, reasons
from jettison.decision import (
    AtMost,
    CandidateReport,
    CostSummary,
    Decision,
    Gate,
    GateResult,
    NotShownWorse,
    NotWorse,
    Verdict,
)
from jettison.errors import InvalidInput
from jettison.record import Record
from jettison.stats.spending import alpha_share_of_reading

ALPHA_SHARE = {"nominee": 0.8, "fallback": 0.2}
ROLES = ("incumbent", "nominee", "fallback", "shown")


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What was found about one candidate on the test split."""

    name: str
    digest: str
    records: Sequence[Record]
    cost: CostSummary
    role: str
    """`incumbent`, `nominee`, `fallback` or `shown`."""
    steps: tuple[str, ...] = ()
    """The lineage in words."""


def decide(
    task_name: str,
    incumbent: Evidence,
    candidates: Sequence[Evidence],
    gates: Sequence[Gate],
    *,
    test_digest: str,
    n_test_reads: int,
    seed: int,
    machine: Mapping[str, str],
    created: str,
    alpha_share: Mapping[str, float] | None = None,
) -> Decision:
    """Judge every candidate and choose the one to release, if any earned its place.

    Args:
        task_name: For the reader.
        incumbent: Evidence of the model that runs today.
        candidates: At most one nominee and one fallback among them; a fallback needs a nominee.
        gates: All must hold. A candidate that costs no less than the incumbent is never chosen.
        test_digest: Identity of the test split.
        n_test_reads: Decisions that have read this test split, this one included; each spends half the
            alpha of the one before.
        seed: Of the permutation test used with few groups.
        machine: Where it was measured.
        created: When, ISO 8601.
        alpha_share: Share of each gate's alpha by role, summing to at most 1; None gives the
            nominee all of it, or 0.8 beside a fallback with 0.2.

    Raises:
        InvalidInput: Roles, gates or alpha shares that cannot be, or records that do not pair.
    """
    check_roles(candidates)
    if not any(isinstance(gate, NotWorse) for gate in gates):
        raise InvalidInput(
            "gates must hold at least one `not_worse` gate, got none. A cost alone cannot show "
            "that a candidate still does the job."
        )
    left = alpha_share_of_reading(n_test_reads)
    shares = {role: left * share for role, share in alpha_shares(candidates, alpha_share).items()}
    reports = [
        report_candidate(incumbent, evidence, gates, share=shares.get(evidence.role, 1.0), seed=seed)
        for evidence in candidates
    ]
    scorer = next(gate.scorer for gate in gates if isinstance(gate, NotWorse))
    marked = mark_pareto([_incumbent_report(incumbent), *reports], scorer=scorer)
    eligible = [r for role in ("nominee", "fallback") for r in marked if r.role == role]
    chosen = next((r for r in eligible if r.verdict is Verdict.SHIP), None)
    return Decision(
        task=task_name,
        verdict=_verdict(chosen, eligible),
        chosen=chosen.name if chosen else None,
        headline=headline(incumbent.name, chosen, eligible, marked[1:]),
        reasons=reasons(marked[0], chosen, marked[1:]),
        incumbent=incumbent.name,
        candidates=tuple(marked),
        gates=tuple(gates),
        test_digest=test_digest,
        n_test_reads=n_test_reads,
        seed=seed,
        machine=dict(machine),
        created=created,
        caveats=caveats(marked, gates, n_test_reads=n_test_reads, shares=shares),
    )


def report_candidate(
    incumbent: Evidence, candidate: Evidence, gates: Sequence[Gate], *, share: float, seed: int
) -> CandidateReport:
    """Judge one candidate by every gate, spending `share` of the alpha of each gate that lets it pass."""
    results: list[GateResult] = []
    for gate in gates:
        match gate:
            case NotWorse():
                alpha = gate.alpha * share
                judged = judge_not_worse(gate, incumbent.records, candidate.records, alpha=alpha, seed=seed)
                results.extend(judged)
            case NotShownWorse():
                # Its error is a false BLOCK: less alpha would let more harm through, so none is shared out.
                results.extend(judge_not_shown_worse(gate, incumbent.records, candidate.records, seed=seed))
            case AtMost():
                results.append(judge_at_most(gate, candidate.cost))
    results.append(judge_cheaper(incumbent.cost, candidate.cost))
    return CandidateReport(
        name=candidate.name,
        digest=candidate.digest,
        verdict=overall([result.verdict for result in results]),
        role=candidate.role,
        gates=tuple(results),
        scores=summarize(candidate.records),
        n=slice_counts(candidate.records),
        cost=candidate.cost,
        arm_shares=arm_shares(candidate.records),
        steps=tuple(candidate.steps),
    )


def overall(verdicts: Sequence[Verdict]) -> Verdict:
    """SHIP when every gate holds, BLOCK when one is broken, else not enough data."""
    if Verdict.BLOCK in verdicts:
        return Verdict.BLOCK
    if not verdicts or Verdict.NOT_ENOUGH_DATA in verdicts:
        return Verdict.NOT_ENOUGH_DATA
    return Verdict.SHIP


def check_roles(candidates: Sequence[Evidence]) -> None:
    """Refuse roles that would let more than one fixed choice and one fallback be released.

    Raises:
        InvalidInput: An unknown role, two of one eligible role, or a fallback of nobody.
    """
    roles = [evidence.role for evidence in candidates]
    for evidence in candidates:
        if evidence.role not in ROLES[1:]:
            raise InvalidInput(
                f"the role of a candidate must be one of {list(ROLES[1:])}, "
                f"got {evidence.role!r} at {evidence.name}."
            )
    for role in ("nominee", "fallback"):
        if roles.count(role) > 1:
            raise InvalidInput(f"a decision must have at most one {role}, got {roles.count(role)}.")
    if "fallback" in roles and "nominee" not in roles:
        raise InvalidInput("a fallback must stand beside a nominee, got none. Make it the nominee.")
    names = [evidence.name for evidence in candidates]
    repeated = next((name for name in names if names.count(name) > 1), None)
    if repeated is not None:
        raise InvalidInput(f"candidates must have different names, got {repeated!r} twice.")


def alpha_shares(candidates: Sequence[Evidence], given: Mapping[str, float] | None) -> dict[str, float]:
    """Share of alpha by eligible role; together at most 1.

    Raises:
        InvalidInput: A share is out of range, or they sum to more than 1.
    """
    roles = {evidence.role for evidence in candidates} & set(ALPHA_SHARE)
    if given is None:
        return {role: ALPHA_SHARE[role] if "fallback" in roles else 1.0 for role in roles}
    shares = {role: given.get(role, 0.0) for role in roles}
    for role, share in shares.items():
        if not 0 < share <= 1:
            raise InvalidInput(f"the alpha share of the {role} must be in (0, 1], got {share}.")
    if sum(shares.values()) > 1 + 1e-9:
        raise InvalidInput(f"alpha shares must sum to at most 1, got {sum(shares.values()):g}.")
    return shares


def _incumbent_report(incumbent: Evidence) -> CandidateReport:
    return CandidateReport(
        name=incumbent.name,
        digest=incumbent.digest,
        verdict=Verdict.SHIP,
        role="incumbent",
        gates=(),
        scores=summarize(incumbent.records),
        n=slice_counts(incumbent.records),
        cost=incumbent.cost,
        arm_shares=arm_shares(incumbent.records),
        steps=tuple(incumbent.steps),
    )


def _verdict(chosen: CandidateReport | None, eligible: Sequence[CandidateReport]) -> Verdict:
    if chosen is not None:
        return Verdict.SHIP
    if any(report.verdict is Verdict.NOT_ENOUGH_DATA for report in eligible):
        return Verdict.NOT_ENOUGH_DATA
    return Verdict.BLOCK if eligible else Verdict.NOT_ENOUGH_DATA
