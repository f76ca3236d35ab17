"""`jettison mine`: failures of live traffic as named modes, and accepted rows into the next task."""

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from jettison.cli.finite import FiniteRange

if TYPE_CHECKING:
    from jettison.loop.accept import NextTask
    from jettison.loop.mine import Mined


@click.command("mine")
@click.argument("state", type=click.Path(path_type=Path), required=False)
@click.option("--task", "task_file", type=click.Path(path_type=Path), help="task.toml of the release.")
@click.option(
    "--output", type=click.Path(path_type=Path), help="Folder to write; `mined` or `next` if not given."
)
@click.option("--since", metavar="AGE", help="Only the last so long, as 24h or 90m.")
@click.option(
    "--rows", type=click.IntRange(1), default=300, show_default=True, help="Most proposals a mode."
)
@click.option(
    "--low-confidence", type=FiniteRange(0, 1), default=0.5, show_default=True,
    help="An answer below it is doubtful.",
)  # fmt: skip
@click.option(
    "--alpha", type=FiniteRange(0, 1, min_open=True, max_open=True), default=0.05, show_default=True,
    help="Chance of any mode where failures are spread evenly.",
)  # fmt: skip
@click.option(
    "--accept", "accepted", type=click.Path(path_type=Path), metavar="PROPOSED",
    help="Take the rows with `accept` true into a new task.",
)  # fmt: skip
@click.option(
    "--config", type=click.Path(path_type=Path), help="With --accept: jettison.toml to write anew."
)
@click.option(
    "--margin", type=float, default=0.05, show_default=True,
    help="With --accept: how much worse than the incumbent a new slice may be.",
)  # fmt: skip
@click.option("--seed", type=int, default=0, show_default=True, help="Of everything random.")
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def command(
    state: Path | None,
    task_file: Path | None,
    output: Path | None,
    since: str | None,
    rows: int,
    low_confidence: float,
    alpha: float,
    accepted: Path | None,
    config: Path | None,
    margin: float,
    seed: int,
    as_json: bool,
) -> int:
    """Find what the requests in STATE that were answered badly have in common.

    STATE is a gateway's state folder, whose log keeps texts. Go through `proposed.jsonl`, set `accept` and
    correct `label`; then `jettison mine --accept mined/proposed.jsonl --task task.toml` writes the task of
    the next round, in which each accepted mode is a slice that must hold by itself.
    """
    import msgspec

    from jettison.errors import InvalidInput
    from jettison.task.read import read_task

    if accepted is not None:
        from jettison.loop.accept import accept, read_proposals

        if task_file is None:
            raise InvalidInput("--accept must come with --task, the task.toml of the last round.")
        written = accept(
            read_proposals(accepted), read_task(task_file), output or Path("next"),
            config=config, margin=margin, seed=seed,
        )  # fmt: skip
        if as_json:
            click.echo(msgspec.json.format(msgspec.json.encode(written), indent=2))
        else:
            tell_next(written)
        return 0
    if state is None:
        raise InvalidInput("a gateway's state folder must be named, or --accept PROPOSED.")
    if config is not None:
        raise InvalidInput("--config must come with --accept.")

    from jettison.loop.config import parse_duration
    from jettison.loop.mine import mine, read_requests, write_found

    begin = 0.0 if since is None else time.time() - parse_duration(since)
    requests = read_requests(state, since=begin, low_confidence=low_confidence)
    task = None if task_file is None else read_task(task_file)
    found = mine(requests, task, rows=rows, alpha=alpha, seed=seed)
    folder = output or Path("mined")
    write_found(folder, found)
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(found.mined), indent=2))
    else:
        _tell(found.mined, folder, len(found.proposals))
    return 0


def tell_next(written: "NextTask") -> None:
    """Say what the next round's task is."""
    for mode, splits in written.rows.items():
        click.echo(f"{mode}: " + ", ".join(f"{n} {split}" for split, n in sorted(splits.items())))
    if written.n_unlabelled:
        click.echo(f"{written.n_unlabelled:,} texts of traffic, unlabelled")
    for note in written.notes:
        click.echo(f"  - {note}")
    click.echo(f"task     {written.task}")
    click.echo(f"next     jettison run {written.config}" if written.config else "next     jettison run")


def _tell(mined: "Mined", folder: Path, n_proposals: int) -> None:
    click.echo(
        f"{mined.n_searched:,} requests: {mined.n_bad:,} bad answers, {mined.n_doubtful:,} doubtful; "
        f"{mined.n_outside:,} of them in no mode"
    )
    for mode in mined.modes:
        reasons = ", ".join(f"{reason} {n:,}" for reason, n in list(mode.reasons.items())[:3])
        click.echo(f"\n{mode.name}  {mode.n:,} requests, {mode.trend}  ({mode.title})")
        click.echo(f"  {mode.n_bad:,} bad, {mode.n_doubtful:,} doubtful: {reasons}")
        for text in mode.examples[:3]:
            click.echo(f"  “{' '.join(text.split())[:96]}”")
    if not mined.modes:
        click.echo("no subgroup stands out: failures are spread evenly, or too rare to tell")
    for note in mined.notes:
        click.echo(f"  - {note}")
    click.echo(f"\nread     {folder / 'failures.md'}")
    if n_proposals:
        click.echo(
            f"go through {n_proposals} rows of {folder / 'proposed.jsonl'}: set `accept`, correct `label`"
        )
