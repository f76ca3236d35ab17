"""`jettison label`: which traffic to label next, a page to label it on, and what the labels say."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jettison.loop.labels import ToLabel
    from jettison.loop.production import Realised
    from jettison.task import Example, Task


@click.command("label")
@click.argument("task_file", metavar="TASK", type=click.Path(path_type=Path))
@click.argument("models", nargs=-1)
@click.option("--budget", type=click.IntRange(1), default=100, show_default=True, help="Labels to buy.")
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    default=Path("to-label.jsonl"),
    show_default=True,
    help="File of the inputs to label.",
)
@click.option("--slice", "column", help="Slice column, each of whose values gets its share.")
@click.option(
    "--undecided", type=click.Path(path_type=Path), metavar="DECISION",
    help="decision.json, or the run's folder: most labels go to the slices that it left open.",
)  # fmt: skip
@click.option("--candidate", help="With --undecided: of which candidate; else the nominated ones.")
@click.option("--serve", is_flag=True, help="Serve a labelling page on loopback.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=0,
    show_default=True,
    help="Of the page; 0 takes a free one.",
)
@click.option(
    "--read", "answered", type=click.Path(path_type=Path), help="Read answers back: what they say."
)
@click.option(
    "--store", type=click.Path(path_type=Path),
    help="With --read: file of `suites gap --store`; what came is set beside the prediction and kept.",
)  # fmt: skip
@click.option(
    "--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True, help="Of the draw."
)
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def command(
    task_file: Path,
    models: tuple[str, ...],
    budget: int,
    output: Path,
    column: str | None,
    undecided: Path | None,
    candidate: str | None,
    serve: bool,
    port: int,
    answered: Path | None,
    store: Path | None,
    seed: int,
    as_json: bool,
) -> int:
    """Choose unlabelled inputs of TASK whose labels tell most of two MODELS, A and B.

    Fill in `label` in the file, or on the page with --serve; then `--read FILE` estimates both models'
    scores on all of the traffic, and the difference. With --serve and no models it goes on where labelling
    was left. Labels that stand in the file are never written over.
    """
    from jettison.decide.render import read_decision
    from jettison.errors import InvalidInput
    from jettison.evaluate.run import evaluate
    from jettison.evaluate.slices import Slicer
    from jettison.loop.labels import (
        check_labelled_kind,
        check_slice_column,
        choose_labels,
        open_slices,
        read_labelled,
        rows_standing_in,
        with_kept_labels,
        write_to_label,
    )
    from jettison.loop.suites import opened
    from jettison.task.read import read_task

    task = read_task(task_file, needs_test=False)
    check_labelled_kind(task.kind)
    if answered is not None:
        _show(task, read_labelled(answered), store, as_json=as_json)
        return 0
    if store is not None:
        raise InvalidInput("--store must come with --read, got it without.")
    if serve and not models and output.exists():
        _serve(task, task_file, output, port, to_stderr=as_json)
        return 0
    if len(models) != 2:
        raise InvalidInput(f"two models must be named, A and B, got {len(models)}.")
    if column is not None and undecided is not None:
        raise InvalidInput("either --slice or --undecided may be given, got both.")
    check_slice_column(task.unlabelled, column)  # before the models are asked
    rows_standing_in(output)  # a file of something else is refused now, too
    traffic: Sequence[Example] = task.unlabelled
    left: list[str] = []
    if undecided is not None:
        traffic = Slicer.fit(task.development).apply(traffic)
        left = open_slices(read_decision(undecided), traffic, candidate=candidate)
        click.echo(f"undecided: {', '.join(left)}", err=as_json)
    with opened(models, task) as candidates:
        a, b = (evaluate(one, traffic, split="unlabelled", scorers=task.scoring) for one in candidates)
    drawn = choose_labels(traffic, a, b, budget=budget, column=column, undecided=left, seed=seed)
    rows = with_kept_labels(output, drawn)
    write_to_label(output, rows)
    n_kept = sum(row.label is not None for row in rows)
    kept = f", {n_kept:,} of which have their label" if n_kept else ""
    if as_json:
        _show_drawn(task, rows, output)
    else:
        click.echo(f"{len(rows)} of {len(task.unlabelled):,} inputs to label: {output}{kept}")
    if serve:
        _serve(task, task_file, output, port, to_stderr=as_json)
    elif not as_json:
        click.echo(f"next: fill in `label`, then jettison label {task_file} --read {output}")
    return 0


def _serve(task: "Task", task_file: Path, output: Path, port: int, *, to_stderr: bool) -> None:
    from jettison.loop.label_page import LabelServer

    server = LabelServer(output, task.labels, port=port)
    try:
        click.echo(f"label at {server.address}  (ctrl-c ends; answers are kept at once)", err=to_stderr)
        server.serve()
    except KeyboardInterrupt:
        click.echo("", err=to_stderr)
    left = f"{server.n_left:,} inputs have no label yet" if server.n_left else "every input has its label"
    click.echo(f"{left}: {output}", err=to_stderr)
    if server.n_left:
        click.echo(f"go on: jettison label {task_file} --serve --output {output}", err=to_stderr)
    click.echo(f"next: jettison label {task_file} --read {output}", err=to_stderr)


def _show_drawn(task: "Task", rows: "Sequence[ToLabel]", output: Path) -> None:
    import msgspec

    told = {
        "output": str(output),
        "n_inputs": len(task.unlabelled),
        "n_to_label": len(rows),
        "n_labelled": sum(row.label is not None for row in rows),
        "strata": {
            name: {"n": sum(row.stratum_name == name for row in rows), "n_inputs": size}
            for name, size in sorted({(row.stratum_name, row.stratum_size) for row in rows})
        },
    }
    click.echo(msgspec.json.format(msgspec.json.encode(told), indent=2))


def _show(task: "Task", rows: "Sequence[ToLabel]", store: Path | None, *, as_json: bool) -> None:
    import msgspec

    from jettison.loop.labels import estimate_from_labels

    found = estimate_from_labels(task, rows)
    if as_json:
        told = found if store is None else {"estimates": found, "realised": _realised(task, rows, store)}
        click.echo(msgspec.json.format(msgspec.json.encode(told), indent=2))
        return
    for one in found:
        where = f" of {one.slice}" if one.slice else ""
        unit = "points" if one.of == "b - a" else "%"
        click.echo(
            f"{one.of:>6}: {100 * one.value:.1f} {unit} ({100 * one.low:.1f} to {100 * one.high:.1f}), "
            f"{one.n_labels} labels for {one.n_inputs:,} inputs{where}"
        )
    n_open = sum(row.label is None for row in rows)
    if n_open:
        click.echo(
            f"{n_open:,} of {len(rows):,} have no label and are left out: right where they are any of those"
            " drawn, not where they are the hard ones that were put off."
        )
    n_unjudged = len(rows) - n_open - found[0].n_labels
    if n_unjudged:
        click.echo(
            f"{n_unjudged:,} have a label and are left out: scorer {task.scorers[0]!r} cannot judge what "
            "was answered."
        )
    for after in () if store is None else _realised(task, rows, store):
        agrees = "agrees, as far as" if after.inside else "does not agree:"
        tell = "tell" if after.inside else ""
        unit = "points" if after.of == "b - a" else "%"
        click.echo(
            f"predicted {after.of}: {100 * after.predicted:.1f} {unit} "
            f"({100 * after.predicted_low:.1f} to {100 * after.predicted_high:.1f}), came to "
            f"{100 * after.value:.1f} ({100 * after.low:.1f} to {100 * after.high:.1f}): "
            f"{agrees} {after.n_labels} labels {tell}".rstrip()
        )


def _realised(task: "Task", rows: "Sequence[ToLabel]", store: Path) -> "tuple[Realised, ...]":
    from jettison.loop.labels import answered_propensities, scores_of_labels
    from jettison.loop.production import realise

    answered, scores = scores_of_labels(task, rows)
    return realise(
        store,
        scores,
        answered_propensities(rows, answered),
        traffic=task.unlabelled,
        ids=[row.id for row in answered],
    )
