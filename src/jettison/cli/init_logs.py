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
    for note in (*report.notes, *price_words(report)):
        console.print(Text(f"note: {note}", style="dim"))
    for path in report.files:
        console.print(Text(f"wrote {path}", style="green"), soft_wrap=True)


def _rows(report: "LogReport") -> list[tuple[str, str]]:
    found = ", ".join(f"{kind} {n}" for kind, n in report.pii.items()) or "none found"
    done = "" if not report.pii else ", masked" if report.masked else ", left as they are"
    rows = [
        ("model", ", ".join(f"{model} {n}" for model, n in report.models.items()) or "not named"),
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
        ("took", _took(report)),
        ("personal data", f"{found}{done}; names are not looked for"),
    ]
    if report.labels:
        rows.append(("outside", f"{report.n_outside} answers are none of the labels"))
    if report.n_unmatched:
        rows.append(("unmatched", f"{report.n_unmatched} halves of a batch without the other"))
    return rows


def _took(report: "LogReport") -> str:
    """What the log says of what answers took, and so what a run can know of their cost."""
    if not report.n_counted:
        tokens = "tokens are not counted (no `usage`), so what an answer cost stays unknown"
    else:
        tokens = (
            f"tokens counted of {report.n_counted} answers, {report.prompt_tokens:.0f} in and "
            f"{report.completion_tokens:.1f} out on average"
        )
    return f"{tokens}; seconds of {report.n_timed}"


def price_words(report: "LogReport") -> list[str]:
    """What to write into jettison.toml, so that counted tokens become money."""
    from jettison.cost.token_prices import bundled_token_prices

    if not report.n_counted:
        return []
    table = bundled_token_prices()
    known = next((model for model in report.models if model in table.models), None)
    said = (
        "their price is usd_per_million_input and usd_per_million_output under [endpoint] in jettison.toml"
    )
    return [said if known is None else f"{said}; {table.priced(known)}"]


def _prompt(template: "SeenTemplate") -> str:
    shown = " ".join(f"{template.system} {template.prefix}{{input}}{template.suffix}".split())
    return shown if len(shown) <= 100 else f"{shown[:60]} … {shown[-37:]}"
