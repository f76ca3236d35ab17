"""`jettison report`: write report.html and report.md of a finished run again."""

import json
from pathlib import Path

import click


@click.command("report")
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "--load",
    type=click.Path(path_type=Path),
    help="A cost.json of `jettison cost --output`: what was measured under load, to join to the report.",
)
@click.option("--json", "as_json", is_flag=True, help="Print where the pages lie as JSON.")
def command(run: Path, load: Path | None, as_json: bool) -> int:
    """Write report.html and report.md of RUN, the folder of a finished run, from its report.json."""
    from jettison.decide.report import join_load, rewrite_report

    pages = rewrite_report(run) if load is None else join_load(run, load)
    if as_json:
        click.echo(json.dumps({"html": str(pages.html), "markdown": str(pages.markdown)}))
    else:
        click.echo(f"report    {pages.html}\nmarkdown  {pages.markdown}")
    return 0
