"""The page of a run under load: self-contained HTML, every text escaped."""

from importlib.resources import files

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from jettison.candidate import library_versions
from jettison.cost.load_types import LoadReport
from jettison.decide import report_words as words
from jettison.decide.report_load import load_notes, load_rows, scenario_words
from jettison.decide.report_load_plots import latency_cdfs, legend, rate_curves


def load_page(report: LoadReport) -> bytes:
    """The whole page as one HTML file that needs nothing else."""
    environment = Environment(
        loader=FunctionLoader(_template), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    page = environment.get_template("cost.html").render(
        css=Markup(_template("report.css")),
        version=library_versions()["jettison"],
        report=report,
        names=", ".join(target.name for target in report.targets),
        scenario=scenario_words(report),
        created=words.moment(report.created),
        is_open=report.scenario in ("server", "trace"),
        rows=load_rows(report),
        notes=load_notes(report),
        refusals=_refusals(report),
        cdf=latency_cdfs(report),
        curve=rate_curves(report),
        curve_words=_curve_words(report),
        legend=legend(report.targets),
        facts=[(name.replace("_", " "), value) for name, value in report.machine.items() if value],
    )
    return page.encode()


def _refusals(report: LoadReport) -> list[str]:
    """Why a target's figures are no claim."""
    return [
        f"{target.name}: {mark.removeprefix('no claim: ')}"
        for target in report.targets
        if not target.is_claim
        for mark in target.marks
        if mark.startswith("no claim: ")
    ]


def _curve_words(report: LoadReport) -> str:
    if report.slo is None:
        return ""
    return (
        f"The {100 * report.slo.share:g}th percentile with its 95 % interval at every rate that was tried. "
        f"A dot is full where {report.slo.words} was shown to hold, hollow where it was not; "
        "an interval that runs to the top has no upper end."
    )


def _template(name: str) -> str:
    return (files("jettison.decide") / "templates" / name).read_text(encoding="utf-8")
