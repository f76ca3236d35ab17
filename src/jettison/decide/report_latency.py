"""Latency in the report of a run: distributions of service time, and what was found under load."""

import math
from collections.abc import Sequence
from typing import Any

from jettison.cost.load_types import LoadReport
from jettison.decide import report_words as words
from jettison.decide.report_costs import cost_contexts, cost_notes
from jettison.decide.report_load import tail_words
from jettison.decide.report_load_page import STRETCHED, Picture, load_view
from jettison.decide.report_load_plots import Distribution, latency_cdfs, legend
from jettison.decide.report_types import ReportContent
from jettison.decision import CDF_SHARES, Decision

SHOWN_SHARES = (0.1, 0.5, 0.9, 0.95, 0.99)
NOT_UNDER_LOAD = (
    "This run asked one at a time. Latency from a schedule (what a user waits when requests queue) and how "
    "it grows with the rate were not measured: set `slo` in jettison.toml, or measure with `jettison cost "
    "--scenario server --slo p95=20ms --output cost` and join it with `jettison report RUN --load "
    "cost/cost.json`."
)


def latency_view(content: ReportContent) -> dict[str, Any]:
    """Pictures, sentences and the part under load, for the HTML page."""
    return {
        "pictures": [picture for picture in (_service(content.decision),) if picture.svg is not None],
        "not_measured": latency_left_open(content),
        "load": load_view(content.load) if content.load is not None else None,
    }


def latency_left_open(content: ReportContent) -> str:
    """What the run does not tell of latency; empty where it was measured under load."""
    return NOT_UNDER_LOAD if content.load is None else ""


def quantile_rows(decision: Decision) -> list[list[str]]:
    """Share of the tasks done, and the service time of each candidate within which they were."""
    found = _distributions(decision)
    rows = []
    for share in SHOWN_SHARES:
        place = CDF_SHARES.index(share)
        figures = [
            words.seconds(one.quantiles_s[place]) if one.n >= _fewest(share) else words.UNKNOWN
            for one in found
        ]
        rows.append([f"{100 * share:g} %", *figures])
    return [row for row in rows if any(figure != words.UNKNOWN for figure in row[1:])]


def _fewest(share: float) -> float:
    """Samples whose largest exceeds the percentile with 95 % confidence, as costs ask of theirs."""
    return math.log(0.05) / math.log(share)


def report_cost_notes(content: ReportContent) -> list[str]:
    """What the costs of a run rest on, and where they fall among published ones."""
    found = content.decision.candidates
    names, costs = [c.name for c in found], [c.cost for c in found]
    return [*cost_notes(costs, names), *cost_contexts(names, costs, content.kind)]


def curve_rows(report: LoadReport) -> list[list[str]]:
    """Every rate that was tried: target, rate, percentile with its interval, whether it kept the limit."""
    said = {True: "shown to hold", False: "does not hold", None: "cannot tell"}
    return [
        [
            target.name,
            words.rate(point.rate_per_s),
            tail_words(point.tail),
            said[point.is_met] if point.is_valid else "the client fell behind",
            f"{point.n_tasks:,}",
        ]
        for target in report.targets
        for point in target.curve
    ]


def _service(decision: Decision) -> Picture:
    return Picture(
        title="Service time, one task at a time",
        lead=f"Share of the tasks that were done within a time; there is no queue. {STRETCHED}",
        svg=latency_cdfs(_distributions(decision), "service time"),
        legend=legend([candidate.name for candidate in decision.candidates]),
    )


def _distributions(decision: Decision) -> Sequence[Distribution]:
    blank = (None,) * len(CDF_SHARES)
    return [
        Distribution(c.name, c.cost.latency_quantiles_s or blank, c.cost.n_tasks)
        for c in decision.candidates
    ]
