"""The page of a run under load: self-contained HTML, every text escaped."""

from importlib.resources import files
from typing import Any, NamedTuple

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from jettison.candidate import library_versions
from jettison.cost.load_types import LoadReport
from jettison.decide import report_words as words
from jettison.decide.report_costs import ESTIMATED_LEAD, ESTIMATED_TITLE, cost_tables
from jettison.decide.report_load import curve_words, load_notes, load_rows, not_measured, scenario_words
from jettison.decide.report_load_plots import (
    due_times,
    latency_cdfs,
    legend,
    rate_curves,
    service_times,
)


class Picture(NamedTuple):
    """One plot with what it says."""

    title: str
    lead: str
    svg: Markup | None
    legend: Markup


def load_page(report: LoadReport) -> bytes:
    """The whole page as one HTML file that needs nothing else."""
    environment = Environment(
        loader=FunctionLoader(_template), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    page = environment.get_template("cost.html").render(
        css=Markup(_template("report.css")),
        version=library_versions()["jettison"],
        load=load_view(report),
        estimated_title=ESTIMATED_TITLE,
        estimated_lead=ESTIMATED_LEAD,
        facts=[(name.replace("_", " "), value) for name, value in report.machine.items() if value],
    )
    return page.encode()


def load_view(report: LoadReport) -> dict[str, Any]:
    """What a page says of a run under load, worked out before any markup."""
    return {
        "names": [target.name for target in report.targets],
        "scenario": scenario_words(report),
        "created": words.moment(report.created),
        "tables": cost_tables(load_rows(report)),
        "notes": load_notes(report),
        "refusals": _refusals(report),
        "pictures": load_pictures(report),
        "not_measured": not_measured(report),
    }


def load_pictures(report: LoadReport) -> list[Picture]:
    """Distributions from the schedule and of service time, apart but on one axis of times; the curve."""
    names = legend([target.name for target in report.targets])
    due, service = due_times(report), service_times(report)
    is_open = report.scenario in ("server", "trace")
    found = [
        Picture(
            title="Latency, from when each request was due",
            lead=(
                "What a user waits: queue and service. Share of the requests that were done within a time. "
                f"{STRETCHED} Requests that failed never arrive."
            ),
            svg=latency_cdfs(due, "from due to done", beside=service) if is_open else None,
            legend=names,
        ),
        Picture(
            title="Service time, the queue left out",
            lead=(
                "From when each request was sent: what a tool that hides the queue would show. "
                + ("The axes are those of the picture above." if is_open else STRETCHED)
            ),
            svg=latency_cdfs(service, "from sent to done", beside=due if is_open else ()),
            legend=names,
        ),
        Picture(
            title="Latency against rate",
            lead=curve_words(report),
            svg=rate_curves(report),
            legend=names,
        ),
    ]
    return [picture for picture in found if picture.svg is not None]


STRETCHED = (
    "The axis of shares is stretched towards 100 %, where users feel it; a line ends where the samples do."
)


def _refusals(report: LoadReport) -> list[str]:
    """Why a target's figures are no claim."""
    return [
        f"{target.name}: {mark.removeprefix('no claim: ')}"
        for target in report.targets
        if not target.is_claim
        for mark in target.marks
        if mark.startswith("no claim: ")
    ]


def _template(name: str) -> str:
    return (files("jettison.decide") / "templates" / name).read_text(encoding="utf-8")
