"""`jettison cost`: what candidates, releases and addresses cost per task, side by side."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec
from rich.markup import escape

from jettison.cli.cost_load import (
    address_target,
    asked_of,
    check_no_load_options,
    is_address,
    load_options,
    run_load,
)
from jettison.cli.finite import FiniteRange
from jettison.errors import InvalidInput
from jettison.files import decode_json

if TYPE_CHECKING:
    from jettison.candidate import Candidate
    from jettison.cost.subject import Progress
    from jettison.decision import CostSummary
    from jettison.task import Task


def _not_two(context: click.Context, option: click.Parameter, value: int) -> int:
    if value == 2:
        raise InvalidInput(
            "--openings must be 1, or 3 or more, got 2: the interval of two spans orders of magnitude."
        )
    return value


@click.command("cost")
@click.argument("targets", nargs=-1, required=True)
@click.option("--input", "input_file", type=click.Path(path_type=Path), help="Texts, one a line, or JSONL.")
@click.option(
    "--task",
    "task_file",
    type=click.Path(path_type=Path),
    help="A task.toml: texts of unlabelled where it has 100, else of dev; under load always of dev.",
)
@click.option(
    "--threads", type=click.IntRange(min=1), default=1, show_default=True, help="Threads of each."
)
@click.option(
    "--n", "n_inputs", type=click.IntRange(min=1), default=128, show_default=True, help="Texts drawn."
)
@click.option(
    "--rounds", type=click.IntRange(min=6), default=30, show_default=True, help="Interleaved rounds."
)
@click.option("--budget", "budget_s", type=FiniteRange(min=1), default=120.0, show_default=True,
              help="Seconds for all measured blocks; opening and warming up come on top.")  # fmt: skip
@click.option(
    "--openings",
    type=click.IntRange(1, 100),
    callback=_not_two,
    default=6,
    show_default=True,
    help="Fresh processes of each, over which ratios' intervals are taken.",
)
@click.option(
    "--cold-starts",
    type=click.IntRange(0, 1000),
    default=0,
    show_default=True,
    help="Starts of each in fresh processes, without --scenario; 6 or more have an interval.",
)
@click.option(
    "--usd-per-hour", type=FiniteRange(min=0), help="Price of this machine, for the cost in money."
)
@click.option(
    "--grid",
    "grid_file",
    type=click.Path(path_type=Path),
    help="TOML: what a kilowatt-hour emits here, for CO₂e; calibrated watts.",
)
@click.option(
    "--meter", default="auto", show_default=True, help="Of energy: auto, none, rapl, nvml, zeus, a plugin."
)
@click.option(
    "--seed",
    type=click.IntRange(0, 2**32 - 1),
    default=0,
    show_default=True,
    help="Draws the texts and the orders.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
@load_options
def command(
    targets: Sequence[str],
    input_file: Path | None,
    task_file: Path | None,
    threads: int,
    n_inputs: int,
    rounds: int,
    budget_s: float,
    openings: int,
    cold_starts: int,
    usd_per_hour: float | None,
    grid_file: Path | None,
    meter: str,
    seed: int,
    as_json: bool,
    **load: Any,
) -> int:
    """Measure TARGETS (candidates, releases, addresses; with --task also model folders) side by side.

    Ratios are taken against the first. Without --scenario, local ones answer the same texts one at
    a time, in interleaved blocks, and in batches for throughput. With one, or with an address
    (http://...), they are measured under load, latency counted from the scheduled arrival.
    """
    from jettison.cost.grid import GridFile, read_grid
    from jettison.task.read import read_task

    if (input_file is None) == (task_file is None):
        given = "neither" if task_file is None else "both"
        raise InvalidInput(f"the texts must come from --input FILE or from --task task.toml, got {given}.")
    grid = read_grid(grid_file) if grid_file is not None else GridFile()
    task = read_task(task_file) if task_file is not None else None
    is_load = load["scenario"] is not None or any(is_address(target) for target in targets)
    if is_load and cold_starts:
        raise InvalidInput("--cold-starts must come without a --scenario or an address, got one of them.")
    if is_load:
        asked = asked_of(task, _read_texts(input_file) if input_file else [], n=n_inputs, seed=seed)
        opened = [
            address_target(target, load) if is_address(target) else _candidate_at(Path(target), task, seed)
            for target in targets
        ]
        with _progress(shown=not as_json) as say:
            return run_load(
                opened,
                asked,
                load,
                seed=seed,
                openings=openings,
                threads=threads,
                usd_per_hour=usd_per_hour,
                meter=meter,
                grid=grid,
                as_json=as_json,
                progress=say,
            )
    check_no_load_options({name: value for name, value in load.items() if name != "rate"})
    judged = asked_of(task, [], n=n_inputs, seed=seed) if task is not None and task.dev else None
    paths = [Path(target) for target in targets]
    texts = _texts_of(task) if task is not None else _read_texts(input_file or Path())
    return _run_single(
        paths,
        [_candidate_at(path, task, seed) for path in paths],
        texts,
        n_inputs=n_inputs,
        as_json=as_json,
        rounds=rounds,
        openings=openings,
        seed=seed,
        threads=threads,
        budget_s=budget_s,
        cold_starts=cold_starts,
        usd_per_hour=usd_per_hour,
        meter=meter,
        grid=grid,
        own_rate_per_s=load["rate"],
        judged=judged.inputs if judged else (),
        judge=judged.judge if judged else None,
        kind=task.kind if task is not None else None,
    )


def _run_single(
    paths: Sequence[Path],
    candidates: "Sequence[Candidate]",
    texts: Sequence[str],
    *,
    n_inputs: int,
    as_json: bool,
    seed: int,
    kind: str | None,
    **settings: Any,
) -> int:
    """One at a time, in interleaved blocks, and in batches."""
    from jettison.cost.inputs import sample_inputs
    from jettison.cost.measure import measure_costs
    from jettison.decide.report_costs import cost_contexts

    inputs = sample_inputs(texts, n=n_inputs, seed=seed)
    with _progress(shown=not as_json) as say:
        costs = measure_costs(candidates, inputs, seed=seed, **settings, keep_partial=True, progress=say)
    names = _distinct_names([candidate.name for candidate in candidates], paths)
    contexts = cost_contexts(names, costs, kind)
    if as_json:
        told = [
            {"name": name, "path": str(path), "cost": cost}
            for name, path, cost in zip(names, paths, costs, strict=True)
        ]
        content = {"n_inputs": len(inputs), "candidates": told, "contexts": contexts}
        click.echo(msgspec.json.format(msgspec.json.encode(content), indent=2))
    else:
        _print_table(names, costs, contexts, n_inputs=len(inputs))
    return 0


def _distinct_names(names: Sequence[str], paths: Sequence[Path]) -> list[str]:
    """Names, with as much of their path as tells them apart where two are the same."""
    whole = [path.absolute() for path in paths]
    for n_parts in range(1, max(len(path.parts) for path in whole) + 1):
        found = [
            f"{name} ({Path(*path.parts[-n_parts:])})" if names.count(name) > 1 else name
            for name, path in zip(names, whole, strict=True)
        ]
        if len(set(found)) == len(found):
            break
    return found


def _candidate_at(path: Path, task: "Task | None", seed: int) -> "Candidate":
    """The candidate in a folder or a release; with a task, also a plain model folder."""
    from jettison.candidate import MANIFEST, Candidate
    from jettison.release import open_release
    from jettison.release.routed import route_candidate

    if (path / MANIFEST).is_file():
        return Candidate.at(path)
    if (path / "release.json").is_file():
        return route_candidate(open_release(path))
    if task is None:
        raise InvalidInput(
            f"{path} must be a candidate (with {MANIFEST}) or a release (with release.json), got neither. "
            "For a plain model folder give --task: its labels are needed."
        )
    from jettison.compress.incumbent import take_in

    return take_in(
        str(path),
        labels=task.labels,
        out_of_scope=task.out_of_scope,
        cache=task.folder / ".jettison" / "models",
        seed=seed,
        data=task.development,
    )


def _texts_of(task: "Task") -> list[str]:
    """Unlabelled traffic where the task has enough of it to show its lengths, else dev; never test."""
    examples = task.unlabelled if len(task.unlabelled) >= 100 else task.dev
    return [example.input for example in examples]


def _read_texts(path: Path) -> list[str]:
    """Texts of a file: one a line, or the `input` or `text` of JSON lines."""
    try:
        lines = [line for line in path.read_text(encoding="utf-8").split("\n") if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"--input must be a readable UTF-8 text file, got {path}: {error}.") from error
    if path.suffix not in (".jsonl", ".ndjson"):
        return lines
    return [_text_of(line, path, number) for number, line in enumerate(lines, 1)]


def _text_of(line: str, path: Path, number: int) -> str:
    try:
        row = decode_json(line, dict[str, Any])
    except msgspec.DecodeError as error:
        raise InvalidInput(f"{path} must hold one JSON object a line: {error} at line {number}.") from error
    found = row.get("input", row.get("text"))
    if not isinstance(found, str):
        raise InvalidInput(
            f"each line of {path} must have a text `input` or `text`, got none at line {number}."
        )
    return found


@contextmanager
def _progress(*, shown: bool) -> "Iterator[Progress]":
    """A bar on stderr where somebody watches."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(bar_width=24), TimeElapsedColumn())
    visible = shown and console.is_terminal
    with Progress(*columns, console=console, transient=True, disable=not visible) as bars:
        bar = bars.add_task("starting", total=None)

        def say(message: str, share: float | None) -> None:
            total = None if share is None else 1.0
            bars.update(bar, description=message, total=total, completed=share or 0.0)

        yield say


def _print_table(
    names: Sequence[str], costs: "Sequence[CostSummary]", contexts: Sequence[str], *, n_inputs: int
) -> None:
    """One column a candidate, in units that people read, then what they rest on."""
    from rich.console import Console

    from jettison.cli.tables import print_costs
    from jettison.decide.report_costs import cost_notes, cost_rows

    console = Console(highlight=False)
    rows = [row._replace(name=_of_first(row.name)) for row in cost_rows(costs, is_narrow=True)]
    print_costs(console, names, rows)
    console.print(f"[dim]On {n_inputs} texts. Ratios are against {escape(names[0])}.[/dim]")
    for note in (*cost_notes(costs, names), *contexts):
        console.print(f"[dim]{escape(_of_first(note))}[/dim]")


def _of_first(said: str) -> str:
    """The words of a run's report, where no target is an incumbent and ratios are against the first."""
    return said.replace("the incumbent", "the first target")
