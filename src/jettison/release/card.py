"""The model card of a release: what it is, what was proved, at what cost, and what was not."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from jettison.candidate import CUT_NOTE, Candidate, lineage_by_part
from jettison.decision import CandidateReport, CostSummary, Decision, GateResult, Interval, ratio_figure
from jettison.release.types import ReleaseFacts

COSTS = {
    "cpu_s": ("CPU per task", 1e3, "ms"),
    "latency_p50_s": ("latency, median", 1e3, "ms"),
    "latency_p95_s": ("latency, 95th percentile", 1e3, "ms"),
    "throughput_per_s": ("throughput, in batches", 1, "tasks/s"),
    "peak_bytes": ("peak memory", 1e-6, "MB"),
    "load_s": ("load", 1, "s"),
    "bytes": ("on disk", 1e-6, "MB"),
    "energy_j": ("energy per task", 1e3, "mJ"),
    "usd_per_1000": ("price per 1,000 tasks", 1, "USD"),
}


def model_card(
    facts: ReleaseFacts,
    candidate: Candidate,
    decision: Decision,
    report: CandidateReport,
    *,
    notes: Sequence[str] = (),
) -> str:
    """Markdown with the front matter that model hubs read, `model-index` included.

    `notes` stand beside the decision's caveats.
    """
    return "\n".join(
        (
            "---",
            *_yaml(front_matter(facts, decision, report)),
            "---",
            "",
            *_body(facts, candidate, decision, report, notes),
            "",
        )
    )


def front_matter(facts: ReleaseFacts, decision: Decision, report: CandidateReport) -> dict[str, Any]:
    """Hub metadata; each metric on a gated slice carries its difference's interval in `name` and `args`."""
    dataset = {
        "name": facts.task,
        "type": facts.task,
        "split": "test",
        "revision": decision.test_digest,
    }
    result = {
        "task": {"type": "text-classification", "name": facts.task},
        "dataset": dataset,
        "metrics": list(_metrics(report)),
    }
    return {
        "license": facts.licence.lower() if facts.licence else "unknown",
        "library_name": "jettison",
        "pipeline_tag": "text-classification",
        "tags": ["jettison", f"verdict:{facts.verdict}"],
        "model-index": [{"name": facts.name, "results": [result]}],
    }


def _metrics(report: CandidateReport) -> Iterator[dict[str, Any]]:
    """On all examples and on what a gate asked of: `decision.json` has every slice."""
    gates = {(gate.metric, gate.slice): gate for gate in report.gates if gate.difference is not None}
    gated = {slice_name for _, slice_name in gates}
    for slice_name, scores in report.scores.items():
        for metric, value in scores.items():
            if value is None or (slice_name != "all" and slice_name not in gated):
                continue
            # The label scorer's mean is what everyone else calls accuracy.
            gate = gates.get(("label" if metric == "accuracy" else metric, slice_name))
            yield {
                "type": metric,
                "value": value,
                "name": _metric_name(metric, slice_name, gate),
                "args": {"slice": slice_name, "n": report.n.get(slice_name), **_interval(gate)},
            }


def _metric_name(metric: str, slice_name: str, gate: GateResult | None) -> str:
    name = f"{metric.replace('_', ' ')} ({slice_name})"
    if gate is None or gate.difference is None:
        return name
    d = gate.difference
    return (
        f"{name}, {d.value:+.4f} against the incumbent, "
        f"{100 * d.confidence:g} % interval {d.low:+.4f} to {d.high:+.4f}"
    )


def _interval(gate: GateResult | None) -> dict[str, Any]:
    if gate is None or gate.difference is None:
        return {}
    d = gate.difference
    return {
        "difference": d.value,
        "difference_low": d.low,
        "difference_high": d.high,
        "confidence": d.confidence,
        "margin": gate.limit,
        "verdict": gate.verdict.value,
    }


def _body(
    facts: ReleaseFacts,
    candidate: Candidate,
    decision: Decision,
    report: CandidateReport,
    notes: Sequence[str],
) -> Iterator[str]:
    yield f"# {facts.name}"
    yield ""
    yield f"**{facts.verdict}**: {facts.headline}"
    yield ""
    yield "```bash"
    yield f'jettison predict {facts.name} "a text to label"'
    yield "```"
    yield ""
    yield "## What was proved"
    yield ""
    reads = f"read {decision.n_test_reads} time(s)"
    yield f"On the test split of `{facts.task}`, {reads}, on {facts.proven_on}."
    yield from _gate_table(report)
    yield from _cost_table(report.cost)
    if decision.caveats or notes:
        yield from ("", "## What the evidence cannot tell", "")
        yield from (f"- {caveat}" for caveat in (*notes, *decision.caveats))
    yield from ("", "## What it is", "")
    yield f"- candidate `{candidate.name}`, backend `{candidate.backend}`, digest `{candidate.digest}`"
    yield f"- {len(candidate.labels)} labels, out-of-scope label: {candidate.out_of_scope or 'none'}"
    yield f"- licence: {facts.licence or 'unknown'}"
    yield "- runs on " + ", ".join(f"{name} {version}" for name, version in facts.requires.items())
    yield f"- measured on {decision.machine.get('cpu', 'an unnamed processor')}"
    yield from ("", "Made by:", "")
    yield from (f"{i}. {step}" for i, step in enumerate(_made_by(candidate), 1))
    if not candidate.lineage:
        yield "no step: the model as it came."


def _gate_table(report: CandidateReport) -> Iterator[str]:
    if not report.gates:
        return
    yield from ("", "| gate | slice | n | incumbent | candidate | difference | limit | verdict |")
    yield "|---|---|---|---|---|---|---|---|"
    for gate in report.gates:
        cells = (
            f"{gate.gate} {gate.metric}",
            (gate.slice or "").replace("|", "\\|"),
            "" if gate.n is None else str(gate.n),
            _number(gate.metric, gate.incumbent),
            _number(gate.metric, gate.candidate),
            _difference(gate),
            _number(gate.metric, gate.limit),
            gate.verdict.value,
        )
        yield f"| {' | '.join(cells)} |"


def _cost_table(cost: CostSummary) -> Iterator[str]:
    is_estimate = (cost.energy_tier or "").startswith("E")
    measured = msgspec.structs.replace(cost, energy_j=None) if is_estimate else cost
    rows = [
        (title, _cost(getattr(measured, name), scale), unit) for name, (title, scale, unit) in COSTS.items()
    ]
    yield from ("", "| cost | value |", "|---|---|")
    compared = cost.ratio_words if cost.ratio else "CPU time"
    yield f"| {compared} over the incumbent's | {_ratio(cost.ratio)} |"
    yield from (
        f"| {title} | {value + ' ' + unit if value else 'not measured'} |" for title, value, unit in rows
    )
    if cost.energy_j is not None:
        kind = "ESTIMATED, not measured" if is_estimate else "measured"
        factor = "" if cost.energy_factor is None else f", ×/÷ {cost.energy_factor:g}"
        yield ""
        yield (
            f"Energy per task is {kind}: {'≈ ' if is_estimate else ''}{1000 * cost.energy_j:.3g} mJ (tier "
            f"{cost.energy_tier}{factor}; boundary: {cost.energy_boundary}; {cost.energy_source})."
        )


def _cost(value: Any, scale: float) -> str:
    if value is None:
        return ""
    if hasattr(value, "low"):
        return f"{value.value * scale:.3g} ({value.low * scale:.3g} to {value.high * scale:.3g})"
    return f"{value * scale:.3g}"


def _ratio(found: Interval | None) -> str:
    if found is None:
        return "not measured"
    return f"{ratio_figure(found.value)} ({ratio_figure(found.low)} to {ratio_figure(found.high)})"


def _difference(gate: GateResult) -> str:
    d = gate.difference
    return "" if d is None else f"{d.value:+.4f} ({d.low:+.4f} to {d.high:+.4f})"


def _number(metric: str, value: float | None) -> str:
    if value is None:
        return ""
    return ratio_figure(value) if metric.endswith("_ratio") else f"{value:.4g}"


def _made_by(candidate: Candidate) -> Iterator[str]:
    """Each step with the settings it was given, the arms' of a cascade first."""
    for one in lineage_by_part(candidate):
        for applied in one.steps:
            settings = ", ".join(f"{k}={v}" for k, v in applied.settings.items())
            part = f"{one.part}: " if one.part not in ("", candidate.name) else ""
            cut = ", cut short by the budget" if CUT_NOTE in applied.notes else ""
            yield f"{part}{applied.step}" + (f" ({settings})" if settings else "") + cut


def _yaml(value: Any, indent: str = "") -> Iterator[str]:
    """Block YAML of maps and lists."""
    entries = value.items() if isinstance(value, Mapping) else (("-", item) for item in value)
    for key, item in entries:
        head = f"{indent}-" if key == "-" else f"{indent}{key}:"
        if isinstance(item, Mapping | list) and item:
            yield head
            yield from _yaml(item, indent + "  ")
        else:
            yield f"{head} {_scalar(item)}"


def _scalar(value: Any) -> str:
    """JSON, which is YAML too, but for the exponents of small numbers."""
    return f"{value:.6f}" if isinstance(value, float) else json.dumps(value, ensure_ascii=False)
