"""Rows of what the suites showed: confidences, tiers, attacks, worst slices, and what they leave open."""

from collections.abc import Sequence
from dataclasses import dataclass

from jettison.decide import report_words as words
from jettison.decide.report_evidence import (
    AttackOutcome,
    BinOfAnswers,
    ConfidenceCurves,
    KeptAnswers,
    LostExample,
    SliceSearch,
    SuiteComparison,
    SuiteEvidence,
)
from jettison.decision import Decision, Interval
from jettison.stats.planning import smallest_certifiable_margin

MAX_LOST = 5
"""Examples shown of one slice or attack."""
SECTIONS = {
    "tier": "Tiers",
    "long_tail": "Long tail",
    "ood": "Out of domain",
    "perturbation": "Perturbed",
    "attacked": "Adversarial examples",
    "disagreement": "Where two models disagreed",
    "found": "Slices found on dev",
}
ALL_TIERS = ("in_domain", "long_tail", "out_of_domain", "perturbed", "adversarial", "safety")
BINS_OFF = "Bins off (confidence outside the interval of right answers)"
COVERAGES = (0.5, 0.8, 1.0)
CALIBRATION_LEAD = (
    "Confidences were fitted on one half of dev. The error of calibration (debiased ECE, with its 95 % "
    "interval) on the other half and on test; an interval from 0 on is that of confidences that may all be "
    "true. Refuted: p under 0.05 after Holm's correction over the candidates, the incumbent among them; "
    "the p that is shown is each one's own."
)
CALIBRATION_HEADS = (
    "Candidate",
    "ECE on dev, points",
    "ECE on test, points",
    "Difference to the incumbent, points",
    "Too sure by, points",
    "Right near a confidence of 0.9",
    "Calibration on test",
)


@dataclass(frozen=True, kw_only=True)
class ConfidenceRow:
    """What one candidate's confidences are worth."""

    name: str
    brier: str
    off: str
    """Bins whose mean confidence lies outside the interval of right answers, of all."""
    risks: tuple[str, ...]
    """Share wrong among the surest half, four fifths, and all answers."""


@dataclass(frozen=True, kw_only=True)
class CalibrationRow:
    """Whether one candidate's calibration holds on test."""

    name: str
    dev: str
    test: str
    """Debiased error of calibration with its interval, as on dev."""
    difference: str
    """To the incumbent's error on test, in points."""
    gap: str
    """How much too sure, in points."""
    near: str
    """Share of right answers near a confidence of 0.9."""
    verdict: str
    refuted: bool


@dataclass(frozen=True, kw_only=True)
class ComparisonRow:
    """One candidate on one slice of the suites."""

    slice: str
    candidate: str
    scorer: str
    n: str
    incumbent: str
    score: str
    difference: str
    flips: str
    interval: Interval | None


@dataclass(frozen=True, kw_only=True)
class AttackRow:
    """One candidate under attack."""

    name: str
    n: str
    success: str
    queries: str
    robust: str
    examples: tuple[LostExample, ...]


@dataclass(frozen=True, kw_only=True)
class FoundRow:
    """One subgroup that a candidate loses."""

    candidate: str
    slice: str
    n: str
    loss: str
    elsewhere: str
    p: str
    examples: tuple[LostExample, ...]


def confidence_rows(curves: Sequence[ConfidenceCurves]) -> list[ConfidenceRow]:
    """One row a candidate."""
    return [
        ConfidenceRow(
            name=one.candidate,
            brier=f"{one.brier:.4f}{_brier_words(one.brier_difference)}",
            off=_off_words(one),
            risks=tuple(_risk_at(one.risk_coverage, share) for share in COVERAGES),
        )
        for one in curves
    ]


def calibration_rows(curves: Sequence[ConfidenceCurves]) -> list[CalibrationRow]:
    """One row a candidate that was checked."""
    found = []
    for one in curves:
        if one.test is None:
            continue
        p = "p\u00a0≤\u00a00.002" if one.test.p_value <= 0.002 else f"p\u00a0=\u00a0{one.test.p_value:.3f}"
        found.append(
            CalibrationRow(
                name=one.candidate,
                dev=words.UNKNOWN if one.dev is None else _ece_words(one.dev.ece),
                test=_ece_words(one.test.ece),
                difference=words.points_interval(one.ece_difference) if one.ece_difference else "",
                gap=words.points_interval(one.test.gap),
                near=_near_words(one.test.near),
                verdict=f"refuted ({p})" if one.refuted else f"not refuted ({p})",
                refuted=one.refuted,
            )
        )
    return found


def calibration_warnings(curves: Sequence[ConfidenceCurves]) -> list[str]:
    """One sentence for each candidate whose calibration test refutes."""
    return [
        f"Test refutes the confidences of {one.candidate}. {_gap_words(one.test.gap)} (debiased "
        f"calibration error {100 * one.test.ece.value:.1f} points, {100 * one.test.ece.low:.1f} to "
        f"{100 * one.test.ece.high:.1f}). A threshold on them keeps a "
        "different share right than it says. More dev examples, or a finer map (calibration in "
        "jettison.toml), may mend it."
        for one in curves
        if one.test is not None and one.refuted
    ]


def comparison_tables(comparisons: Sequence[SuiteComparison]) -> list[tuple[str, list[ComparisonRow]]]:
    """Tables by suite, in the order of `SECTIONS`; slices in their own, candidates within each."""
    tables: dict[str, list[SuiteComparison]] = {}
    for one in comparisons:
        tables.setdefault(section_of(one.slice), []).append(one)
    found = []
    for section, title in SECTIONS.items():
        rows = tables.get(section, [])
        slices = list(dict.fromkeys(one.slice for one in rows))
        ordered = sorted(rows, key=lambda one: slices.index(one.slice))
        if ordered:
            found.append((title, [_comparison_row(one) for one in ordered]))
    return found


def section_of(slice_name: str) -> str:
    """The suite that a slice is of."""
    column = slice_name.partition("=")[0]
    if column.startswith("found_"):
        return "found"
    return "long_tail" if column.startswith("tail_") else column


def attack_rows(attacks: Sequence[AttackOutcome]) -> list[AttackRow]:
    """One row a candidate under attack."""
    return [
        AttackRow(
            name=one.candidate,
            n=f"{one.n_right:,} of {one.n:,}",
            success=_share_words(one.success),
            queries=f"{one.mean_queries:.1f} of {one.budget}",
            robust=words.points_interval(one.robust_difference) if one.robust_difference else "",
            examples=one.examples[:MAX_LOST],
        )
        for one in attacks
    ]


def found_rows(searches: Sequence[SliceSearch]) -> list[FoundRow]:
    """Confirmed subgroups of all candidates, largest loss first."""
    found = [(search.candidate, one) for search in searches for one in search.found]
    return [
        FoundRow(
            candidate=name,
            slice=words.slice_words(one.name),
            n=f"{one.n:,}",
            loss=f"{100 * one.loss:.1f} [{100 * one.low:.1f}, {100 * one.high:.1f}]",
            elsewhere=f"{100 * one.rest_loss:.1f}",
            p="< 0.0001" if one.p_value < 0.0001 else f"{one.p_value:.4f}",
            examples=one.examples[:MAX_LOST],
        )
        for name, one in sorted(found, key=lambda pair: -pair[1].loss)
    ]


def search_words(searches: Sequence[SliceSearch]) -> list[str]:
    """How each search went, one sentence each; equal ones together."""
    names: dict[str, list[str]] = {}
    for one in searches:
        said = (
            f"{one.n_searched:,} subgroups were searched on one half of the test split, {one.n_tested} "
            f"tested on the {one.n_validate:,} examples of the other, {len(one.found)} confirmed (chance "
            f"of any false one at most {100 * one.alpha:g} %)."
        )
        names.setdefault(said, []).append(one.candidate)
    return [f"{', '.join(who)}: {said}" for said, who in names.items()]


def cannot_tell(suites: SuiteEvidence, decision: Decision) -> list[str]:
    """What the suites leave open, from what was in them and what was not."""
    said = []
    if not suites.tiers:
        said.append(
            "Only the test split was judged. Nothing is known of perturbed, adversarial or other "
            "out-of-domain inputs: [suites] in jettison.toml adds them."
        )
    else:
        missing = [t.replace("_", " ") for t in ALL_TIERS if not suites.tiers.get(t)]
        missing = [t for t in missing if t != "safety" or not _has_safety(decision)]
        if "adversarial" in missing and suites.attacks:
            missing.remove("adversarial")
        if missing:
            said.append(f"No examples of the tiers {', '.join(missing)}: nothing is known of them.")
        said += [
            f"Of {tier.replace('_', ' ')} there are {n:,} examples: they can certify no margin under "
            f"{100 * smallest_certifiable_margin(n):.2g} points, even if no answer changed."
            for tier, n in suites.tiers.items()
            if 0 < n < 368
        ]
        said += [f"Left out of the suites: {note}." for note in suites.not_built]
        said.append(
            "Differences on tiers that no gate names are shown with 95 % intervals each, and decide "
            "nothing: of twenty, one is expected to be off by chance."
        )
    if suites.tiers.get("perturbed"):
        said.append(
            "Perturbations change letters, marks and what stands around a text, never one word for "
            "another: paraphrases, dialects and other languages are not in them."
        )
    if suites.attacks:
        budget = max(one.budget for one in suites.attacks)
        said.append(
            f"The attack asks at most {budget} questions a text and changes letters and the order of "
            "words: what it did not turn, a stronger attack may. Its share of success is a lower bound."
        )
    if suites.searches:
        said.append(
            "Only subgroups that can be named (metadata, labels, words, length, clusters of texts) and "
            "hold 1 % of the examples and 40 at least were searched. That none was found does not show "
            "that there is none."
        )
    said += _refuted_words(suites.curves)
    if suites.curves:
        said.append(
            "Confidences were calibrated on dev: the curves hold for inputs like the test split's, and not "
            "for perturbed or out-of-domain ones."
        )
    else:
        said.append(
            "No curves of confidence: answers are graded and not right or wrong, carry no confidence, or "
            "are too few."
        )
    return said


def _refuted_words(curves: Sequence[ConfidenceCurves]) -> list[str]:
    """Whose confidences cannot be taken at their word, where test refutes any."""
    refuted = [one.candidate for one in curves if one.test is not None and one.refuted]
    if not refuted:
        return []
    return [
        f"How often {' and '.join(refuted)} {'is' if len(refuted) == 1 else 'are'} right at a given "
        "confidence: test refutes what they say of themselves. A threshold, the share that may be answered "
        "alone, or a quality estimated without labels is not to be read off them. The verdict does not "
        "rest on confidences."
    ]


def _has_safety(decision: Decision) -> bool:
    return any(result.metric == "safe" for c in decision.candidates for result in c.gates)


def _comparison_row(one: SuiteComparison) -> ComparisonRow:
    flips = f"{one.flips.harmful} / {one.flips.beneficial}" if one.flips is not None else ""
    return ComparisonRow(
        slice=words.slice_words(one.slice),
        candidate=one.candidate,
        scorer=words.metric_words(one.scorer),
        n=f"{one.n:,}",
        incumbent=words.percent(one.incumbent),
        score=words.percent(one.score),
        difference=words.points_interval(one.difference),
        flips=flips,
        interval=one.difference,
    )


def _brier_words(difference: Interval | None) -> str:
    if difference is None:
        return ""
    signed = [f"{v:+.4f}" for v in (difference.value, difference.low, difference.high)]
    return f" ({signed[0]} [{signed[1]}, {signed[2]}])"


def _near_words(near: BinOfAnswers | None) -> str:
    if near is None:
        return "too few"
    right = f"{100 * near.right_share:.1f} % [{100 * near.low:.1f}, {100 * near.high:.1f}]"
    return f"{right} at {near.confidence:.2f}, n = {near.n:,}"


def _gap_words(gap: Interval) -> str:
    if gap.low <= 0 <= gap.high:
        return "Too high in some places and too low in others"
    too = "Too sure" if gap.value > 0 else "Not sure enough"
    return f"{too} by {100 * abs(gap.value):.1f} points on average"


def _off_words(one: ConfidenceCurves) -> str:
    off = sum(not b.low <= b.confidence <= b.high for b in one.reliability)
    return f"{off} of {len(one.reliability)}"


def _risk_at(points: Sequence[KeptAnswers], share: float) -> str:
    """Error rate at the largest coverage up to a share, with the coverage where ties keep it apart."""
    kept = [p for p in points if p.coverage <= share + 1e-9]
    if not kept:
        return "cannot be cut there"
    point = kept[-1]
    said = f"{100 * point.risk:.1f} % [{100 * point.low:.1f}, {100 * point.high:.1f}]"
    return said if share - point.coverage < 0.03 else f"{said} at {100 * point.coverage:.0f} %"


def _ece_words(ece: Interval) -> str:
    """In points, as the gap beside it: a difference between confidences and the share of right answers."""
    return f"{100 * ece.value:.1f} [{100 * ece.low:.1f}, {100 * ece.high:.1f}]"


def _share_words(share: Interval | None) -> str:
    if share is None:
        return words.UNKNOWN
    return f"{100 * share.value:.1f} % [{100 * share.low:.1f}, {100 * share.high:.1f}]"
