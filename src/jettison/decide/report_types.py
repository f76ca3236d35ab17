"""What a report is written from: the decision, answers that changed, and what was tried on the way."""

from pathlib import Path
from typing import Any, Literal, NamedTuple

import msgspec

from jettison.candidate import AppliedStep
from jettison.cost.load_types import LoadReport
from jettison.decide.report_evidence import SuiteEvidence
from jettison.decision import CDF_SHARES, Decision, Flips, check_names
from jettison.files import read_json, write_json
from jettison.task import Finding

FORMAT = 1
REPORT_FILE = "report.json"


class FlipExample(msgspec.Struct, frozen=True, kw_only=True):
    """One test example on which a candidate no longer answers as the incumbent does."""

    candidate: str
    """Name of the candidate that changed the answer."""
    input: str
    expected: str | None
    incumbent_output: str | None
    """None when the call failed."""
    candidate_output: str | None
    incumbent_confidence: float | None = None
    """Calibrated, in 0-1."""
    candidate_confidence: float | None = None
    slices: dict[str, str] = msgspec.field(default_factory=dict)
    harmful: bool = False
    """The incumbent was right and the candidate is wrong."""
    id: str | None = None


class StageEffect(msgspec.Struct, frozen=True, kw_only=True):
    """What one step of a recipe changed, against the candidate it started from, on dev."""

    step: str
    dev_loss: float | None = None
    """Score before minus score after, in score units: positive is worse. None: not measured."""
    cpu_ratio: float | None = None
    """CPU-seconds per task after over before: under 1 is cheaper."""
    bytes: int | None = None
    """Size of the artifact after the step."""
    note: str = ""


class Tried(msgspec.Struct, frozen=True, kw_only=True):
    """One candidate that the search made, or failed to make, and what became of it."""

    name: str
    steps: tuple[str, ...] = ()
    """The lineage in words."""
    dev_score: float | None = None
    dev_loss_vs_incumbent: float | None = None
    """Incumbent's dev score minus this one's: positive is worse."""
    cpu_ratio: float | None = None
    """CPU-seconds per task over the incumbent's."""
    bytes: int | None = None
    status: Literal["finalist", "dominated", "failed", "dropped"]
    reason: str = ""
    """One sentence: why it was dropped, or what failed."""
    stages: tuple[StageEffect, ...] = ()
    """Loss and gain of each step, in order."""


class ReportContent(msgspec.Struct, frozen=True, kw_only=True):
    """Everything a report says. `report.json` holds it, so that the pages can be written again."""

    decision: Decision
    flips: tuple[FlipExample, ...] = ()
    """The first of each candidate, to read."""
    flip_counts: dict[str, Flips] = msgspec.field(default_factory=dict)
    """Candidate name → how many of its answers to the test split changed in all; empty: not counted."""
    tried: tuple[Tried, ...] = ()
    lineage: dict[str, tuple[AppliedStep, ...]] = msgspec.field(default_factory=dict)
    """Candidate name → applied steps, first step first."""
    findings: tuple[Finding, ...] = ()
    """What reading the data turned up."""
    settings: dict[str, Any] = msgspec.field(default_factory=dict)
    """The run's resolved settings, defaults included."""
    kind: str | None = None
    """Of the task, which says what one of it is; None: not known."""
    load: LoadReport | None = None
    """What was measured under load; None: nothing was."""
    quantile_share: tuple[float, ...] = CDF_SHARES
    """The shares that all `*_quantiles_s` are at."""
    suites: SuiteEvidence = SuiteEvidence()
    """Curves of the confidences, and what the suites showed."""
    format: int = FORMAT


class ReportFiles(NamedTuple):
    """Where the two pages lie."""

    html: Path
    markdown: Path


def write_report_content(folder: Path, content: ReportContent) -> Path:
    """Write `report.json`.

    Raises:
        CannotWrite: The disk is full or the folder is read-only.
    """
    write_json(folder / REPORT_FILE, content)
    return folder / REPORT_FILE


def read_report_content(folder: Path) -> ReportContent:
    """Read the `report.json` of a finished run.

    Raises:
        InvalidInput: The folder holds none, or one that does not fit.
    """
    content = read_json(folder / REPORT_FILE, ReportContent)
    check_names(content.decision, str(folder / REPORT_FILE))
    return content
