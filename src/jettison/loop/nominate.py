"""Who is put to the test: chosen on dev alone, by the predicted chance to pass and the cost."""

from collections.abc import Sequence

import msgspec

from jettison.decide.costs import judge_at_most
from jettison.decide.gates import margin_on
from jettison.decide.pairing import ScoredPair, count_flips, pair_records, score_pairs
from jettison.decide.slices import columns, expand_slices, in_slice
from jettison.decision import AtMost, CostSummary, Gate, NotShownWorse, NotWorse, Verdict
from jettison.loop.workspace import Contender
from jettison.record import Record
from jettison.stats.clustered import group_sums
from jettison.stats.group_planning import pass_probability_by_group
from jettison.stats.planning import pass_probability

AS_LIKELY = 0.9
"""Share of the best chance from which another counts as likely as it: two flips on dev make a tenth."""


class Outlook(msgspec.Struct, frozen=True, kw_only=True):
    """What dev predicts of one candidate's decision."""

    name: str
    chance: float
    """Predicted probability of passing every gate on test."""
    weakest: str
    """The gate and slice most likely to fail, in words."""
    quality: float
    """The same for the gates on quality alone, whatever it costs."""


class Ballot(msgspec.Struct, frozen=True, kw_only=True):
    """The roles candidates play in the decision, by name."""

    nominee: str | None
    fallback: str | None
    shown: tuple[str, ...]
    outlooks: tuple[Outlook, ...]


def nominate(
    contenders: Sequence[Contender],
    incumbent: Contender,
    gates: Sequence[Gate],
    *,
    n_test: dict[str, int],
    nominate_at: float,
    n_shown: int,
    seed: int,
) -> Ballot:
    """Pick the cheapest candidate that dev expects to pass, a safer fallback, and others to show.

    Args:
        contenders: Candidates with dev records and costs, without the incumbent.
        incumbent: The model they replace.
        gates: What must hold.
        n_test: Test examples per slice (counts only).
        nominate_at: Least chance at which the cheapest wins over a safer one.
        n_shown: Others to measure on test for the report.
        seed: Of the simulation behind the chances.
    """
    cheaper = [c for c in contenders if _is_cheaper(c.cost)]
    outlooks = [outlook(c, incumbent, gates, n_test=n_test, seed=seed) for c in cheaper]
    chance = {o.name: o.chance for o in outlooks}
    if not any(chance.values()):
        # A limit of cost that nobody keeps to: the best in quality tells more than the worst, and the limit
        # may hold yet when costs are measured thoroughly.
        chance = {o.name: o.quality for o in outlooks}
    by_cost = sorted(cheaper, key=lambda c: (_cpu(c.cost), c.name))
    likeliest = max(chance.values(), default=0.0)
    # Where none is likely, a cost several times as high must not be the price of half a point.
    least = nominate_at if likeliest >= nominate_at else AS_LIKELY * likeliest
    nominee = simplest_of_cheapest([c for c in by_cost if chance[c.name] >= least])
    fallback = None
    if nominee is not None:
        safer = [c for c in by_cost if c is not nominee and chance[c.name] > chance[nominee.name]]
        safest = max((chance[c.name] for c in safer), default=0.0)
        fallback = simplest_of_cheapest([c for c in safer if chance[c.name] == safest])
    eligible = {c.name for c in (nominee, fallback) if c is not None}
    others = [c for c in contenders if c.name not in eligible]
    return Ballot(
        nominee=nominee.name if nominee else None,
        fallback=fallback.name if fallback else None,
        shown=tuple(c.name for c in _worth_showing(others)[:n_shown]),
        outlooks=tuple(outlooks),
    )


def simplest_of_cheapest(likely: Sequence[Contender]) -> Contender | None:
    """The cheapest, or the simplest of those whose cost cannot be told from its: fewest arms first."""
    if not likely:
        return None
    best = min(likely, key=lambda c: (_cpu(c.cost), c.name))
    assert best.cost is not None
    assert best.cost.ratio is not None
    reach = 1.02 * best.cost.ratio.high
    level = [c for c in likely if c.cost and c.cost.ratio and c.cost.ratio.low <= reach]
    return min(level, key=lambda c: (len(c.members), _cpu(c.cost), c.name))


def outlook(
    contender: Contender, incumbent: Contender, gates: Sequence[Gate], *, n_test: dict[str, int], seed: int
) -> Outlook:
    """The chance that one candidate passes every gate on a test split of the given size."""
    chance, quality, weakest, least = 1.0, 1.0, "none", 1.1
    for gate in gates:
        for label, part in _chances(gate, contender, incumbent.records, n_test=n_test, seed=seed):
            chance *= part
            quality *= part if isinstance(gate, NotWorse) else 1.0
            if part < least:
                weakest, least = label, part
    return Outlook(name=contender.name, chance=chance, quality=quality, weakest=weakest)


def _chances(
    gate: Gate, contender: Contender, incumbent: Sequence[Record], *, n_test: dict[str, int], seed: int
) -> list[tuple[str, float]]:
    if isinstance(gate, AtMost):
        result = judge_at_most(gate, contender.cost or CostSummary())
        return [(gate.cost, 1.0 if result.verdict is Verdict.SHIP else 0.0)]
    if isinstance(gate, NotShownWorse):
        return []  # an equal passes it but for alpha, and dev would have to show a loss to foretell one
    scored = score_pairs(pair_records(incumbent, contender.records), gate.scorer)
    found: list[tuple[str, float]] = []
    known = columns(incumbent)
    # A slice that only test has (a tier of a suite) says nothing on dev, for or against anyone.
    seen = [s for s in gate.slices if s == "all" or s.partition("=")[0] in known]
    seen = [s for s in seen if s == "all" or s.partition("=")[2] in ("*", *known[s.partition("=")[0]])]
    for name in expand_slices(seen, incumbent):
        members = [pair for pair in scored if in_slice(pair.pair.incumbent, name)]
        n = n_test.get(name, 0)
        if not members or n == 0:
            continue
        part = _chance(members, n_test=n, margin=margin_on(gate, name), alpha=gate.alpha, seed=seed)
        found.append((f"{gate.scorer} on {name}", part))
    return found


def _chance(scored: Sequence[ScoredPair], *, n_test: int, margin: float, alpha: float, seed: int) -> float:
    """The chance to pass on one slice; examples of one group are drawn together."""
    groups = [s.pair.incumbent.group or f"\0{s.pair.incumbent.example_id}" for s in scored]
    weights = [s.pair.incumbent.weight for s in scored]
    scores = [s.candidate for s in scored], [s.incumbent for s in scored]
    binary = all(value in (0.0, 1.0) for side in scores for value in side)
    bounded = all(0 <= value <= 1 for side in scores for value in side)
    if bounded and (not binary or len(set(groups)) < len(groups) or len(set(weights)) > 1):
        dev = group_sums(*scores, groups=groups, weights=weights)
        return pass_probability_by_group(
            dev, n_test=n_test, margin=margin, alpha=alpha, binary=binary, seed=seed
        )
    flips = count_flips(scored)
    return pass_probability(
        flips.beneficial, flips.harmful, flips.n, n_test=n_test, margin=margin, alpha=alpha, seed=seed
    )


def _is_cheaper(cost: CostSummary | None) -> bool:
    """Whether a candidate clearly costs less than the incumbent; unmeasured is not cheaper."""
    return cost is not None and cost.ratio is not None and cost.ratio.high < 1.0


def _cpu(cost: CostSummary | None) -> float:
    return cost.ratio.value if cost is not None and cost.ratio is not None else float("inf")


def _worth_showing(others: Sequence[Contender]) -> list[Contender]:
    """Each family's best first: the cheapest, the free baseline, then by dev score."""
    singles = [c for c in others if not c.members]
    cheapest = sorted(singles, key=lambda c: _cpu(c.cost))[:2]
    free = sorted((c for c in singles if c.recipe.family == "free"), key=lambda c: _cpu(c.cost))[:1]
    rest = sorted(others, key=lambda c: -(c.dev_score or 0.0))
    return list({c.name: c for c in (*cheapest, *free, *rest)}.values())
