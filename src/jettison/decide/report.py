"""Writes the decision for people: one self-contained HTML page, and the same content as Markdown."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from jettison.candidate import AppliedStep
from jettison.cost.load_types import LoadReport
from jettison.decide.report_evidence import SuiteEvidence
from jettison.decide.report_types import (
    FlipExample,
    ReportContent,
    ReportFiles,
    Tried,
    read_report_content,
    write_report_content,
)
from jettison.decision import Decision
from jettison.files import read_json
from jettison.task import Finding

COST_FILE = "cost.json"

__all__ = ["join_load", "rewrite_report", "write_report"]


def write_report(
    folder: Path,
    decision: Decision,
    *,
    flips: Sequence[FlipExample] = (),
    tried: Sequence[Tried] = (),
    lineage: Mapping[str, Sequence[AppliedStep]] | None = None,
    findings: Sequence[Finding] = (),
    settings: Mapping[str, Any] | None = None,
    load: LoadReport | None = None,
    suites: SuiteEvidence | None = None,
) -> ReportFiles:
    """Write `report.html`, `report.md`, and the `report.json` they come from.

    Args:
        folder: Where to write; made when missing.
        decision: What was decided.
        flips: Test examples whose answer changed, in any order, of any candidate.
        tried: Every candidate the search made or failed to make.
        lineage: Candidate name → its applied steps.
        findings: What reading the data turned up.
        settings: The run's resolved settings.
        load: What was measured under load.
        suites: Curves of the confidences, tiers, found slices and attacks.

    Raises:
        CannotWrite: The disk is full or the folder is read-only.
    """
    content = ReportContent(
        decision=decision,
        flips=tuple(flips),
        tried=tuple(tried),
        lineage={name: tuple(steps) for name, steps in (lineage or {}).items()},
        findings=tuple(findings),
        settings=dict(settings or {}),
        load=load,
        suites=suites or SuiteEvidence(),
    )
    write_report_content(folder, content)
    return rewrite_report(folder)


def join_load(folder: Path, cost: Path) -> ReportFiles:
    """Add what was measured under load to the report of a finished run, in the place of what was there.

    Args:
        folder: Of the run, with its `report.json`.
        cost: A `cost.json` of `jettison cost --output`, itself or its folder.

    Raises:
        InvalidInput: Either is not there or does not fit.
        CannotWrite: The disk is full or the folder is read-only.
    """
    content = read_report_content(folder)
    load = read_json(cost / COST_FILE if cost.is_dir() else cost, LoadReport)
    write_report_content(folder, msgspec.structs.replace(content, load=load))
    return rewrite_report(folder)


def rewrite_report(folder: Path) -> ReportFiles:
    """Write the two pages again from the `report.json` of a finished run.

    Raises:
        InvalidInput: The folder holds no `report.json`, or one that does not fit.
        CannotWrite: The disk is full or the folder is read-only.
    """
    from jettison.decide.report_markdown import markdown_page
    from jettison.decide.report_pages import html_page
    from jettison.files import write_atomic

    content = read_report_content(folder)
    files = ReportFiles(folder / "report.html", folder / "report.md")
    write_atomic(files.html, html_page(content))
    write_atomic(files.markdown, markdown_page(content))
    return files
