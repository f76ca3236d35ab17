"""`jettison run`: the whole loop, resumable."""

import json
import sys
from pathlib import Path
from typing import Any

import click
import msgspec

from jettison.cli.progress import Screen
from jettison.cli.stopping import stopped_by_sigterm


@click.command("run")
@click.argument("config", type=click.Path(path_type=Path), default=Path("jettison.toml"))
@click.option("--budget", help="Time for the run, as 10m or 1h30m.")
@click.option("--threads", type=int, help="Threads a candidate answers with.")
@click.option("--seed", type=int, help="Of everything random.")
@click.option("--output", type=click.Path(path_type=Path), help="Folder of the run.")
@click.option(
    "--from-traffic", "traffic", type=click.Path(path_type=Path), metavar="STATE",
    help="Go round again with a gateway's traffic: its texts become unlabelled examples.",
)  # fmt: skip
@click.option(
    "--accepted", type=click.Path(path_type=Path), metavar="PROPOSED",
    help="With --from-traffic: rows of `jettison mine` that somebody accepted.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print the outcome as JSON.")
def command(
    config: Path,
    budget: str | None,
    threads: int | None,
    seed: int | None,
    output: Path | None,
    traffic: Path | None,
    accepted: Path | None,
    as_json: bool,
) -> int:
    """Compress, evaluate, decide, release, as CONFIG says (jettison.toml if not given).

    Where an option is not given, what CONFIG says holds.
    Killed at any moment, the same command goes on where it stopped. Exit code 0: a candidate
    may ship; 1: none may; 2: bad input.
    """
    from jettison.errors import InvalidInput
    from jettison.loop.config import check_config, read_config

    given = {"budget": budget, "threads": threads, "seed": seed, "output": output and str(output)}
    changes = {name: value for name, value in given.items() if value is not None}
    if traffic is not None:
        config = _with_traffic(config, traffic, accepted, output, quiet=as_json)
        changes.pop("output", None)
    elif accepted is not None:
        raise InvalidInput("--accepted must come with --from-traffic STATE.")
    settings = msgspec.structs.replace(read_config(config), **changes)
    check_config(settings, "the command line")
    return run_and_tell(settings, as_json=as_json)


def _with_traffic(
    config: Path, traffic: Path, accepted: Path | None, output: Path | None, *, quiet: bool
) -> Path:
    """Write the next round's task and settings; the same inputs give the same task, so that it resumes."""
    from jettison.cli.mine import tell_next
    from jettison.loop.accept import accept, read_proposals
    from jettison.loop.config import read_config
    from jettison.loop.mine import read_requests
    from jettison.task.read import read_task

    settings = read_config(config)
    folder = output or Path(f"{settings.output}-next")
    written = accept(
        () if accepted is None else read_proposals(accepted),
        read_task(Path(settings.task)),
        folder / "task",
        config=config,
        traffic=read_requests(traffic),
    )
    if not quiet:
        tell_next(written)
    return Path(written.config or config)


def run_and_tell(settings: Any, *, as_json: bool) -> int:
    """Run the loop with a progress display, print the outcome, and return the exit code."""
    from jettison.decision import EXIT_CODE
    from jettison.loop.run import run

    with stopped_by_sigterm(), Screen(quiet=as_json and not sys.stderr.isatty()) as screen:
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
