"""Latency and load in the reports: what was measured, apart from estimates; what was not, said."""

import re
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

from jettison.cli.report import command
from jettison.decide.report import join_load, write_report
from jettison.decide.report_costs import ESTIMATED_TITLE, cost_rows, cost_tables
from jettison.decide.report_latency import NOT_UNDER_LOAD, quantile_rows
from jettison.decide.report_load import load_rows, not_measured
from jettison.decide.report_load_page import load_page
from jettison.decide.report_load_plots import COLORS, Distribution, latency_cdfs
from jettison.decide.report_markdown import markdown_page
from jettison.decide.report_pages import html_page
from jettison.decide.report_types import read_report_content
from jettison.decision import CDF_SHARES, CostSummary, Decision
from jettison.errors import InvalidInput
from jettison.files import write_json
from jettison.loop.config import RunConfig, check_config

from .load_example import load_report
from .report_example import example_content, example_decision
from .test_report import Page


def test_measured_and_estimated_figures_share_no_row_and_no_table() -> None:
    tables = cost_tables(load_rows(load_report()))
    measured = {row.name: row.figures for row in tables.measured}
    estimated = {row.name: row.figures for row in tables.estimated}
    # 3 x 8 ms of one by a counter, 3 x 2 ms of the other by an estimate.
    assert measured["Energy per task, measured"] == ["24 mJ", "not measured"]
    assert estimated["Energy per task, ESTIMATED"] == ["not measured", "≈ 6 mJ"]
    assert measured["CO₂e per task, of measured joules"] == ["≈ 2.7 µg", "not measured"]
    assert estimated["CO₂e per task, of ESTIMATED joules"] == ["not measured", "≈ 670 ng"]
    assert measured["Per correct answer: energy, measured"][1] == "not measured"
    assert estimated["Per correct answer: energy, ESTIMATED"] == [
        "not measured",
        "≈ 8 mJ [≈ 7.2 mJ, ≈ 8.8 mJ]",
    ]
    assert "On the wire, packet headers" in estimated
    assert not any(
        "ESTIMATED" in name or "≈" in "".join(f) for name, f in measured.items() if "CO₂e" not in name
    )


def test_without_load_an_estimate_of_one_candidate_leaves_the_measured_rows_alone() -> None:
    costs = [
        CostSummary(energy_j=0.2, energy_tier="M2", energy_factor=1.3, co2e_g=0.001),
        CostSummary(energy_j=0.1, energy_tier="E3", energy_factor=3.0, co2e_g=0.002),
    ]
    tables = cost_tables(cost_rows(costs))
    assert [row.figures for row in tables.measured] == [
        ["200 mJ", "not measured"],
        ["≈ 1 mg", "not measured"],
    ]
    assert [row.figures for row in tables.estimated] == [
        ["not measured", "≈ 100 mJ"],
        ["not measured", "≈ 2 mg"],
    ]


def test_the_page_of_an_open_run_shows_the_schedule_and_the_service_apart_on_one_axis() -> None:
    html = load_page(load_report()).decode()
    page = Page(html)
    assert html.count('<svg class="plot"') == 3
    assert all(address.startswith("#") for address in page.addresses)
    assert "https://" not in html
    text = page.text
    assert (
        text.index("from when each request was due")
        < text.index("the queue left out")
        < text.index("Latency against rate")
    )
    assert ESTIMATED_TITLE in text
    due, service = re.findall(r'<svg class="plot".*?</svg>', html, flags=re.S)[:2]
    ticks = [
        re.findall(r'class="tick" x="([\d.]+)" y="[\d.]+" text-anchor="middle">([^<]+)', svg)
        for svg in (due, service)
    ]
    assert ticks[0] == ticks[1]


@pytest.mark.parametrize(
    ("scenario", "with_curve", "said"),
    [
        (
            "single-stream",
            False,
            "how it grows with the rate, were not measured: this run asked one request at a time",
        ),
        ("offline", False, "this run asked everything at once"),
        ("server", False, "at one load only; how it grows with the rate was not"),
        ("server", True, None),
    ],
)
def test_what_was_not_measured_of_latency_and_rate_is_said(
    scenario: str, with_curve: bool, said: str | None
) -> None:
    report = load_report(scenario=scenario, with_curve=with_curve)
    page = Page(load_page(report).decode()).text
    assert ("Latency against rate" in page) is with_curve
    if said is None:
        assert not_measured(report) == []
    else:
        assert said in page


def test_a_line_ends_where_its_samples_do() -> None:
    # 40 samples: the last share that they tell from the next is 1 - 1/40 = 97.5 %.
    few = Distribution("few", [0.001 * (1 + share) for share in CDF_SHARES], 40)
    many = few._replace(n=100_000)
    svgs = [str(latency_cdfs([one], "service time")) for one in (few, many)]
    points = [len(re.findall(r"[ML][\d.]+,", re.findall(r'<path d="([^"]+)"', svg)[0])) for svg in svgs]
    assert points[0] == sum(share <= 0.975 for share in CDF_SHARES)
    assert points[1] == len(CDF_SHARES) - 1


def with_quantiles(decision: Decision) -> Decision:
    quantiles = tuple(0.002 * (1 + share) for share in CDF_SHARES)
    return msgspec.structs.replace(
        decision,
        candidates=tuple(
            msgspec.structs.replace(c, cost=msgspec.structs.replace(c.cost, latency_quantiles_s=quantiles))
            for c in decision.candidates
        ),
    )


def test_a_run_that_asked_one_at_a_time_says_so_on_both_pages() -> None:
    content = msgspec.structs.replace(example_content(), decision=with_quantiles(example_decision()))
    html, markdown = Page(html_page(content)).text, markdown_page(content)
    assert NOT_UNDER_LOAD in markdown
    assert "".join(NOT_UNDER_LOAD.replace("`", "").split()) in "".join(html.split())
    for page in (html, markdown):
        assert ESTIMATED_TITLE in page
    assert "| 95 % | 3.9 ms |" in markdown  # 2 ms x 1.95


def test_quantiles_that_too_few_tasks_can_tell_are_not_given() -> None:
    decision = with_quantiles(example_decision())
    few = msgspec.structs.replace(
        decision,
        candidates=tuple(
            msgspec.structs.replace(c, cost=msgspec.structs.replace(c.cost, n_tasks=12))
            for c in decision.candidates
        ),
    )
    assert [row[0] for row in quantile_rows(few)] == ["10 %", "50 %"]


def test_both_tables_of_latency_agree_on_what_can_be_told() -> None:
    """The largest of 299 lies beyond the 99th percentile with 95 % confidence, of 298 it does not."""
    decision = with_quantiles(example_decision())
    for n, told in (
        (298, ["10 %", "50 %", "90 %", "95 %"]),
        (299, ["10 %", "50 %", "90 %", "95 %", "99 %"]),
    ):
        counted = msgspec.structs.replace(
            decision,
            candidates=tuple(
                msgspec.structs.replace(c, cost=msgspec.structs.replace(c.cost, n_tasks=n))
                for c in decision.candidates
            ),
        )
        assert [row[0] for row in quantile_rows(counted)] == told


def test_no_line_has_the_color_of_a_verdict_and_the_first_is_the_incumbents() -> None:
    assert COLORS[0] == "--incumbent"
    assert not {"--ship", "--block", "--unsure"} & set(COLORS)


def test_a_measurement_under_load_joins_the_report_of_a_run(tmp_path: Path) -> None:
    write_report(tmp_path, with_quantiles(example_decision()))
    write_json(tmp_path / "cost.json", load_report())
    done = CliRunner().invoke(command, [str(tmp_path), "--load", str(tmp_path / "cost.json")])
    assert done.exit_code == 0
    kept = read_report_content(tmp_path)
    assert kept.load == load_report()
    assert kept.quantile_share == CDF_SHARES
    html, markdown = (tmp_path / "report.html").read_text(), (tmp_path / "report.md").read_text()
    assert html.count('<svg class="plot"') >= 4
    assert "Latency against rate" in html
    assert "shown to hold" in markdown
    assert NOT_UNDER_LOAD not in markdown
    again = join_load(tmp_path, tmp_path)
    assert again.html.read_text() == html


def test_a_load_file_that_is_none_is_refused_and_the_report_stays(tmp_path: Path) -> None:
    files = write_report(tmp_path, example_decision())
    before = files.html.read_text()
    (tmp_path / "cost.json").write_text('{"scenario": "wild"}')
    with pytest.raises(InvalidInput, match=r"cost\.json"):
        join_load(tmp_path, tmp_path / "cost.json")
    with pytest.raises(InvalidInput, match="nowhere"):
        join_load(tmp_path, tmp_path / "nowhere.json")
    assert files.html.read_text() == before


@pytest.mark.parametrize("slo", ["p95", "", "p95=0ms", "p101=1s"])
def test_a_run_refuses_an_slo_that_says_nothing(slo: str) -> None:
    with pytest.raises(InvalidInput, match=r"slo must be a percentile and a time, as p95=20ms, got '"):
        check_config(RunConfig(task="t", incumbent="i", slo=slo), "jettison.toml")


def test_both_pages_say_that_estimates_compare_with_nothing_published() -> None:
    content = msgspec.structs.replace(example_content(), kind="classify")
    said = (
        "not comparable, because the joules are an estimate (tier E3), which compares on this machine only."
    )
    assert said in Page(html_page(content)).text
    assert said in markdown_page(content).replace("\\", "")
