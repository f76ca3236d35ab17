"""`jettison doctor`: what this machine can run and measure, and what is missing."""

import json

import click

from jettison.cli.terminal import no_fuss_when_nobody_reads


@click.command("doctor")
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
def command(as_json: bool) -> int:
    """Say which runtimes and steps can run here, and what stands in the way of the others."""
    from jettison.loop.doctor import examine

    found = examine()
    with no_fuss_when_nobody_reads():
        if as_json:
            click.echo(json.dumps([f._asdict() for f in found], indent=2))
            return 0
        width = max(len(finding.what) for finding in found)
        for finding in found:
            mark = {True: "yes", False: "no ", None: " - "}[finding.ok]
            click.echo(f"{mark}  {finding.what:<{width}}  {finding.detail}")
    return 0
