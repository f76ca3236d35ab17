"""What `jettison init --logs` found, in a table."""

import sys
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from jettison.task.from_logs import LogReport, SeenTemplate


def tell_logs(report: "LogReport", *, as_json: bool) -> None:
    """Print the report for people, or as JSON for machines."""
    if as_json:
        import msgspec

        click.echo(msgspec.json.format(msgspec.json.encode(report), indent=2).decode())
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(file=sys.stdout, highlight=False)
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for name, said in _rows(report):
        table.add_row(Text(name, style="bold"), Text(said))
    console.print(table)
    for place in report.bad:
        console.print(Text(f"passed over: {place}", style="yellow"))
    for note in report.notes:
        console.print(Text(f"note: {note}", style="dim"))
    for path in report.files:
        console.print(Text(f"wrote {path}", style="green"), soft_wrap=True)


def _rows(report: "LogReport") -> list[tuple[str, str]]:
    found = ", ".join(f"{kind} {n}" for kind, n in report.pii.items()) or "none found"
    done = "" if not report.pii else ", masked" if report.masked else ", left as they are"
    rows = [
        ("calls", f"{report.n_calls} in {report.n_lines} lines; {report.n_bad} lines passed over"),
        ("prompts", f"{report.n_templates}; the task is of number {report.taken}"),
        *(
            (f"  {i}", f"{one.n_calls} calls: {_prompt(one)}")
            for i, one in enumerate(report.templates[:5], start=1)
        ),
        ("inputs", f"{report.n_examples}; {report.n_duplicates} calls repeat another's"),
        ("nearly equal", f"{report.n_near_duplicates} inputs"),
        ("kind", report.kind + (f", {len(report.labels)} labels" if report.labels else "")),
        ("answers", f"{report.n_inconsistent} inputs got more than one"),
        ("personal data", f"{found}{done}; names are not looked for"),
    ]
    if report.labels:
        rows.append(("outside", f"{report.n_outside} answers are none of the labels"))
    if report.n_unmatched:
        rows.append(("unmatched", f"{report.n_unmatched} halves of a batch without the other"))
    return rows


def _prompt(template: "SeenTemplate") -> str:
    shown = " ".join(f"{template.system} {template.prefix}{{input}}{template.suffix}".split())
    return shown if len(shown) <= 100 else f"{shown[:60]} … {shown[-37:]}"
