"""Rows of the longer sections: slices, changed answers, what was tried, gates, and how to reproduce."""

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from jettison.candidate import AppliedStep
from jettison.decide import report_words as words
from jettison.decide.costs import EARNS_ITS_PLACE
from jettison.decide.report_types import FlipExample, ReportContent, StageEffect, Tried
from jettison.decide.report_view import (
    blocked_by,
    contenders,
    css_of,
    flips_of,
    is_all_by_another_name,
    ratio_words,
)
from jettison.decide.words import ROLE_WORDS
from jettison.decision import (
    AtMost,
    CandidateReport,
    Decision,
    Gate,
    GateResult,
    NotShownWorse,
    NotWorse,
    Verdict,
)

MAX_FLIPS = 40
"""Changed answers shown of each candidate."""
MAX_SLICES = 24
"""Slices shown of each candidate; 150 intents of five candidates are no longer read."""
MAX_CHARACTERS = 1200
"""Of one input; the rest is in report.json."""


@dataclass(frozen=True, kw_only=True)
class FlipRow:
    """One changed answer."""

    candidate: str
    kind: str
    """harmful, helpful or other."""
    kind_words: str
    input: str
    expected: str
    incumbent: str
    answer: str
    where: str
    slices: str
    """`column=value` pairs joined by a bar, for the filter."""


@dataclass(frozen=True, kw_only=True)
class TriedRow:
    """One candidate that the search looked at."""

    name: str
    steps: str
    status: str
    reason: str
    score: str
    difference: str
    cpu: str
    size: str
    stages: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class GateRow:
    """One gate on one slice or cost."""

    gate: str
    verdict: str
    css: str
    reason: str
    method: str
    limit: str
    incumbent: str
    candidate: str
    difference: str
    flips: str
    n: str
    p: str


def slice_results(candidate: CandidateReport) -> list[GateResult]:
    """A candidate's non-inferiority gates, all examples first."""
    found = [r for r in candidate.gates if r.gate == "not_worse"]
    return sorted(found, key=lambda r: r.slice not in (None, "all"))


def shown_slices(candidate: CandidateReport) -> tuple[list[GateResult], int]:
    """The slices to draw and how many are left out: of many, those that fail and those that lose most."""
    found = slice_results(candidate)
    if len(found) <= MAX_SLICES:
        return found, 0
    first, *rest = found
    rest.sort(key=lambda r: (r.verdict == Verdict.SHIP, r.difference.low if r.difference else 0.0))
    return [first, *rest[: MAX_SLICES - 1]], len(found) - MAX_SLICES


def flip_rows(content: ReportContent) -> list[FlipRow]:
    """Changed answers to show, harmful ones of all candidates first."""
    shown = [
        flip
        for candidate in contenders(content.decision)
        for flip in flips_of(content, candidate.name)[:MAX_FLIPS]
    ]
    return [_flip_row(flip, content.decision) for flip in sorted(shown, key=lambda flip: not flip.harmful)]


def flip_count_words(content: ReportContent) -> list[str]:
    """How many answers of each candidate changed in all, how, and how many of them can be read where."""
    told = []
    for candidate in contenders(content.decision):
        flips = content.flip_counts.get(candidate.name)
        kept = _kept_words(len(flips_of(content, candidate.name)))
        if flips is None:
            told += [f"{candidate.name}: {kept}."] if kept else []
            continue
        changed = flips.harmful + flips.beneficial + flips.churn
        churn = f", {flips.churn:,} wrong both times but differently" if flips.churn else ""
        told.append(
            f"{candidate.name}: of {flips.n:,} answers {changed:,} changed, {flips.harmful:,} from right "
            f"to wrong, {flips.beneficial:,} from wrong to right{churn}{f'; {kept}' if kept else ''}."
        )
    return told


def _kept_words(n: int) -> str:
    """Where one candidate's changed answers can be read; empty where all that were kept stand here."""
    return f"{MAX_FLIPS} can be read here, {n} in report.json" if n > MAX_FLIPS else ""


def tried_rows(tried: Sequence[Tried]) -> list[TriedRow]:
    """Finalists first, then what was dominated, dropped and failed."""
    order = ("finalist", "dominated", "dropped", "failed")
    return [
        TriedRow(
            name=one.name,
            steps=" → ".join(one.steps),
            status=one.status,
            reason=one.reason,
            score=words.percent(one.dev_score) if one.dev_score is not None else "",
            difference=_difference(one.dev_loss_vs_incumbent),
            cpu=words.two_digits(one.cpu_ratio) if one.cpu_ratio is not None else "",
            size=words.size(one.bytes) if one.bytes is not None else "",
            stages=tuple(_stage_words(stage) for stage in one.stages),
        )
        for one in sorted(tried, key=lambda one: order.index(one.status))
    ]


def gate_rows(candidate: CandidateReport) -> list[GateRow]:
    """Gates of one candidate: the slices that are shown, then costs."""
    results = [*shown_slices(candidate)[0], *(r for r in candidate.gates if r.gate != "not_worse")]
    return [_gate_row(result) for result in results]


def gate_rules(decision: Decision) -> list[str]:
    """Each gate as a sentence, how the error probability is shared, and what all must hold."""
    return [*_gate_sentences(decision.gates), *alpha_words(decision), *_place_words(decision)]


def alpha_words(decision: Decision) -> list[str]:
    """Why the rows of nominee and second nominee stand at other confidences than the rule names."""
    told = []
    eligible = [c for c in contenders(decision) if c.role in ("nominee", "fallback")]
    # Of the gates that share it: what blocks a loss that is shown spends its own in each row.
    shared = [(c.name, r) for c in eligible for r in c.gates if r.gate == "not_worse"]
    spent = {name: r.alpha for name, r in shared if r.alpha is not None}
    if len(spent) > 1:
        parts = [
            f"{100 * spent[c.name]:.3g} % for the {ROLE_WORDS.get(c.role, c.role)} {c.name}"
            for c in eligible
            if c.name in spent
        ]
        sure = " and ".join(f"{100 * (1 - alpha):.4g} %" for alpha in spent.values())
        wide = " and ".join(f"{100 * (1 - 2 * alpha):.4g} %" for alpha in spent.values())
        told.append(
            "Either of two nominees may be released, so they share the gates' error probability, and "
            f"together are wrong no more often than it says: {' and '.join(parts)}. Hence a confidence of "
            f"{sure} in their rows, and intervals of {wide}, which leave that much out at each end. What "
            "cannot be released is shown at the whole of it."
        )
    if decision.n_test_reads > 1:
        told.append(
            f"This is decision {decision.n_test_reads} on this test split, which leaves it "
            f"1/{2 ** (decision.n_test_reads - 1):,} of the error probability."
        )
    return told


def _place_words(decision: Decision) -> list[str]:
    """The rule that no setting names."""
    if not any(r.method == EARNS_ITS_PLACE for c in contenders(decision) for r in c.gates):
        return []
    return [
        f"A candidate must earn its place: the {ratio_words(decision)} over the incumbent's is shown to be "
        "under 1.00 (the upper end of its interval), or it is smaller on disk."
    ]


def _gate_sentences(gates: Sequence[Gate]) -> list[str]:
    sentences = []
    for gate in gates:
        match gate:
            case NotWorse():
                sentences.append(_not_worse_rule(gate))
            case NotShownWorse():
                slices = ", ".join(words.slice_words(name) for name in gate.slices)
                sentences.append(
                    f"No loss of the {words.metric_words(gate.scorer)} may be shown, on each of: {slices}, "
                    f"at a one-sided error probability of {words.percent(gate.alpha)}. A loss that is not "
                    "shown does not block, and is not excluded."
                )
            case AtMost():
                limit = words.cost_words(gate.cost, gate.limit)
                sentences.append(f"The {words.metric_words(gate.cost)} may be {limit} at most.")
    return sentences


def caveats(decision: Decision) -> list[str]:
    """The decision's own, and those that follow from how it was measured."""
    found = list(decision.caveats)
    if decision.n_test_reads > 1:
        found.append(
            f"The test split has now been read for {decision.n_test_reads} decisions: each reading makes "
            "it likelier that a candidate passes by luck."
        )
    undecided = [c.name for c in contenders(decision) if c.verdict == Verdict.NOT_ENOUGH_DATA]
    if undecided:
        found.append(f"No claim is made about {', '.join(undecided)}: the data cannot tell either way.")
    found.append("Costs hold for this machine and these library versions; measure again where you deploy.")
    return list(dict.fromkeys(found))


def facts(decision: Decision) -> list[tuple[str, str]]:
    """Machine, versions, seed and test reads."""
    machine = [_fact(name, value) for name, value in decision.machine.items() if value]
    return [
        ("Decided", words.moment(decision.created)),
        ("Seed", str(decision.seed)),
        ("Test split", f"digest {decision.test_digest[:16]}, read for {decision.n_test_reads} decision(s)"),
        *((c.name, f"digest {c.digest[:16]}") for c in decision.candidates),
        *machine,
    ]


def _fact(name: str, value: str) -> tuple[str, str]:
    """A fact of the machine in words: bytes as people count them."""
    if name.endswith("_bytes") and value.isdigit():
        return name.removesuffix("_bytes").replace("_", " "), words.size(int(value))
    return name.replace("_", " "), value


def lineage_words(steps: Sequence[AppliedStep]) -> list[str]:
    """One line a step: what, with which settings, how long."""
    lines = []
    for step in steps:
        settings = ", ".join(
            f"{k} = {_brief(v)}" for k, v in sorted(step.settings.items()) if v is not None
        )
        took = f", took {words.seconds(step.duration_s)}" if step.duration_s is not None else ""
        lines.append(f"{step.step}{f' ({settings})' if settings else ''}, seed {step.seed}{took}")
    return lines


def settings_text(content: ReportContent) -> str:
    """All settings of the run as indented JSON; empty when there are none."""
    if not content.settings:
        return ""
    return msgspec.json.format(msgspec.json.encode(content.settings), indent=2).decode()


def headline_word(decision: Decision) -> tuple[str, str]:
    """The verdict's word and class."""
    return words.VERDICT_WORDS[decision.verdict], words.VERDICT_CLASSES[decision.verdict]


def candidate_headline(candidate: CandidateReport, decision: Decision) -> str:
    """The verdict of one candidate, with what blocked it."""
    why = blocked_by(candidate)
    word = words.VERDICT_WORDS[candidate.verdict]
    return word if css_of(candidate, decision) == "ship" or not why else f"{word}: {why}"


def _flip_row(flip: FlipExample, decision: Decision) -> FlipRow:
    helped = flip.candidate_output == flip.expected and flip.incumbent_output != flip.expected
    kind = "harmful" if flip.harmful else "helpful" if helped else "other"
    said = {"harmful": "Now wrong", "helpful": "Now right", "other": "Wrong both times, differently"}
    text = flip.input
    named = [f"{key}={value}" for key, value in flip.slices.items()]
    slices = [name for name in named if not is_all_by_another_name(name, decision)]
    return FlipRow(
        candidate=flip.candidate,
        kind=kind,
        kind_words=said[kind],
        input=text if len(text) <= MAX_CHARACTERS else f"{text[:MAX_CHARACTERS]}…",
        expected=flip.expected if flip.expected is not None else "not known",
        incumbent=_answer(flip.incumbent_output, flip.incumbent_confidence),
        answer=_answer(flip.candidate_output, flip.candidate_confidence),
        where=" · ".join([*map(words.slice_words, slices), *([flip.id] if flip.id else [])]),
        slices="|".join(slices),
    )


def _answer(label: str | None, confidence: float | None) -> str:
    if label is None:
        return "failed"
    return label if confidence is None else f"{label} ({words.percent(confidence, 0)} sure)"


def _stage_words(stage: StageEffect) -> str:
    parts = []
    if stage.dev_loss is not None:
        verb = "gains" if stage.dev_loss < 0 else "loses"
        parts.append(f"{verb} {words.points(abs(stage.dev_loss)).lstrip('+')} points on dev")
    if stage.cpu_ratio is not None:
        parts.append(f"CPU {words.times_less(stage.cpu_ratio)}")
    if stage.bytes is not None:
        parts.append(f"leaves {words.size(stage.bytes)}")
    if stage.note:
        parts.append(stage.note)
    return f"{stage.step}: {', '.join(parts)}" if parts else stage.step


def _difference(loss: float | None) -> str:
    """In points, above zero where the candidate is better, as everywhere on the page."""
    return "" if loss is None else words.points(-loss)


def _gate_row(result: GateResult) -> GateRow:
    is_slice = result.is_of_scores
    metric = words.metric_words(result.metric)
    show = words.score_words if is_slice else words.cost_words
    flips = result.flips
    groups = f" in {result.n_groups:,} groups" if result.n_groups not in (None, result.n) else ""
    return GateRow(
        gate=words.slice_words(result.slice) if is_slice else metric,
        verdict=words.VERDICT_WORDS[result.verdict],
        css=words.VERDICT_CLASSES[result.verdict],
        reason=result.reason,
        method=result.method,
        limit=words.limit_words(result),
        incumbent=show(result.metric, result.incumbent),
        candidate=show(result.metric, result.candidate),
        difference=words.points_interval(result.difference) if is_slice else "",
        flips=f"{flips.harmful} / {flips.beneficial}" if flips is not None else "",
        n=f"{metric}, {result.n:,} examples{groups}" if is_slice and result.n is not None else "",
        p=_p_value(result.p_value),
    )


def _p_value(value: float | None) -> str:
    return "" if value is None else "< 0.0001" if value < 0.0001 else f"{value:.4f}"


def _not_worse_rule(gate: NotWorse) -> str:
    slices = ", ".join(words.slice_words(name) for name in gate.slices)
    other = "".join(f" ({100 * v:.1f} on {words.slice_words(k)})" for k, v in gate.margins.items())
    return (
        f"The {words.metric_words(gate.scorer)} may fall below the incumbent's by less than "
        f"{100 * gate.margin:.1f} points{other}, on each of: {slices}. Each slice must hold by itself, "
        f"at a one-sided error probability of {words.percent(gate.alpha)}."
    )


def _brief(value: object) -> str:
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    return text if len(text) <= 60 else f"{text[:57]}…"
