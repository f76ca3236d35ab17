"""`jettison label`: which traffic to label next, a page to label it on, and what the labels say."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jettison.loop.labels import ToLabel
    from jettison.loop.production import Realised
    from jettison.task import Task


@click.command("label")
@click.argument("task_file", metavar="TASK", type=click.Path(path_type=Path))
@click.argument("models", nargs=-1)
@click.option("--budget", type=click.IntRange(1), default=100, show_default=True, help="Labels to buy.")
@click.option(
    "--output", type=click.Path(path_type=Path), default=Path("to-label.jsonl"), show_default=True
)
@click.option("--slice", "column", help="Slice column, each of whose values gets its share.")
@click.option(
    "--undecided", type=click.Path(path_type=Path), metavar="DECISION",
    help="decision.json, or the run's folder: most labels go to the slices that it left open.",
)  # fmt: skip
@click.option("--candidate", help="With --undecided: of which candidate; else the nominated ones.")
@click.option("--serve", is_flag=True, help="Serve a labelling page on loopback.")
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="Of the page; 0 takes a free one.")
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
    scores on all of the traffic, and the difference.
    """
    import msgspec

    from jettison.decide.render import read_decision
    from jettison.errors import InvalidInput
    from jettison.evaluate.slices import Slicer
    from jettison.loop.label_page import LabelServer
    from jettison.loop.labels import (
        check_slice_column,
        choose_labels,
        estimate_from_labels,
        open_slices,
        read_labelled,
        write_to_label,
    )
    from jettison.loop.suites import answers_of
    from jettison.task.read import read_task

    task = read_task(task_file)
    if answered is not None:
        rows = read_labelled(answered)
        found = estimate_from_labels(task, rows)
        came = () if store is None else _realised(task, rows, store)
        if as_json:
            told = found if store is None else {"estimates": found, "realised": came}
            click.echo(msgspec.json.format(msgspec.json.encode(told), indent=2))
            return 0
        for one in found:
            where = f" of {one.slice}" if one.slice else ""
            unit = "points" if one.of == "b - a" else "%"
            click.echo(
                f"{one.of:>6}: {100 * one.value:.1f} {unit} ({100 * one.low:.1f} to {100 * one.high:.1f}), "
                f"{one.n_labels} labels for {one.n_inputs:,} inputs{where}"
            )
        for after in came:
            held = "holds" if after.inside else "does not hold"
            unit = "points" if after.of == "b - a" else "%"
            click.echo(
                f"predicted {after.of}: {held}; what was predicted came to {100 * after.value:.1f} {unit} "
                f"({100 * after.low:.1f} to {100 * after.high:.1f})"
            )
        return 0
    if store is not None:
        raise InvalidInput("--store must come with --read, got it without.")
    if len(models) != 2:
        raise InvalidInput(f"two models must be named, A and B, got {len(models)}.")
    check_slice_column(task.unlabelled, column)  # before the models are asked
    a, b = (answers_of(model, task, task.unlabelled, split="unlabelled") for model in models)
    left: list[str] = []
    traffic = task.unlabelled
    if undecided is not None:
        traffic = Slicer.fit(task.development).apply(traffic)
        left = open_slices(read_decision(undecided), traffic, candidate=candidate)
        click.echo(f"undecided: {', '.join(left)}")
    rows = choose_labels(traffic, a, b, budget=budget, column=column, undecided=left, seed=seed)
    write_to_label(output, rows)
    click.echo(f"{len(rows)} of {len(task.unlabelled):,} inputs to label: {output}")
    if serve:
        server = LabelServer(output, task.labels, port=port)
        click.echo(f"label at {server.address}  (ctrl-c ends; answers are kept at once)")
        server.serve()
    click.echo(f"next: fill in `label`, then jettison label {task_file} --read {output}")
    return 0


def _realised(task: "Task", rows: "Sequence[ToLabel]", store: Path) -> "tuple[Realised, ...]":
    from jettison.loop.labels import scores_of_labels
    from jettison.loop.production import realise

    answered, scores = scores_of_labels(task, rows)
    return realise(
        store,
        scores,
        [row.propensity for row in answered],
        traffic=task.unlabelled,
        ids=[row.id for row in answered],
    )
