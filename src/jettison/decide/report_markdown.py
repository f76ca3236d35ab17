"""The same report as Markdown, for a pull request or a terminal: what decides first, long tables folded."""

from collections.abc import Sequence

from jettison.decide import report_sections as sections
from jettison.decide import report_suites as suites
from jettison.decide import report_view as view
from jettison.decide import report_words as words
from jettison.decide.certified import certified_words
from jettison.decide.report_costs import (
    ESTIMATED_LEAD,
    ESTIMATED_TITLE,
    CostRow,
    cost_rows,
    cost_tables,
)
from jettison.decide.report_latency import curve_rows, latency_left_open, quantile_rows, report_cost_notes
from jettison.decide.report_load import curve_words, load_notes, load_rows, not_measured, scenario_words
from jettison.decide.report_types import ReportContent
from jettison.decision import Decision

_SYMBOLS = {"ship": "●", "block": "■", "unsure": "▲", "incumbent": "◆"}


READ_FIRST = ("CPU time", "Latency", "Throughput", "Price", "Energy", "Size on disk")
"""Costs that stand open, by how their names begin; the rest is folded."""
N_READ = 5
"""Changed answers that stand open; the rest is folded."""


def markdown_page(content: ReportContent) -> str:
    """The whole report as GitHub-flavored Markdown; texts from outside are escaped."""
    decision = content.decision
    parts = [
        *_head(content),
        *_candidates(decision),
        *_slices(decision),
        *_found(content),
        *_costs(content),
        *_limits(content),
        *_flips(content),
        *_suites(content),
        *_confidence(content),
        *_latency(content),
        *_tried(content),
        *_gates(decision),
        *_rest(content),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def escaped(text: object) -> str:
    """Text that Markdown takes as it stands: no markup, no line break, no table cell begun."""
    flat = " ".join(str(text).split())
    for character in "\\`*_[]<>|#~":
        flat = flat.replace(character, f"\\{character}" if character not in "<>" else _ENTITIES[character])
    return flat


_ENTITIES = {"<": "&lt;", ">": "&gt;"}


def _folded(title: str, parts: Sequence[str]) -> list[str]:
    """Parts that open on a click where Markdown is drawn as HTML, and read on in a terminal."""
    return [f"<details><summary>{title}</summary>", *parts, "</details>"] if any(parts) else []


def _head(content: ReportContent) -> list[str]:
    decision = content.decision
    word, css = sections.headline_word(decision)
    tiles = [
        f"- **{tile.title}**: {escaped(tile.value)} ({escaped(tile.detail)})"
        for tile in view.tiles(decision)
    ]
    spotlight = view.spotlight(decision)
    about = f"{escaped(spotlight.name)} against {escaped(decision.incumbent)}:" if spotlight else ""
    weakest = view.weakest(content)
    return [
        f"# {_SYMBOLS[css]} {word}: {escaped(decision.task)}",
        f"**{escaped(decision.headline)}**",
        about,
        "\n".join(tiles),
        escaped(view.who_answered(spotlight)) if spotlight else "",
        *([f"Slices with the {view.SMALLEST_ROOM}:", _list(weakest)] if weakest else []),
        *(["Why:", _list(decision.reasons)] if decision.reasons else []),
    ]


def _candidates(decision: Decision) -> list[str]:
    metric = words.heading(words.metric_words(view.main_metric(decision)))
    header = [
        "Candidate",
        "Verdict",
        metric,
        "Difference, points",
        view.ratio_heading(decision),
        "Median latency",
        "Size",
    ]
    rows = [
        [
            f"{row.name} ({row.note})" if row.note else row.name,
            f"{_SYMBOLS[row.css]} {row.verdict}{f': {row.blocked_by}' if row.blocked_by else ''}",
            row.score,
            f"{row.difference} [{row.difference_bounds}] {row.difference_where}".strip()
            if row.difference_bounds
            else row.difference,
            f"{row.cpu} [{row.cpu_bounds}]" if row.cpu_bounds else row.cpu,
            row.latency,
            row.size,
        ]
        for row in view.candidate_rows(decision)
    ]
    return ["## Candidates", view.DIFFERENCE_LEAD, _table(header, rows)]


def _slices(decision: Decision) -> list[str]:
    header = ["Candidate", "Gate", "Verdict", "Difference, points", "Limit", "n", "Worse / better", "p"]
    rows = [
        [c.name, r.gate, r.verdict, r.difference, r.limit, r.n, r.flips, r.p]
        for c in view.contenders(decision)
        for r in sections.gate_rows(c)
    ]
    left_out = [
        f"{n} more slices of {c.name} lose less; every one is in report.json."
        for c in view.contenders(decision)
        if (n := sections.shown_slices(c)[1])
    ]
    certified = [
        f"{c.name}: {told}"
        for c in view.contenders(decision)
        if (told := certified_words(c.gates, written=words.slice_words))
    ]
    return (
        [
            "## Gates, slice by slice",
            _table(header, rows),
            _list([*left_out, *certified, *sections.alpha_words(decision)]),
        ]
        if rows
        else []
    )


def _suites(content: ReportContent) -> list[str]:
    tables = suites.comparison_tables(content.suites.comparisons)
    attacks = suites.attack_rows(content.suites.attacks)
    if not tables and not attacks:
        return []
    header = ["Suite", "Slice", "Candidate", "Score", "n", "Incumbent", "Candidate's", "Difference, points"]
    header += ["Flips: worse / better"]
    rows = [
        [title, r.slice, r.candidate, r.scorer, r.n, r.incumbent, r.score, r.difference, r.flips]
        for title, rows in tables
        for r in rows
    ]
    said = "Each with a 95 % interval; gates alone decide."
    attacked = [
        "Candidate",
        "Right before",
        "Turned wrong",
        "Questions a text",
        "Right under attack, points",
    ]
    under = [[r.name, r.n, r.success, r.queries, r.robust] for r in attacks]
    turned = [
        f"{r.name}: {e.before} → {e.text} ({e.expected} → {e.answer})" for r in attacks for e in r.examples
    ]
    return [
        "## Suites",
        *([said, *_folded(f"{len(rows)} comparisons", [_table(header, rows)])] if rows else []),
        *(["### Under attack", _table(attacked, under), _list(turned)] if under else []),
    ]


def _found(content: ReportContent) -> list[str]:
    searched = suites.search_words(content.suites.searches)
    if not searched:
        return []
    header = ["Slice", "Candidate", "Loss, points", "Elsewhere", "n", "p", "Right before, wrong now"]
    rows = [
        [r.slice, r.candidate, r.loss, r.elsewhere, r.n, r.p, "; ".join(e.text for e in r.examples)]
        for r in suites.found_rows(content.suites.searches)
    ]
    return ["## Worst slices that nobody declared", _list(searched), _table(header, rows) if rows else ""]


def _confidence(content: ReportContent) -> list[str]:
    rows = [[r.name, r.brier, r.off, *r.risks] for r in suites.confidence_rows(content.suites.curves)]
    if not rows:
        return []
    on = words.slice_words(content.suites.curves[0].on)
    checks = [
        [r.name, r.dev, r.test, r.difference, r.gap, r.near, r.verdict]
        for r in suites.calibration_rows(content.suites.curves)
    ]
    header = ["Candidate", "Brier (paired difference)", suites.BINS_OFF]
    header += ["Wrong among the surest half", "four fifths", "all"]
    bins = [
        [
            one.candidate,
            f"{100 * b.confidence:.1f} %",
            f"{100 * b.right_share:.1f} %",
            f"{100 * b.low:.1f} to {100 * b.high:.1f}",
            f"{b.n:,}",
        ]
        for one in content.suites.curves
        for b in one.reliability
    ]
    return [
        "## Confidence",
        f"On {escaped(on)}: whether a confidence means what it says.",
        *(f"**Warning:** {escaped(said)}" for said in suites.calibration_warnings(content.suites.curves)),
        *([suites.CALIBRATION_LEAD, _table(suites.CALIBRATION_HEADS, checks)] if checks else []),
        _table(header, rows),
        *_folded("Reliability", [_table(["Candidate", "Confidence", "Right", "95 % interval", "n"], bins)]),
    ]


def _flips(content: ReportContent) -> list[str]:
    rows = sections.flip_rows(content)
    if not rows:
        return []
    spotlight = view.spotlight(content.decision)
    rows.sort(key=lambda row: (row.kind != "harmful", spotlight is None or row.candidate != spotlight.name))
    header = ["Change", "Candidate", "Input", "Right answer", "Incumbent", "Candidate's answer", "Where"]
    cells = [[r.kind_words, r.candidate, r.input, r.expected, r.incumbent, r.answer, r.where] for r in rows]
    first, others = cells[:N_READ], cells[N_READ:]
    counts = _list(sections.flip_count_words(content))
    folded = _folded(f"{len(others)} more", [_table(header, others)]) if others else []
    return ["## Changed answers to read", counts, _table(header, first), *folded]


def _costs(content: ReportContent) -> list[str]:
    decision = content.decision
    costs = [c.cost for c in decision.candidates]
    header = ["Cost", *(c.name for c in decision.candidates)]
    tables = cost_tables(cost_rows(costs))
    first = [row for row in tables.measured if row.name.startswith(READ_FIRST) or row.name == "Peak memory"]
    others = [row for row in tables.measured if row not in first]
    return [
        "## Costs",
        "One task at a time on the task's dev inputs, each candidate in its own process.",
        _table(header, _cost_cells(first)),
        *_folded("More that was measured", [_table(header, _cost_cells(others))] if others else []),
        *_folded(ESTIMATED_TITLE, _estimates(header, tables.estimated)),
        *_folded("Notes to the costs", [_list(report_cost_notes(content))]),
    ]


def _latency(content: ReportContent) -> list[str]:
    decision, load = content.decision, content.load
    rows = quantile_rows(decision)
    parts = ["## Latency"]
    if rows:
        header = ["Service time, tasks done", *(c.name for c in decision.candidates)]
        parts += ["One task at a time, no queue.", _table(header, rows)]
    if load is None:
        return [*parts, latency_left_open(content)]
    tables, names = cost_tables(load_rows(load)), [t.name for t in load.targets]
    curve = curve_rows(load)
    return [
        *parts,
        f"### Under load: {escaped(scenario_words(load))}",
        _table(["Cost", *names], _cost_cells(tables.measured)),
        *_folded(f"{ESTIMATED_TITLE}, under load", _estimates(["Cost", *names], tables.estimated)),
        *(["#### Latency against rate", escaped(curve_words(load)), _table(CURVE, curve)] if curve else []),
        _list([*not_measured(load), *load_notes(load)]),
    ]


CURVE = ["Target", "Rate", "Percentile", "Limit", "Requests"]


def _estimates(header: Sequence[str], rows: Sequence[CostRow]) -> list[str]:
    """A table of their own, where there are any."""
    if not rows:
        return []
    return [ESTIMATED_LEAD, _table(header, _cost_cells(rows))]


def _cost_cells(rows: Sequence[CostRow]) -> list[list[str]]:
    return [[f"{r.name} ({r.what})" if r.what else r.name, *r.figures] for r in rows]


def _tried(content: ReportContent) -> list[str]:
    if not content.tried:
        return []
    ratio = view.ratio_heading(content.decision)
    header = ["Candidate", "Outcome", "Why", "Dev score", "Difference, points", ratio, "Size"]
    tried = sections.tried_rows(content.tried)
    rows = [[r.name, r.status, r.reason, r.score, r.difference, r.cpu, r.size] for r in tried]
    made = [[r.name, r.steps, "; ".join(r.stages)] for r in tried]
    return [
        "## What was tried",
        "All scores here are of dev; a difference is to the incumbent's, above zero where it is better.",
        _table(header, rows),
        *_folded("How each was made", [_table(["Candidate", "Steps", "Each step"], made)]),
    ]


def _gates(decision: Decision) -> list[str]:
    header = ["Candidate", "Gate", "Why", "Method"]
    rows = [
        [c.name, r.gate, r.reason, r.method]
        for c in view.contenders(decision)
        for r in sections.gate_rows(c)
    ]
    names, scores = view.score_rows(decision)
    score_header = ["Slice", "Candidate", *map(words.metric_words, names), "n"]
    score_cells = [[where, name, *figures, n] for where, n, name, figures in scores]
    return [
        "## How the gates were computed",
        _list(sections.gate_rules(decision)),
        *(_folded("Each verdict in words", [_table(header, rows)]) if rows else []),
        *(
            _folded("All scores, slice by slice", [_table(score_header, score_cells)])
            if score_cells
            else []
        ),
    ]


def _limits(content: ReportContent) -> list[str]:
    return [
        "## What this evidence cannot tell",
        _list(sections.caveats(content.decision)),
        "### What the suites cannot tell",
        _list(suites.cannot_tell(content.suites, content.decision)),
    ]


def _rest(content: ReportContent) -> list[str]:
    decision = content.decision
    findings = [f"{f.severity}: {f.message}" for f in content.findings]
    lineage = [
        f"{name}: {'; '.join(sections.lineage_words(steps))}"
        for name, steps in content.lineage.items()
        if steps
    ]
    settings = sections.settings_text(content).replace("```", "'''")
    return [
        *(["## What the data showed", _list(findings)] if findings else []),
        "## How to reproduce it",
        _list([f"{name}: {value}" for name, value in sections.facts(decision)]),
        *(_folded("Lineage", [_list(lineage)]) if lineage else []),
        *(_folded("Settings", [f"```json\n{settings}\n```"]) if settings else []),
    ]


def _list(items: Sequence[str]) -> str:
    return "\n".join(f"- {escaped(item)}" for item in items)


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(
        "| " + " | ".join(cell if cell == "---" else escaped(cell) for cell in line) + " |"
        for line in lines
    )
