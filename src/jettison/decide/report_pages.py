"""The HTML page, self-contained: style, script and pictures are in it, and every text is escaped."""

from importlib.resources import files
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup, escape

from jettison.candidate import library_versions
from jettison.decide import report_sections as sections
from jettison.decide import report_suites as suites
from jettison.decide import report_view as view
from jettison.decide import report_words as words
from jettison.decide.certified import certified_words
from jettison.decide.report_costs import ESTIMATED_LEAD, ESTIMATED_TITLE, cost_rows, cost_tables
from jettison.decide.report_curve_plots import reliability_plot, risk_coverage_plot, top_of_risk
from jettison.decide.report_forest import forest_axis, interval_axis
from jettison.decide.report_latency import latency_view, report_cost_notes
from jettison.decide.report_pareto import margin_on_all, quality_against_cost
from jettison.decide.report_shapes import marker
from jettison.decide.report_types import ReportContent
from jettison.decision import CandidateReport, Decision

_LEGEND = {"incumbent": "incumbent", "ship": "ship", "block": "blocked", "unsure": "not enough data"}


def html_page(content: ReportContent) -> str:
    """The whole report as one HTML file that needs nothing else."""
    environment = Environment(
        loader=FunctionLoader(_template), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.globals["marker"] = marker
    environment.filters["code"] = _with_code
    environment.filters["heading"] = words.heading
    return environment.get_template("report.html").render(
        css=Markup(_template("report.css")),
        js=Markup(_template("report.js")),
        version=library_versions()["jettison"],
        **_top(content.decision),
        weakest=view.weakest(content),
        smallest_room=view.SMALLEST_ROOM,
        difference_lead=view.DIFFERENCE_LEAD,
        **_middle(content),
        **_suites(content),
        **_bottom(content),
    )


def _top(decision: Decision) -> dict[str, Any]:
    word, css = sections.headline_word(decision)
    incumbent = view.incumbent_of(decision)
    shapes = {view.css_of(candidate, decision) for candidate in decision.candidates}
    return {
        "decision": decision,
        "decided": words.moment(decision.created),
        "verdict_word": word,
        "verdict_css": css,
        "spotlight": view.spotlight(decision),
        "spotlight_note": _spotlight_note(decision),
        "tiles": view.tiles(decision),
        "who_answered": _who_answered(decision),
        "metric": words.metric_words(view.main_metric(decision)),
        "ratio_heading": view.ratio_heading(decision),
        "n_test": f"{incumbent.n['all']:,}" if "all" in incumbent.n else "",
        "candidates": view.candidate_rows(decision),
        "has_margin": margin_on_all(decision) is not None,
        "shapes": [(css, said) for css, said in _LEGEND.items() if css in shapes],
        "plot_wide": quality_against_cost(decision, width=960, height=430),
        "plot_narrow": quality_against_cost(decision, width=390, height=400),
    }


def _middle(content: ReportContent) -> dict[str, Any]:
    decision = content.decision
    flips = sections.flip_rows(content)
    return {
        "forests": _forests(decision),
        "alpha_words": sections.alpha_words(decision),
        "flips": flips,
        "flip_counts": sections.flip_count_words(content),
        "flip_choices": _flip_choices(flips, decision),
        "threads": _threads(decision),
        "costs": cost_tables(cost_rows([c.cost for c in decision.candidates])),
        "names": [c.name for c in decision.candidates],
        "latency": latency_view(content),
        "estimated_title": ESTIMATED_TITLE,
        "estimated_lead": ESTIMATED_LEAD,
        "cost_notes": report_cost_notes(content),
    }


def _suites(content: ReportContent) -> dict[str, Any]:
    found = content.suites
    return {
        "suite_forests": _suite_forests(content),
        "suite_tiers": [(name.replace("_", " "), f"{n:,}") for name, n in found.tiers.items()],
        "attacks": suites.attack_rows(found.attacks),
        "found": suites.found_rows(found.searches),
        "searches": suites.search_words(found.searches),
        "curves": _curves(content),
        "calibrations": suites.calibration_rows(found.curves),
        "bins_off": suites.BINS_OFF,
        "calibration_lead": suites.CALIBRATION_LEAD,
        "calibration_heads": suites.CALIBRATION_HEADS,
        "calibration_warnings": suites.calibration_warnings(found.curves),
        "confidences": suites.confidence_rows(found.curves),
        "curves_on": words.slice_words(found.curves[0].on) if found.curves else "",
        "cannot_tell": suites.cannot_tell(found, content.decision),
    }


def _suite_forests(content: ReportContent) -> list[dict[str, Any]]:
    """Per candidate the slices of the suites, all on one axis."""
    axis = interval_axis([one.difference for one in content.suites.comparisons])
    if axis is None:
        return []
    forests = []
    for candidate in view.contenders(content.decision):
        own = [one for one in content.suites.comparisons if one.candidate == candidate.name]
        tables = [
            {"title": title, "rows": [(row, axis.interval(row.interval)) for row in rows]}
            for title, rows in suites.comparison_tables(own)
        ]
        if tables:
            is_open = candidate is view.spotlight(content.decision)
            forests.append(
                {"name": candidate.name, "tables": tables, "scale": axis.scale(), "is_open": is_open}
            )
    return forests


def _curves(content: ReportContent) -> list[dict[str, Any]]:
    """Both pictures of each candidate, the incumbent's line beside each of the others."""
    found = content.suites.curves
    css = {c.name: view.css_of(c, content.decision) for c in content.decision.candidates}
    most = top_of_risk([one.risk_coverage for one in found])
    beside = next((c.risk_coverage for c in found if c.candidate == content.decision.incumbent), ())
    return [
        {
            "name": one.candidate,
            "n": f"{one.n:,}",
            "reliability": reliability_plot(one.reliability, css=css[one.candidate], name=one.candidate),
            "risk": risk_coverage_plot(
                one.risk_coverage,
                () if one.candidate == content.decision.incumbent else beside,
                css=css[one.candidate],
                name=one.candidate,
                most=most,
            ),
        }
        for one in found
        if one.candidate in css
    ]


def _bottom(content: ReportContent) -> dict[str, Any]:
    decision = content.decision
    score_names, scores = view.score_rows(decision)
    return {
        "content": content,
        "tried": sections.tried_rows(content.tried),
        "gate_rules": sections.gate_rules(decision),
        "gate_tables": [_gate_table(c, decision) for c in view.contenders(decision)],
        "score_names": [words.metric_words(name) for name in score_names],
        "scores": scores,
        "caveats": sections.caveats(decision),
        "facts": sections.facts(decision),
        "lineage": [
            (name, sections.lineage_words(steps)) for name, steps in content.lineage.items() if steps
        ],
        "settings": sections.settings_text(content),
    }


def _forests(decision: Decision) -> list[dict[str, Any]]:
    """One forest a candidate, all on one axis."""
    axis = forest_axis([r for c in view.contenders(decision) for r in sections.shown_slices(c)[0]])
    if axis is None:
        return []
    return [
        {
            "name": candidate.name,
            "css": view.css_of(candidate, decision),
            "verdict": words.VERDICT_WORDS[candidate.verdict],
            "scale": axis.scale(),
            "rows": [
                {
                    "slice": words.slice_words(result.slice),
                    "css": words.VERDICT_CLASSES[result.verdict],
                    "verdict": words.VERDICT_WORDS[result.verdict],
                    "plot": axis.row(result),
                    "figures": words.points_interval(result.difference),
                    "n": "?" if result.n is None else f"{result.n:,}",
                }
                for result in sections.shown_slices(candidate)[0]
            ],
            "n_left_out": sections.shown_slices(candidate)[1],
            "certified": certified_words(candidate.gates, written=words.slice_words),
        }
        for candidate in view.contenders(decision)
        if sections.slice_results(candidate)
    ]


def _flip_choices(flips: list[sections.FlipRow], decision: Decision) -> list[dict[str, Any]]:
    """Filters: by candidate (one to begin with), slice, what happened; each where there is a choice."""
    first = view.spotlight(decision)
    candidates = list(dict.fromkeys(flip.candidate for flip in flips))
    slices = sorted({part for flip in flips for part in flip.slices.split("|") if part})
    kinds = {flip.kind: flip.kind_words for flip in flips}
    chosen = first.name if first is not None and first.name in candidates else ""
    choices: list[dict[str, Any]] = [
        {
            "name": "candidate",
            "title": "Candidate",
            "options": [(name, name) for name in candidates],
            "chosen": chosen,
        },
        {
            "name": "slice",
            "title": "Slice",
            "options": [(name, words.slice_words(name)) for name in slices],
            "chosen": "",
        },
        {"name": "kind", "title": "Change", "options": list(kinds.items()), "chosen": ""},
    ]
    return [choice for choice in choices if len(choice["options"]) > 1]


def _gate_table(candidate: CandidateReport, decision: Decision) -> dict[str, Any]:
    return {
        "name": candidate.name,
        "css": view.css_of(candidate, decision),
        "verdict": words.VERDICT_WORDS[candidate.verdict],
        "rows": sections.gate_rows(candidate),
        "is_open": candidate is view.spotlight(decision),
    }


def _who_answered(decision: Decision) -> str:
    candidate = view.spotlight(decision)
    return view.who_answered(candidate) if candidate is not None else ""


def _spotlight_note(decision: Decision) -> str:
    candidate = view.spotlight(decision)
    if candidate is None:
        return ""
    judged = words.VERDICT_WORDS[candidate.verdict].lower()
    return f"nominated; {judged}" if candidate.role == "nominee" else judged


def _threads(decision: Decision) -> str:
    found = {c.cost.threads for c in decision.candidates if c.cost.n_tasks}
    if len(found) != 1:
        return ""
    (threads,) = found
    return "one thread" if threads == 1 else f"{threads} threads"


def _with_code(text: str) -> Markup:
    """What stands between backticks as code, everything escaped."""
    parts = enumerate(text.split("`"))
    return Markup("").join(Markup("<code>{}</code>").format(t) if i % 2 else escape(t) for i, t in parts)


def _template(name: str) -> str:
    return (files("jettison.decide") / "templates" / name).read_text(encoding="utf-8")
