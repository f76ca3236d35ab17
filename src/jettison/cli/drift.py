"""`jettison drift`: one look at the newest traffic against a release's reference profile."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from jettison.monitor.drift import DriftReport


@click.command("drift")
@click.argument("log", type=click.Path(path_type=Path))
@click.option(
    "--release",
    type=click.Path(path_type=Path),
    required=True,
    help="Whose reference profile the traffic is compared with.",
)
@click.option("--last", type=int, default=5000, show_default=True, help="Newest records looked at.")
@click.option(
    "--alpha",
    type=float,
    default=0.01,
    show_default=True,
    help="Probability of any false finding at this look.",
)
@click.option(
    "--least-moved",
    type=float,
    default=0.05,
    show_default=True,
    help="Of a distribution, in 0-1: what moved less is no drift, however surely it moved.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(log: Path, release: Path, last: int, alpha: float, least_moved: float, as_json: bool) -> int:
    """Compare the newest records of the traffic LOG with what the release was proved on.

    Exit code 1: something moved. One look is one test: to look every day, let `jettison monitor
    --release` watch, whose alpha holds over all looks together.
    """
    import msgspec

    from jettison.errors import InvalidInput
    from jettison.monitor.drift import judge_drift, sketch_of
    from jettison.monitor.drift_window import newest_window
    from jettison.release import open_release, read_profile

    if last < 1:
        raise InvalidInput(f"--last must be at least 1, got {last}.")
    opened = open_release(release)
    candidates = tuple(opened.candidates.values())
    window = newest_window(log, sketch_of(read_profile(opened)), candidates=candidates, last=last)
    found = judge_drift(window, alpha=alpha, least_moved=least_moved)
    if as_json:
        click.echo(json.dumps(msgspec.to_builtins(found), indent=2))
    else:
        _show(found)
    return 1 if found.verdict == "DRIFT" else 0


def _show(found: "DriftReport") -> None:
    from rich.markup import escape
    from rich.table import Table

    from jettison.cli.tables import wide_console
    from jettison.monitor.drift_changes import ranking_words

    colors = {"DRIFT": "red", "NONE": "green", "NOT ENOUGH DATA": "yellow"}
    console = wide_console()
    console.print(
        f"[bold {colors[found.verdict]}]{found.verdict}[/]  {escape(found.reason)}", soft_wrap=True
    )
    table = Table(box=None, padding=(0, 1, 0, 0), header_style="bold")
    for header in ("what", "slice", "of", "n", "moved", "p, all tests", ""):
        table.add_column(header, no_wrap=True)
    for one in found.tests:
        sign = "[red]moved[/]" if one.has_drifted else ""
        p = f"{one.p_adjusted:.2g}"
        table.add_row(
            escape(one.name), escape(one.slice), one.side, f"{one.n:,}", f"{one.moved:.1%}", p, sign
        )
    console.print(table)
    for one in found.tests:
        if one.changed and one.has_drifted:
            said = f"what changed on {one.slice}: {ranking_words(one.changed)}"
            console.print(escape(said), soft_wrap=True)
    for line in found.not_looked_at:
        console.print(f"[dim]not looked at: {escape(line)}[/]", soft_wrap=True)
    console.print(f"[dim]{found.n_records:,} requests, {found.n_texts:,} texts[/]")
