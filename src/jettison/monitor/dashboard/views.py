"""What each page shows, as plain values and finished charts."""

from collections.abc import Callable, Sequence
from typing import Any

from markupsafe import Markup

from jettison.decision import CandidateReport, GateResult, ratio_figure
from jettison.monitor.dashboard.board import Board, Trial
from jettison.monitor.dashboard.plots import Bars, Line, bar_plot, figure, line_plot
from jettison.monitor.dashboard.quality import Point
from jettison.monitor.dashboard.sources import ReleaseView
from jettison.monitor.dashboard.tally import ArmCount, Stretch, Tally
from jettison.monitor.drift_changes import Change
from jettison.monitor.drift_stream import DriftStatus
from jettison.monitor.evidence import Finding

CSS = tuple(f"c{i}" for i in range(9))
SPANS = {"hours": "3 hours", "days": "14 days"}
METRIC_WORDS = {
    "label": "right answers",
    "feedback": "feedback",
    "agreement": "agreement",
    "errors": "answered without error",
    "guardrails": "no guardrail fired",
    "escalated": "not escalated",
    "latency_s": "latency",
    "price_usd": "price",
    "energy_j": "energy",
}


def overview(board: Board, span: str) -> dict[str, Any]:
    """Traffic, quality, latency, cost and escalations, as charts and as one table of the arms."""
    if span not in SPANS:
        first, last = board.first_time, board.last_time
        span = "days" if first and last and last - first > 3 * 3600 else "hours"
    tally = board.minutes if span == "hours" else board.hours
    whole = tally.whole()
    arms = tally.arms
    css = {name: CSS[i] for i, name in enumerate(arms)}
    total = whole.whole
    return {
        "span": span,
        "spans": SPANS,
        "tiles": _tiles(total, whole, board),
        "arms": [_arm_row(name, whole.arms[name], total.n, board, css[name]) for name in arms],
        "charts": _charts(tally, arms, css, board) if total.n else [],
    }


def _tiles(total: ArmCount, whole: Stretch, board: Board) -> list[tuple[str, str, str]]:
    labelled = sum(path.n for path in board.quality.arms.values())
    p95 = figure(total.latency_s(0.95), "seconds")
    return [
        ("requests", f"{total.n:,}", f"{figure(total.error_share, 'share')} without an answer"),
        ("latency", figure(total.latency_s(0.5), "seconds"), f"95 %: {p95}"),
        ("escalated", figure(total.escalated_share, "share"), "of the answers came from a fallback"),
        (
            "cost per 1,000",
            figure(_thousand(whole.usd_each), "usd"),
            "shadows and audits included, where prices are known",
        ),
        ("judged", f"{labelled:,}", "requests on which feedback came"),
    ]


def _arm_row(name: str, count: ArmCount, n: int, board: Board, css: str) -> dict[str, Any]:
    path = board.quality.arms.get(name)
    points = path.points() if path is not None else []
    last = points[-1] if points else None
    return {
        "name": name,
        "css": css,
        "n": f"{count.n:,}",
        "share": figure(count.n / n, "share"),
        "p50": figure(count.latency_s(0.5), "seconds"),
        "p95": figure(count.latency_s(0.95), "seconds"),
        "p99": figure(count.latency_s(0.99), "seconds"),
        "errors": figure(count.error_share, "share"),
        "escalated": figure(count.escalated_share, "share"),
        "usd": ("≥ " if 0 < count.n_priced < count.n else "") + figure(_thousand(count.usd_each), "usd"),
        "joules": figure(count.joules_each, "joules"),
        "quality": quality_words(last),
    }


def quality_words(point: Point | None) -> str:
    """A mean with its bounds, and how many it rests on."""
    if point is None:
        return "–"
    bounds = f"{figure(point.low, 'share')} to {figure(point.high, 'share')}"
    return f"{figure(point.value, 'share')} ({bounds}, n {point.n:,})"


def _charts(tally: Tally, arms: Sequence[str], css: dict[str, str], board: Board) -> list[dict[str, Any]]:
    first, last, empty, none = min(tally.stretches), max(tally.stretches), Stretch(), ArmCount()
    stretches = [tally.stretches.get(at, empty) for at in range(first, last + 1)]
    times = [at * tally.width_s for at in range(first, last + 1)]
    middles = [time + tally.width_s / 2 for time in times]
    legend = [(arm, css[arm]) for arm in arms]

    def by_arm(value: Callable[[ArmCount], float | None], kind: str, said: str) -> Markup:
        lines = [
            Line(
                name=arm,
                css=css[arm],
                times=middles,
                values=[value(one.arms.get(arm, none)) for one in stretches],
            )
            for arm in arms
        ]
        return line_plot(lines, said=said, kind=kind, zero=True)

    def of_all(values: Sequence[float | None], kind: str, said: str) -> Markup:
        line = Line(name="all", css="c0", times=middles, values=values)
        return line_plot([line], said=said, kind=kind, zero=True)

    bars = [
        Bars(name=arm, css=css[arm], values=[float(one.arms.get(arm, none).n) for one in stretches])
        for arm in arms
    ]
    quality = [
        _path_line(name, css.get(name, CSS[8]), path.points()) for name, path in board.quality.arms.items()
    ]
    return [
        _chart(
            f"Requests by arm, {'a minute' if tally.width_s == 60 else 'an hour'}",
            bar_plot(times, bars, width_s=tally.width_s, said="requests by arm"),
            legend,
            "Shadows and audits are not among them.",
        ),
        _chart(
            "Right answers, as far as feedback tells",
            line_plot(quality, said="share of right answers by arm", kind="share"),
            [(line.name, line.css) for line in quality],
            "The band is a 95 % confidence sequence: it holds at all times together, for the mean of those "
            "judged. Whether they stand for all depends on who gives feedback.",
        ),
        _chart(
            "Latency, 95th percentile",
            by_arm(lambda count: count.latency_s(0.95), "seconds", "latency by arm"),
            legend,
            "Within 2.5 %.",
        ),
        _chart(
            "Escalated",
            of_all([one.whole.escalated_share for one in stretches], "share", "share of escalated answers"),
            (),
            "Of the answers: those that a fallback gave in place of the lean model.",
        ),
        _chart(
            "Cost per 1,000 requests",
            of_all([_thousand(one.usd_each) for one in stretches], "usd", "cost per 1,000 requests"),
            (),
            "Everything that was asked, shadows and audits included, as far as its price is known.",
        ),
        _chart(
            "Without an answer",
            by_arm(lambda count: count.error_share, "share", "share of errors by arm"),
            legend,
            "Errors of any kind.",
        ),
    ]


def _thousand(usd: float | None) -> float | None:
    return None if usd is None else 1000 * usd


def _chart(title: str, svg: Any, legend: Sequence[tuple[str, str]], note: str) -> dict[str, Any]:
    return {"title": title, "svg": svg, "legend": legend, "note": note}


def _path_line(name: str, css: str, points: Sequence[Point]) -> Line:
    # The first few judgements bound nothing: a band over all of the axis would hide the rest.
    shown = [p for p in points if p.high - p.low < 0.5] or points
    return Line(
        name=name,
        css=css,
        times=[p.time for p in shown],
        values=[p.value for p in shown],
        lows=[p.low for p in shown],
        highs=[p.high for p in shown],
    )


def trials(board: Board) -> list[dict[str, Any]]:
    """Experiments, the running ones first, then the newest."""
    shown = sorted(board.trials.values(), key=lambda t: (t.outcome is not None, -t.plan.started))
    return [_trial(one) for one in shown]


def _trial(one: Trial) -> dict[str, Any]:
    plan, status, outcome = one.plan, one.status, one.outcome
    verdict = outcome.verdict if outcome else status.verdict if status else "UNKNOWN"
    findings = status.metrics if status else ()
    return {
        "name": plan.name,
        "kind": plan.kind,
        "place": plan.place or "the outermost route",
        "started": plan.started,
        "is_running": outcome is None,
        "verdict": verdict,
        "css": _verdict_css(verdict),
        "reason": outcome.reason if outcome else status.reason if status else one.problem or "",
        "ended": outcome.time if outcome else None,
        "share": figure(outcome.share, "share") if outcome else None,
        "ramp": ", ".join(f"{figure(s.share, 'share')} after {s.after_s:g} s" for s in plan.ramp),
        "n_units": f"{status.n_units:,}" if status else "–",
        "units": "keys" if plan.kind == "split" else "pairs",
        "ratio": status.ratio if status else None,
        "findings": [_finding(f) for f in findings],
        "charts": [
            _chart(
                METRIC_WORDS.get(f.metric, f.metric) + ": treatment minus control",
                line_plot(
                    [_path_line(f.metric, "c0", one.path[f.metric])],
                    said=f"difference in {f.metric} over time",
                    kind=_kind(f.metric),
                    limit=-f.margin,
                ),
                (),
                f"Positive is better; dashed, the margin of {figure(-f.margin, _kind(f.metric))}.",
            )
            for f in findings
            if len(one.path.get(f.metric, ())) > 1
        ],
        "is_whole": one.is_whole,
    }


def _kind(metric: str) -> str:
    """Of a difference: a latency's is relative, a cost's in shares of its `most`, all else in points."""
    return "relative" if metric in ("latency_s", "price_usd", "energy_j") else "points"


def _finding(one: Finding) -> dict[str, str]:
    kind, difference = "seconds" if one.metric == "latency_s" else "share", _kind(one.metric)
    interval = f"{figure(one.low, difference)} to {figure(one.high, difference)}"
    return {
        "metric": METRIC_WORDS.get(one.metric, one.metric),
        "name": one.metric,
        "role": one.role,
        "verdict": one.verdict,
        "css": {"holds": "good", "broken": "bad"}.get(one.verdict, "open"),
        "control": figure(one.control, kind),
        "treatment": figure(one.treatment, kind),
        "difference": "–" if one.value is None else f"{figure(one.value, difference)} ({interval})",
        "margin": figure(one.margin, "share"),
        "n": f"{one.n:,}",
    }


def _verdict_css(verdict: str) -> str:
    if verdict in ("SHOWN", "PROMOTED"):
        return "good"
    return "bad" if verdict in ("ROLL BACK", "ROLLED BACK", "VOID") else "open"


def stream(one: DriftStatus) -> dict[str, Any]:
    """One stream's evidence as a share of what an alarm needs."""
    return {
        "name": one.stream,
        "n": f"{one.n:,}",
        "log_e": f"{one.log_e:.1f}",
        "limit": f"{one.limit:.1f}",
        "part": round(100 * min(1.0, max(0.0, one.log_e / one.limit)) if one.limit > 0 else 0),
        "has_drifted": one.has_drifted,
        "side": {"small": "smaller", "large": "larger"}.get(one.side, ""),
    }


def change(one: Change) -> dict[str, Any]:
    """How a slice's inputs differ from the reference's, with what makes at least 2 % of it."""
    parts = [(name, round(100 * min(1.0, part))) for name, part in one.changed if part > 0.02]
    return {"slice": one.slice, "n": f"{one.n:,}", "auc": f"{one.auc:.2f}", "parts": parts}


def release(one: ReleaseView) -> dict[str, Any]:
    """A release with its gates; of required checks the failing ones first."""
    decision, facts = one.decision, one.release
    chosen = next((c for c in decision.candidates if c.name == decision.chosen), None) if decision else None
    gates = sorted(chosen.gates, key=lambda g: (g.verdict.value == "SHIP", g.slice or "")) if chosen else []
    return {
        "alias": one.name or "release",
        "problem": one.problem,
        "facts": facts,
        "decision": decision,
        "css": "good" if facts and facts.verdict == "SHIP" else "bad",
        "candidate": chosen.name if chosen else None,
        "ratio": None if chosen is None else _ratio(chosen),
        "gates": [_gate(g) for g in gates[:60]],
        "n_more": max(0, len(gates) - 60),
    }


def _ratio(one: CandidateReport) -> str | None:
    ratio = one.cost.ratio
    if ratio is None:
        return None
    bounds = f"{ratio_figure(ratio.low)} to {ratio_figure(ratio.high)}"
    return f"{ratio_figure(ratio.value)} ({bounds}) of the incumbent's {one.cost.ratio_words}"


def _gate(one: GateResult) -> dict[str, str]:
    scores = one.is_of_scores
    interval = one.difference
    difference = "–"
    if interval is not None and scores:
        low, high = figure(interval.low, "points"), figure(interval.high, "points")
        difference = f"{figure(interval.value, 'points')} ({low} to {high})"

    def number(value: float | None) -> str:
        if scores or value is None:
            return figure(value, "share")
        return ratio_figure(value) if one.metric.endswith("_ratio") else f"{value:.3g}"

    return {
        "what": f"{one.gate} {one.metric}",
        "slice": one.slice or "",
        "verdict": one.verdict.value,
        "css": "good" if one.verdict.value == "SHIP" else "bad",
        "incumbent": number(one.incumbent),
        "candidate": number(one.candidate),
        "difference": difference,
        "limit": number(one.limit),
        "n": "–" if one.n is None else f"{one.n:,}",
    }
