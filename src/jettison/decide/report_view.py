"""What both pages say, worked out once: rows and sentences, from the content, before any markup."""

from collections.abc import Sequence
from dataclasses import dataclass

from jettison.decide import report_words as words
from jettison.decide.report_types import FlipExample, ReportContent
from jettison.decide.tell import by_room
from jettison.decide.words import ROLE_WORDS
from jettison.decision import CandidateReport, Decision, GateResult, Interval, NotWorse, Verdict


@dataclass(frozen=True, kw_only=True)
class Tile:
    """One of the three numbers at the top."""

    title: str
    value: str
    detail: str


@dataclass(frozen=True, kw_only=True)
class CandidateRow:
    """One candidate in the overview."""

    name: str
    verdict: str
    css: str
    """Class of its color and shape: ship, block, unsure, incumbent."""
    note: str
    """Chosen, second nominee, measured but not eligible, ..."""
    blocked_by: str
    score: str
    difference: str
    difference_bounds: str
    difference_where: str
    cpu: str
    cpu_bounds: str
    size: str
    latency: str
    steps: tuple[str, ...]


MAX_SCORED = 40
"""Slices in the table of all scores, in the decision's order; report.json has the rest."""


SMALLEST_ROOM = "smallest room to the margin"
"""Why a check is named among several: the lower end of its interval comes nearest to what is allowed."""
DIFFERENCE_LEAD = (
    "The difference shown is that of the check with the smallest room between the lower end of its "
    "interval and the loss that is allowed; where checks are broken or open, of those alone."
)


def incumbent_of(decision: Decision) -> CandidateReport:
    """The incumbent's own report."""
    return next(c for c in decision.candidates if c.name == decision.incumbent)


def contenders(decision: Decision) -> list[CandidateReport]:
    """All but the incumbent, in the decision's order."""
    return [c for c in decision.candidates if c.name != decision.incumbent]


def spotlight(decision: Decision) -> CandidateReport | None:
    """Whose numbers stand at the top: the chosen one, else the nominee, else the first."""
    others = contenders(decision)
    named = [c for c in others if c.name == decision.chosen]
    nominees = [c for c in others if c.role == "nominee"]
    return next(iter(named + nominees + others), None)


def main_metric(decision: Decision) -> str:
    """The scorer of the first non-inferiority gate."""
    return next((gate.scorer for gate in decision.gates if isinstance(gate, NotWorse)), "label")


def weakest_check(candidate: CandidateReport) -> GateResult | None:
    """The check that the headline names: of those that decide, the one with the smallest room."""
    return next(iter(_judged(candidate)), None)


def result_on_all(candidate: CandidateReport, metric: str) -> GateResult | None:
    """The gate on all examples, where there is one."""
    return next((r for r in _judged(candidate) if r.metric == metric and is_on_all(r)), None)


def _judged(candidate: CandidateReport) -> list[GateResult]:
    """Its checks of scores that have margins: broken, open, held, the smallest room first in each."""
    return by_room([r for r in candidate.gates if r.gate == "not_worse"])


def is_on_all(result: GateResult) -> bool:
    """Whether a gate looked at all examples and not at a slice."""
    return result.slice in (None, "all")


def score_of(candidate: CandidateReport, metric: str, slice_name: str = "all") -> float | None:
    """A candidate's score on one slice, under the metric's own name or `accuracy` for labels."""
    scores = candidate.scores.get(slice_name, {})
    return scores.get(metric, scores.get("accuracy") if metric == "label" else None)


def tiles(decision: Decision) -> list[Tile]:
    """The three numbers that matter, of the candidate in the spotlight."""
    candidate, incumbent = spotlight(decision), incumbent_of(decision)
    if candidate is None:
        return []
    result = weakest_check(candidate)
    metric = result.metric if result is not None else main_metric(decision)
    ratio = candidate.cost.ratio
    noise = candidate.cost.noise_share if candidate.cost.cpu_ratio else None
    smaller = _share(candidate.cost.bytes, incumbent.cost.bytes)
    return [
        Tile(
            title=f"{words.heading(words.metric_words(metric))}, in points{_where(candidate)}",
            value=words.points(result.difference.value if result and result.difference else None),
            detail=_quality_detail(result),
        ),
        Tile(
            title=f"{words.heading(ratio_words(decision))} per task",
            value=words.times_less(ratio.value if ratio else None),
            detail=UNMEASURED if ratio is None else _cost_detail(ratio, noise, candidate.cost.cut_short),
        ),
        Tile(
            title="Size on disk",
            value=words.size(candidate.cost.bytes),
            detail=f"incumbent {words.size(incumbent.cost.bytes)}"
            + (f": {words.times_less(smaller)}" if smaller else ""),
        ),
    ]


def who_answered(candidate: CandidateReport) -> str:
    """Which model of a cascade gave how many of the test answers; empty for a single model."""
    beside = "Costs are of dev inputs, of which other shares may be passed on."
    if candidate.arm_shares:
        names = arm_names(candidate.name, list(candidate.arm_shares))
        told = [f"{names[arm]} {words.percent(part)}" for arm, part in candidate.arm_shares.items()]
        return f"Who answered on test: {', '.join(told)}. {beside}"
    passed_on = candidate.scores.get("all", {}).get("escalated_share")
    if not passed_on:
        return ""
    return f"On test {words.percent(passed_on)} of the inputs were passed on by the lean arm. {beside}"


def arm_names(candidate: str, arms: Sequence[str]) -> dict[str, str]:
    """Arm → the model's name, where the cascade is called after its models (`linear→static→onnx-int8`)."""
    models, deepest = candidate.split(" #")[0].split("→"), max(arm.count("fallback") for arm in arms)
    if deepest >= len(models) or any("lean/" in arm for arm in arms):
        return {arm: arm for arm in arms}
    return {arm: models[arm.count("fallback")] for arm in arms}


def ratio_words(decision: Decision) -> str:
    """What costs are compared by: CPU time, or against a model elsewhere price, or else latency."""
    return next((c.cost.ratio_words for c in decision.candidates if c.cost.ratio is not None), "CPU time")


def ratio_heading(decision: Decision) -> str:
    """Over the column of these ratios."""
    return words.heading(f"{ratio_words(decision).removesuffix(' time')} ratio")


N_WEAKEST = 3
"""Slices named at the top, of those that were declared and of those that a search confirmed."""


_HOLDS = {
    Verdict.SHIP: "holds",
    Verdict.BLOCK: "does not hold",
    Verdict.NOT_ENOUGH_DATA: "not enough data",
}


def weakest(content: ReportContent) -> list[str]:
    """Where the candidate in the spotlight comes nearest to its margins or breaks them, those first.

    Nothing where one gate on one slice is all: the tile above says it.
    """
    candidate = spotlight(content.decision)
    if candidate is None:
        return []
    judged = _judged(candidate)
    lines = []
    for result in judged[:N_WEAKEST] if len(judged) > 1 else ():
        n = "" if result.n is None else f", {result.n:,} examples"
        where = f"{words.slice_words(result.slice)} ({words.metric_words(result.metric)})"
        lines.append(
            f"{where}: {words.points_interval(result.difference)} points, allowed "
            f"{words.limit_words(result)}{n}: {_HOLDS[result.verdict]}"
        )
    own = next((s for s in content.suites.searches if s.candidate == candidate.name), None)
    for one in sorted(own.found, key=lambda one: -one.loss)[:N_WEAKEST] if own else ():
        lines.append(
            f"nobody declared, but confirmed, {words.slice_words(one.name)}: loses {100 * one.loss:.1f} "
            f"[{100 * one.low:.1f}, {100 * one.high:.1f}] points, {one.n:,} examples"
        )
    return lines


UNMEASURED = "the cost was not measured in this run"


def candidate_rows(decision: Decision) -> list[CandidateRow]:
    """The overview, incumbent first."""
    metric = main_metric(decision)
    return [_candidate_row(c, decision, metric) for c in decision.candidates]


def blocked_by(candidate: CandidateReport) -> str:
    """Gates that do not hold, as words: what blocks first, then what cannot be told yet."""
    parts = []
    for verdict, verb in ((Verdict.BLOCK, "blocked by"), (Verdict.NOT_ENOUGH_DATA, "too little data on")):
        failing = [r for r in candidate.gates if r.verdict == verdict]
        slices = [r.slice for r in failing if r.is_of_scores]
        costs = [words.metric_words(r.metric) for r in failing if not r.is_of_scores]
        named = [*([words.slices_words(slices)] if slices else []), *dict.fromkeys(costs)]
        if named:
            parts.append(f"{verb} {'; '.join(named)}")
    return "; ".join(parts)


def css_of(candidate: CandidateReport, decision: Decision) -> str:
    """Class of its color and shape."""
    return "incumbent" if candidate.name == decision.incumbent else words.VERDICT_CLASSES[candidate.verdict]


def flips_of(content: ReportContent, candidate: str) -> list[FlipExample]:
    """Changed answers of one candidate, harmful first, the surest of them on top."""
    return sorted(
        (flip for flip in content.flips if flip.candidate == candidate),
        key=lambda flip: (not flip.harmful, -(flip.candidate_confidence or 0.0)),
    )


def is_all_by_another_name(slice_name: str, decision: Decision) -> bool:
    """Whether a slice holds every test example, so that its row would say again what that of all says."""
    n = incumbent_of(decision).n
    return slice_name != "all" and "all" in n and n.get(slice_name) == n["all"]


def score_rows(decision: Decision) -> tuple[list[str], list[tuple[str, str, str, list[str]]]]:
    """Metric names, and rows of (slice, n, candidate, figures) for every slice and candidate."""
    tables = [scores for c in decision.candidates for scores in c.scores.values()]
    metrics = list(dict.fromkeys(m for scores in tables for m, v in scores.items() if v is not None))
    every = dict.fromkeys(name for c in decision.candidates for name in c.scores)
    slices = [name for name in every if not is_all_by_another_name(name, decision)][:MAX_SCORED]
    rows = []
    for name in slices:
        for candidate in decision.candidates:
            scores = candidate.scores.get(name)
            if scores is not None:
                n = candidate.n.get(name)
                figures = [words.score_words(m, scores.get(m)) for m in metrics]
                rows.append(
                    (words.slice_words(name), "" if n is None else f"{n:,}", candidate.name, figures)
                )
    return metrics, rows


def _candidate_row(candidate: CandidateReport, decision: Decision, metric: str) -> CandidateRow:
    is_incumbent = candidate.name == decision.incumbent
    result = weakest_check(candidate)
    difference = result.difference if result is not None else None
    ratio = candidate.cost.ratio
    notes = {"shown": "measured, not nominated", "nominee": "nominated", **ROLE_WORDS}
    note = "released" if candidate.name == decision.chosen else notes.get(candidate.role, "")
    return CandidateRow(
        name=candidate.name,
        verdict="INCUMBENT" if is_incumbent else words.VERDICT_WORDS[candidate.verdict],
        css=css_of(candidate, decision),
        note="what runs today" if is_incumbent else note,
        blocked_by="" if is_incumbent else blocked_by(candidate),
        score=words.percent(score_of(candidate, metric)),
        difference="" if is_incumbent else words.points(difference.value if difference else None),
        difference_bounds="" if is_incumbent else words.bounds(difference),
        difference_where="" if is_incumbent else _where_of_row(candidate, metric),
        cpu="1" if is_incumbent else words.two_digits(ratio.value) if ratio else words.UNKNOWN,
        cpu_bounds="" if is_incumbent else words.ratio_bounds(ratio),
        size=words.size(candidate.cost.bytes),
        latency=words.seconds(candidate.cost.latency_p50_s),
        steps=candidate.steps,
    )


def _where(candidate: CandidateReport) -> str:
    """The slice that a difference is of, and why that one; nothing where all examples are all there is."""
    found = _judged(candidate)
    if not found or (len(found) == 1 and is_on_all(found[0])):
        return ""
    why = f" ({SMALLEST_ROOM})" if len(found) > 1 else ""
    return f", on {words.slice_words(found[0].slice)}{why}"


def _where_of_row(candidate: CandidateReport, metric: str) -> str:
    """The slice alone, which the heading explains; the scorer too where it is another than the column's."""
    result = weakest_check(candidate)
    if result is None or not _where(candidate):
        return ""
    scorer = "" if result.metric == metric else f" ({words.metric_words(result.metric)})"
    return f"on {words.slice_words(result.slice)}{scorer}"


def _cost_detail(ratio: Interval, noise: float | None, cut_short: str | None) -> str:
    """How well the saving is known: its interval over processes, the machine's noise, the time it had."""
    share = f"{words.ratio(ratio)} of the incumbent's"
    if 0 < ratio.low < ratio.high < 0.95:
        known = f"{words.percent(ratio.confidence, 0)} interval"
        share = f"{known} {words.three_digits(1 / ratio.high)} to {words.times_less(ratio.low)}"
    floor = f"; two copies of the incumbent differ by {words.percent(noise)}" if noise is not None else ""
    brief = f"; measured briefly, as the run's budget allowed: {cut_short}" if cut_short else ""
    return f"{share}{floor}{brief}"


def _quality_detail(result: GateResult | None) -> str:
    if result is None or result.difference is None:
        return "no difference was estimated"
    interval = result.difference
    detail = (
        f"{words.percent(interval.confidence, 0)} interval {words.points(interval.low)} to "
        f"{words.points(interval.high)}; allowed {words.limit_words(result)}"
    )
    if result.incumbent is not None and result.candidate is not None:
        detail += f"; {words.percent(result.incumbent)} → {words.percent(result.candidate)}"
    return detail


def _share(part: int | None, whole: int | None) -> float | None:
    return part / whole if part and whole else None
