"""`jettison run`: the whole loop, resumable."""

import json
import sys
from pathlib import Path
from typing import Any

import click
import msgspec

from jettison.cli.progress import Screen


@click.command("run")
@click.argument("config", type=click.Path(path_type=Path), default=Path("jettison.toml"))
@click.option("--budget", help="Time for the search, as 10m or 1h30m.")
@click.option("--threads", type=int, help="Threads a candidate answers with.")
@click.option("--seed", type=int, help="Of everything random.")
@click.option("--output", type=click.Path(path_type=Path), help="Folder of the run.")
@click.option("--json", "as_json", is_flag=True, help="Print the outcome as JSON.")
def command(
    config: Path,
    budget: str | None,
    threads: int | None,
    seed: int | None,
    output: Path | None,
    as_json: bool,
) -> int:
    """Compress, evaluate, decide, release, as CONFIG (jettison.toml) says.

    Killed at any moment, the same command goes on where it stopped. Exit code 0: a candidate
    may ship; 1: none may; 2: bad input.
    """
    from jettison.loop.config import check_config, read_config

    given = {"budget": budget, "threads": threads, "seed": seed, "output": output and str(output)}
    changes = {name: value for name, value in given.items() if value is not None}
    settings = msgspec.structs.replace(read_config(config), **changes)
    check_config(settings, "the command line")
    return run_and_tell(settings, as_json=as_json)


def run_and_tell(settings: Any, *, as_json: bool) -> int:
    """Run the loop with a progress display, print the outcome, and return the exit code."""
    from jettison.decision import EXIT_CODE
    from jettison.loop.run import run

    with Screen(quiet=as_json and not sys.stderr.isatty()) as screen:
        outcome = run(settings, watcher=screen)
    decision = outcome.decision
    if as_json:
        told = {
            "verdict": decision.verdict.value,
            "chosen": decision.chosen,
            "headline": decision.headline,
            "reasons": decision.reasons,
            "report": str(outcome.report),
            "release": outcome.release and str(outcome.release),
            "duration_s": outcome.duration_s,
        }
        click.echo(json.dumps(told, indent=2))
    else:
        click.echo(f"\n{decision.verdict.value}: {decision.headline}")
        for reason in decision.reasons:
            click.echo(f"  - {reason}")
        click.echo(f"\nreport   {outcome.report}")
        if outcome.release is not None:
            click.echo(f"release  {outcome.release}")
            click.echo(f"try      jettison predict {outcome.release} 'a text of yours'")
    return EXIT_CODE[decision.verdict]
