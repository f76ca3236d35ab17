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

    _check_run(run)
    pages = rewrite_report(run) if load is None else join_load(run, load)
    if as_json:
        click.echo(json.dumps({"html": str(pages.html), "markdown": str(pages.markdown)}))
    else:
        click.echo(f"report    {pages.html}\nmarkdown  {pages.markdown}")
    return 0


def _check_run(folder: Path) -> None:
    """Refuse a place without a report, and say where the run of a release lies."""
    from jettison.decide.report_types import REPORT_FILE
    from jettison.errors import InvalidInput
    from jettison.release.types import RELEASE_FILE

    if (folder / REPORT_FILE).is_file():
        return
    way_out = ""
    if (folder / RELEASE_FILE).is_file():
        run = folder.absolute().parent
        is_run = (run / REPORT_FILE).is_file()
        place = str(run) if is_run else "where `jettison run` wrote it"
        way_out = f" This is a release; the folder of its run is {place}."
    raise InvalidInput(
        f"RUN must be the folder of a finished run, got {folder} without {REPORT_FILE}.{way_out}"
    )
