"""Says a decision in sentences: the headline, the reasons, and what the evidence cannot tell."""

from collections.abc import Mapping, Sequence

from jettison.decide.costs import EARNS_ITS_PLACE
from jettison.decide.words import (
    NONE_REALISTIC,
    ROLE_WORDS,
    TOO_NEAR,
    about,
    count,
    figure,
    is_realistic,
    on_slice,
    share,
)
from jettison.decision import CandidateReport, Gate, GateResult, NotWorse, Verdict, ratio_figure
from jettison.stats.planning import smallest_passing_n
from jettison.stats.spending import alpha_share_of_reading

NOISE = 0.05
"""An A/A ratio further than this from 1 is worth a caveat."""


def headline(
    incumbent: str,
    chosen: CandidateReport | None,
    eligible: Sequence[CandidateReport],
    shown: Sequence[CandidateReport] = (),
) -> str:
    """The verdict in one sentence."""
    if chosen is not None:
        quality = [g for g in chosen.gates if g.gate == "not_worse"]
        return f"Release {chosen.name} in place of {incumbent}: {_quality(quality)}{_saving(chosen)}."
    if not eligible:
        return f"Keep {incumbent}: no candidate was put to the test{_none_cheaper(incumbent, shown)}."
    nominee = eligible[0]
    unsettled = [r for r in eligible if r.verdict is Verdict.NOT_ENOUGH_DATA]
    if unsettled:
        open_one = unsettled[0]
        where, missing = _unsettled_on(open_one), _missing(open_one)
        return f"Keep {incumbent} for now: {open_one.name} is neither proven nor ruled out{where}{missing}."
    broken = by_room([g for g in nominee.gates if g.verdict is Verdict.BLOCK])[0]
    return f"Keep {incumbent}: {nominee.name} {_failure(broken)}."


def _none_cheaper(incumbent: str, shown: Sequence[CandidateReport]) -> str:
    """Why none was nominated: only what clearly costs less than the incumbent is."""
    if not shown:
        return ""
    if any(report.cost.ratio is not None for report in shown):
        return ", since none clearly costs less"
    return f", since what {incumbent} costs is not known and so none is shown to cost less"


def reasons(
    incumbent: CandidateReport, chosen: CandidateReport | None, others: Sequence[CandidateReport]
) -> tuple[str, ...]:
    """One line a finding, the released candidate first."""
    lines: list[str] = []
    ordered = sorted(others, key=lambda r: (r is not chosen, r.role == "shown"))
    for report in ordered:
        if report is chosen:
            lines.extend(f"{report.name}: {gate.reason}" for gate in report.gates)
            continue
        if report.role == "shown":
            continue
        failed = [gate for gate in report.gates if gate.verdict is not Verdict.SHIP]
        lines.extend(f"{report.name}: {gate.verdict.value}. {gate.reason}" for gate in failed)
        if not failed and chosen is not None:
            lines.append(f"{report.name} holds every gate too, but {chosen.name} was nominated before it.")
    lines += _only_shown([report for report in ordered if report.role == "shown"])
    return tuple(lines) or (f"Nothing was compared with {incumbent.name}.",)


def _only_shown(reports: Sequence[CandidateReport]) -> list[str]:
    """One sentence for all that were never up for release."""
    if not reports:
        return []
    *others, last = [f"{report.name} ({report.verdict.value})" for report in reports]
    who = f"{', '.join(others)} and {last} are" if others else f"{last} is"
    was, them = ("they were", "them") if others else ("it was", "it")
    return [
        f"{who} shown for information: {was} not nominated on dev before the test split was read, so this "
        f"decision cannot release {them}."
    ]


def caveats(
    reports: Sequence[CandidateReport],
    gates: Sequence[Gate],
    *,
    n_test_reads: int,
    shares: Mapping[str, float],
) -> tuple[str, ...]:
    """What the evidence cannot tell."""
    told = [_error_rate(gates, shares, alpha_share_of_reading(n_test_reads)), *_small_slices(reports)]
    if n_test_reads > 1:
        told.append(
            f"The test split has been read for {n_test_reads} decisions. This one spends "
            f"1/{2 ** (n_test_reads - 1):,} of the gates' alpha, so that all of them together err at most "
            "twice as often as alpha says, as long as no candidate was picked by what it showed on test; "
            "it needs more examples for the same verdict. A test split of which nine tenths are new "
            "restores it."
        )
    told.append(
        "The verdicts hold for inputs like those of the test split; traffic that differs from it, or "
        "changes later, may fare otherwise."
    )
    if any((report.scores.get("all", {}).get("escalated_share") or 0) > 0 for report in reports):
        told.append(
            "A cascade's threshold is certified on dev with an error probability of its own. The cascade "
            "that saves most was taken of several, so that its certificate by itself holds less often "
            "than it says; the gates above tested the cascade as a whole."
        )
    told.extend(_abstentions(reports))
    told.extend(_few_groups(reports))
    told.extend(_failed_calls(reports))
    told.extend(_cost_caveats(reports))
    return tuple(told)


def _abstentions(reports: Sequence[CandidateReport]) -> list[str]:
    """Who withholds answers, and how often, of those that may be released."""
    told = []
    for report in reports:
        coverage = report.scores.get("all", {}).get("coverage")
        if report.role in ("nominee", "fallback") and coverage is not None and coverage < 1.0:
            share = f"{100 * (1 - coverage):.1f} % of the test split"
            told.append(
                f"{report.name} abstains from what looks out of scope: it says the out-of-scope label "
                f"in place of an answer to {share}, to another share of other traffic."
            )
    return told


def _error_rate(gates: Sequence[Gate], shares: Mapping[str, float], left: float) -> str:
    alpha = max((gate.alpha for gate in gates if isinstance(gate, NotWorse)), default=0.0)
    split = ""
    if len(shares) > 1:
        parts = ", ".join(
            f"{100 * alpha * part:.3g} % for the {ROLE_WORDS.get(role, role)}"
            for role, part in sorted(shares.items(), key=lambda item: -item[1])
        )
        split = f" ({parts})"
    return (
        f"A candidate that loses the margin or more is released with a probability of at most "
        f"{100 * alpha * left:.3g} %{split}."
    )


def _small_slices(reports: Sequence[CandidateReport]) -> list[str]:
    small = {
        result.slice: result
        for report in reports
        for result in report.gates
        if result.gate == "not_worse"
        and result.n is not None
        and 0 < result.limit < 1
        and result.n < smallest_passing_n(result.limit, alpha=result.alpha or 0.025)
    }
    return [
        f"{on_slice(name or 'all')} there are {count(result.n or 0, 'example')}; a margin of "
        f"{share(result.limit, 'point')} needs at least "
        f"{smallest_passing_n(result.limit, alpha=result.alpha or 0.025):,} even when no answer changes."
        for name, result in small.items()
    ]


def _few_groups(reports: Sequence[CandidateReport]) -> list[str]:
    few = {
        result.slice: result
        for report in reports
        for result in report.gates
        if result.n_groups_to_show is not None and result.gate == "not_worse"
    }
    return [
        f"{on_slice(name or 'all')} the examples come from {result.n_groups:,} groups. The verdict takes "
        "harm to be spread over groups as it is seen here: one that spoils whole groups, and few of them, "
        f"could go unseen; {result.n_groups_to_show:,} groups like these would show it."
        for name, result in few.items()
    ]


def _failed_calls(reports: Sequence[CandidateReport]) -> list[str]:
    told = []
    for report in reports:
        failed = report.scores.get("all", {}).get("error_share")
        if failed:
            n_failed = round(failed * report.n.get("all", 0))
            told.append(f"{report.name}: {count(n_failed, 'call')} failed and counted as wrong.")
    return told


def _cost_caveats(reports: Sequence[CandidateReport]) -> list[str]:
    costs = [report.cost for report in reports]
    told = []
    if any(cost.cpu_s is not None for cost in costs):
        told.append(
            "Costs were measured on the machine named here; another processor may rank candidates "
            "otherwise."
        )
    noise = max((cost.noise_share for cost in costs if cost.noise_share is not None), default=0.0)
    if noise > NOISE:
        told.append(
            f"The machine was noisy: the incumbent against itself came out {100 * noise:.0f} % apart."
        )
    if any(cost.energy_tier is not None and cost.energy_tier.startswith("E") for cost in costs):
        told.append("Energy was estimated, not measured.")
    return told


def _quality(results: Sequence[GateResult]) -> str:
    """What the required check with the smallest room to its margin shows."""
    weakest = by_room(results)[0]
    if weakest.incumbent is None or weakest.candidate is None:
        return "it is not worse than the margin allows"
    scores = f"it scores {share(weakest.candidate)} against {share(weakest.incumbent)}"
    where = _where(weakest)
    if len(results) == 1:
        return f"{scores}, within the margin of {share(weakest.limit, 'point')} {where}"
    margin = (
        f"the margin of {share(weakest.limit, 'point')}"
        if len({result.limit for result in results}) == 1
        else "its margin"
    )
    where = f"{where}, where its room to the margin is smallest,"
    return f"{scores} {where} and holds {margin} on each of {count(len(results), 'required check')}"


def room(result: GateResult) -> float:
    """How far the lower bound stays above minus the margin: below zero it does not hold. Unknown: -1."""
    return -1.0 if result.difference is None else result.difference.low + result.limit


def by_room(results: Sequence[GateResult]) -> list[GateResult]:
    """What decides first: broken checks, then open ones, then those that hold, the smallest room first.

    Costs, and what has no margin, come after the checks of scores within each.
    """
    severity = (Verdict.BLOCK, Verdict.NOT_ENOUGH_DATA, Verdict.SHIP)
    return sorted(
        results,
        key=lambda r: (severity.index(r.verdict), r.gate != "not_worse", room(r)),
    )


def _where(result: GateResult) -> str:
    return "on all examples" if result.slice in (None, "all") else f"on {result.slice}"


def _unsettled_on(report: CandidateReport) -> str:
    """The open check with the smallest room to its margin."""
    first = by_room([g for g in report.gates if g.verdict is Verdict.NOT_ENOUGH_DATA])[0]
    return f" {_where(first)}" if first.is_of_scores else " on its cost"


def _saving(report: CandidateReport) -> str:
    ratio, words = report.cost.ratio, report.cost.ratio_words
    if ratio is None:
        return ""
    words = "money" if words == "price" else words
    brief = ["measured briefly"] if report.cost.cut_short else []
    if 0 < ratio.value <= 0.95:
        is_known = not (ratio.low == ratio.high or ratio.low <= 0)
        bounds = [f"{figure(1 / ratio.high)} to {figure(1 / ratio.low)}"] if is_known else []
        return f", at {figure(1 / ratio.value)} times less {words} per task{_beside([*bounds, *brief])}"
    return f", at {ratio_figure(ratio.value)} of the {words} per task{_beside(brief)}"


def _beside(said: Sequence[str]) -> str:
    return f" ({', '.join(said)})" if said else ""


def _missing(report: CandidateReport) -> str:
    known = [g for g in report.gates if g.n_missing is not None]
    if not known:
        return ""
    most = max(known, key=lambda g: g.n_missing or 0)
    missing = most.n_missing or 0
    if not is_realistic(missing, most.n or 0):
        return f"; {TOO_NEAR if TOO_NEAR in most.reason else NONE_REALISTIC}"
    where = "" if most.slice in (None, "all") else f" of {most.slice}"
    return f"; about {about(missing, 'more test example')}{where} would settle it"


def _failure(result: GateResult) -> str:
    if result.gate == "not_shown_worse":
        return f"is shown to lose {result.metric} on {result.slice or 'all'}"
    if result.gate == "not_worse":
        where = "" if result.slice in (None, "all") else f" on {result.slice}"
        return f"loses more than the margin of {share(result.limit, 'point')}{where}"
    if result.method == EARNS_ITS_PLACE:
        return "does not cost less"
    return f"breaks the limit of {result.metric}"
