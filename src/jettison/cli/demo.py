"""`jettison demo`: the whole loop on a real model and real data, with nothing to prepare."""

from pathlib import Path

import click


@click.command("demo")
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    default=Path("demo-run"),
    show_default=True,
    help="Folder for model, data and run.",
)
@click.option("--budget", default="12m", show_default=True, help="Time for the search.")
@click.option("--json", "as_json", is_flag=True, help="Print the outcome as JSON.")
def command(output: Path, budget: str, as_json: bool) -> int:
    """Make a sentiment model lean, prove it on four domains, release it, and write the report."""
    from jettison.cli.run import run_and_tell
    from jettison.loop.config import read_config
    from jettison.loop.demo import prepare_demo

    config = prepare_demo(output, budget=budget, say=lambda message: click.echo(message, err=True))
    return run_and_tell(read_config(config), as_json=as_json)
