"""`jettison label`: which traffic to label next, a page to label it on, and what the labels say."""

from pathlib import Path

import click


@click.command("label")
@click.argument("task_file", metavar="TASK", type=click.Path(path_type=Path))
@click.argument("models", nargs=-1)
@click.option("--budget", type=click.IntRange(1), default=100, show_default=True, help="Labels to buy.")
@click.option(
    "--output", type=click.Path(path_type=Path), default=Path("to-label.jsonl"), show_default=True
)
@click.option("--slice", "column", help="Slice column, each of whose values gets its share.")
@click.option("--serve", is_flag=True, help="Serve a labelling page on loopback.")
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="Of the page; 0 takes a free one.")
@click.option(
    "--read", "answered", type=click.Path(path_type=Path), help="Read answers back: what they say."
)
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
    serve: bool,
    port: int,
    answered: Path | None,
    seed: int,
    as_json: bool,
) -> int:
    """Choose unlabelled inputs of TASK whose labels tell most of two MODELS, A and B.

    Fill in `label` in the file, or on the page with --serve; then `--read FILE` estimates both models'
    scores on all of the traffic, and the difference.
    """
    import msgspec

    from jettison.errors import InvalidInput
    from jettison.loop.label_page import LabelServer
    from jettison.loop.labels import choose_labels, estimate_from_labels, read_labelled, write_to_label
    from jettison.loop.suites import answers_of
    from jettison.task.read import read_task

    task = read_task(task_file)
    if answered is not None:
        found = estimate_from_labels(task, read_labelled(answered))
        if as_json:
            click.echo(msgspec.json.format(msgspec.json.encode(found), indent=2))
        for one in () if as_json else found:
            click.echo(
                f"{one.of:>6}: {100 * one.value:.1f} % ({100 * one.low:.1f} to {100 * one.high:.1f}), "
                f"{one.n_labels} labels for {one.n_inputs:,} inputs"
            )
        return 0
    if len(models) != 2:
        raise InvalidInput(f"two models must be named, A and B, got {len(models)}.")
    a, b = (answers_of(model, task, task.unlabelled, split="unlabelled") for model in models)
    rows = choose_labels(task.unlabelled, a, b, budget=budget, column=column, seed=seed)
    write_to_label(output, rows)
    click.echo(f"{len(rows)} of {len(task.unlabelled):,} inputs to label: {output}")
    if serve:
        server = LabelServer(output, task.labels, port=port)
        click.echo(f"label at {server.address}  (ctrl-c ends; answers are kept at once)")
        server.serve()
    return 0
