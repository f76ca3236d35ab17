"""A decision on disk: JSON for machines, Markdown for people, JUnit XML for a build server."""

import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from xml.etree import ElementTree

from jettison.decide.certified import certified_words
from jettison.decide.words import ROLE_WORDS, figure, in_units, share, signed
from jettison.decision import (
    EXIT_CODE,
    FORMAT,
    CandidateReport,
    Decision,
    GateResult,
    Verdict,
    check_names,
    ratio_figure,
)
from jettison.errors import InvalidInput
from jettison.files import read_json, write_atomic, write_json

JSON_NAME, MARKDOWN_NAME, JUNIT_NAME = "decision.json", "decision.md", "decision.junit.xml"
NOT_KNOWN = "–"


def write_decision(folder: Path, decision: Decision) -> Path:
    """Write `decision.json`, `decision.md` and `decision.junit.xml`; returns the JSON file.

    Raises:
        CannotWrite: The disk is full or the folder is read-only.
    """
    write_json(folder / JSON_NAME, decision)
    write_atomic(folder / MARKDOWN_NAME, decision_markdown(decision))
    write_atomic(folder / JUNIT_NAME, decision_junit(decision))
    return folder / JSON_NAME


def read_decision(path: Path) -> Decision:
    """Read a `decision.json`, named itself or by its folder.

    Raises:
        InvalidInput: There is none, it does not fit, or a newer jettison wrote it.
    """
    file = path / JSON_NAME if path.is_dir() else path
    decision = read_json(file, Decision)
    if decision.format > FORMAT:
        raise InvalidInput(
            f"{file} must be of format {FORMAT} or older, got {decision.format}. "
            "Upgrade jettison to open it."
        )
    check_names(decision, str(file))
    return decision


def exit_code(decision: Decision) -> int:
    """0 when a candidate may ship, 1 when the gate says hold."""
    return EXIT_CODE[decision.verdict]


def decision_markdown(decision: Decision) -> str:
    """The decision on one page."""
    parts = [
        f"# {decision.verdict.value}: {decision.task}",
        decision.headline,
        "\n".join(f"- {reason}" for reason in decision.reasons),
        "## Candidates",
        _candidate_table(decision),
        *(_gate_section(report) for report in decision.candidates if report.gates),
        "## What the evidence cannot tell",
        "\n".join(f"- {caveat}" for caveat in decision.caveats),
        "## Origin",
        "\n".join(
            [
                f"- Made {decision.created}, seed {decision.seed}",
                f"- Test split `{decision.test_digest[:16]}`, read for {decision.n_test_reads} decision(s)",
                *(f"- {name}: {value}" for name, value in decision.machine.items()),
            ]
        ),
    ]
    return "\n\n".join(parts) + "\n"


def gate_table(results: tuple[GateResult, ...]) -> str:
    """Verdicts of one candidate as a Markdown table."""
    rows = [
        "| gate | slice | verdict | incumbent | candidate | difference (points) | limit "
        "| harmful / beneficial | n |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    return "\n".join(rows + [_gate_row(result) for result in results])


def decision_junit(decision: Decision) -> str:
    """One test case for each gate and slice of the nominee: a failure is BLOCK, an error too little data.

    Shown candidates are left out, since this decision cannot release them. Where nothing was put to the
    test, that is an error, lest a build server call no test at all a success.
    """
    eligible = [report for report in decision.candidates if report.role in ("nominee", "fallback")]
    nominee = next((r for r in eligible if r.name == decision.chosen), eligible[0] if eligible else None)
    return results_junit(
        nominee.gates if nominee else (),
        suite=f"jettison.{decision.task}",
        case=nominee.name if nominee else "",
        timestamp=decision.created,
        if_none=None if decision.verdict is Verdict.SHIP else decision.headline,
    )


def results_junit(
    results: Sequence[GateResult],
    *,
    suite: str,
    case: str,
    timestamp: str | None = None,
    if_none: str | None = None,
) -> str:
    """Gate results as one JUnit test suite; `case` names the candidate, `if_none` the error of none."""
    missing = if_none if not results else None
    root = ElementTree.Element(
        "testsuite",
        name=suite,
        tests=str(len(results) + (missing is not None)),
        failures=str(sum(result.verdict is Verdict.BLOCK for result in results)),
        errors=str(sum(r.verdict is Verdict.NOT_ENOUGH_DATA for r in results) + (missing is not None)),
    )
    if timestamp:
        root.set("timestamp", timestamp)
    for result in results:
        name = f"{result.gate} {result.metric}" + (f" [{result.slice}]" if result.slice else "")
        test = ElementTree.SubElement(root, "testcase", classname=case, name=name)
        if result.verdict is not Verdict.SHIP:
            kind = "failure" if result.verdict is Verdict.BLOCK else "error"
            ElementTree.SubElement(test, kind, message=result.reason, type=result.verdict.value)
    if missing is not None:
        test = ElementTree.SubElement(root, "testcase", classname=suite, name="a candidate is judged")
        ElementTree.SubElement(test, "error", message=missing, type=Verdict.NOT_ENOUGH_DATA.value)
    ElementTree.indent(root)
    text = _NO_XML.sub("\N{REPLACEMENT CHARACTER}", ElementTree.tostring(root, encoding="unicode"))
    return f'<?xml version="1.0" encoding="utf-8"?>\n{text}\n'


_NO_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that XML 1.0 forbids, escaped or not."""


def _candidate_table(decision: Decision) -> str:
    compared = next((c.cost.ratio_words for c in decision.candidates if c.cost.ratio), "CPU time")
    rows = [
        f"| candidate | role | verdict | accuracy | {compared.removesuffix(' time')} ratio | MB | steps |",
        "|---|---|---|---|---|---|---|",
    ]
    for report in decision.candidates:
        accuracy = report.scores.get("all", {}).get("accuracy")
        ratio, size = report.cost.ratio, report.cost.bytes
        cells = [
            f"**{report.name}**" if report.name == decision.chosen else report.name,
            ROLE_WORDS.get(report.role, report.role),
            NOT_KNOWN if report.role == "incumbent" else report.verdict.value,
            NOT_KNOWN if accuracy is None else share(accuracy),
            NOT_KNOWN
            if ratio is None
            else f"{ratio_figure(ratio.value)} ({ratio_figure(ratio.low)} to {ratio_figure(ratio.high)})",
            NOT_KNOWN if size is None else figure(size / 1e6),
            " → ".join(report.steps) or NOT_KNOWN,
        ]
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(rows)


def _gate_section(report: CandidateReport) -> str:
    certified = certified_words(report.gates)
    told = f"\n\n{certified}" if certified else ""
    role = ROLE_WORDS.get(report.role, report.role)
    return f"### {report.name} ({role}): {report.verdict.value}\n\n{gate_table(report.gates)}{told}"


def _gate_row(result: GateResult) -> str:
    scores = result.is_of_scores
    number = share if scores else partial(in_units, result.metric)
    interval, flips = result.difference, result.flips
    cells = [
        f"{result.gate} {result.metric}",
        result.slice or NOT_KNOWN,
        result.verdict.value,
        NOT_KNOWN if result.incumbent is None else number(result.incumbent),
        NOT_KNOWN if result.candidate is None else number(result.candidate),
        NOT_KNOWN if interval is None else signed(interval.value, interval.low, interval.high),
        share(result.limit, "point") if scores else number(result.limit),
        NOT_KNOWN if flips is None else f"{flips.harmful} / {flips.beneficial}",
        NOT_KNOWN if result.n is None else f"{result.n:,}",
    ]
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
