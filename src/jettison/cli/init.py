"""`jettison init MODEL DATA`: look at both, write task.toml and jettison.toml, say what was found.

`--logs FILE...` makes the task of request logs instead, `--from-traffic FOLDER` of a gateway's log.
"""

import sys
from pathlib import Path
from typing import Any

import click


@click.command("init")
@click.argument("model", required=False)
@click.argument("data", required=False, type=click.Path(path_type=Path))
@click.argument("more", nargs=-1, metavar="")
@click.option("--logs", is_flag=True, help="The arguments are request logs: make a task of them.")
@click.option(
    "--from-traffic",
    "traffic",
    type=click.Path(path_type=Path),
    help="Make a task of what a gateway has logged in this folder; the options of --logs apply.",
)
@click.option("--trust-answers", is_flag=True, help="With --logs: take the answers for the truth.")
@click.option("--keep-pii", is_flag=True, help="With --logs: do not mask addresses and numbers of persons.")
@click.option(
    "--template",
    type=int,
    default=1,
    show_default=True,
    help="With --logs: which recognised prompt, the most used is 1.",
)
@click.option(
    "--out",
    "--output",
    "out",
    type=click.Path(path_type=Path),
    default=Path("."),
    show_default=True,
    help="Folder for the two files.",
)
@click.option("--input", "input_", metavar="COLUMN", help="Column of the texts.")
@click.option("--expected", metavar="COLUMN", help="Column of the labels.")
@click.option("--split", metavar="COLUMN", help="Column that says train, dev or test.")
@click.option("--group", metavar="COLUMN", help="Column of what depends on each other, as turns of a chat.")
@click.option("--id", "id_", metavar="COLUMN", help="Column of ids, different in every row.")
@click.option("--weight", metavar="COLUMN", help="Column of weights.")
@click.option(
    "--slice", "slices", metavar="COLUMN", multiple=True, help="Column to report on; may be repeated."
)
@click.option("--out-of-scope", metavar="LABEL", help="The label that means none of the others.")
@click.option(
    "--alias", "aliases", metavar="WRITTEN=MEANT", multiple=True, help="A label mistyped in the data."
)
@click.option("--drop-leaked", is_flag=True, help="Take rows out of train whose text is in dev or test.")
@click.option("--config", metavar="NAME", help="Configuration of a data set folder that has several.")
@click.option("--name", help="Name of the task.")
@click.option("--force", is_flag=True, help="Replace files that are there.")
@click.option("--json", "as_json", is_flag=True, help="Print what was found as JSON.")
def command(
    model: str | None,
    data: Path | None,
    more: tuple[str, ...],
    logs: bool,
    traffic: Path | None,
    trust_answers: bool,
    keep_pii: bool,
    template: int,
    out: Path,
    force: bool,
    as_json: bool,
    input_: str | None,
    id_: str | None,
    aliases: tuple[str, ...],
    **hints: Any,
) -> int:
    """Look at MODEL and DATA; write task.toml and jettison.toml, ready to run.

    MODEL is a checkpoint folder, an .onnx or .gguf file, a candidate, a release or a hub id. DATA is a
    JSONL, JSON, CSV, TSV or Parquet file, or a Hugging Face data set folder.

    With --logs every argument is a log of requests and answers; task.toml, the inputs and the answers
    as the incumbent's outputs are written. With --from-traffic they are made of a gateway's own log.
    """
    if logs or traffic is not None:
        from jettison.cli.init_logs import tell_logs
        from jettison.cli.init_traffic import task_from_traffic
        from jettison.task.from_logs import task_from_logs

        files = [Path(one) for one in (model, data, *more) if one is not None]
        given: Any = {
            "name": hints["name"],
            "template": template,
            "trust_answers": trust_answers,
            "keep_pii": keep_pii,
            "force": force,
        }
        if traffic is not None:
            if files or logs:
                raise click.UsageError(
                    "--from-traffic takes its folder alone: no MODEL, no DATA, no --logs."
                )
            report = task_from_traffic(traffic, out, **given)
        elif not files:
            raise click.UsageError("Missing argument 'FILE': --logs needs one log or more.")
        else:
            report = task_from_logs(files, out, **given)
        tell_logs(report, as_json=as_json)
        return 0
    if model is None or data is None:
        raise click.UsageError(f"Missing argument '{'MODEL' if model is None else 'DATA'}'.")
    if more:
        raise click.UsageError(f"Got unexpected extra argument ({more[0]})")
    if trust_answers or keep_pii or template != 1:
        raise click.UsageError(
            "--trust-answers, --keep-pii and --template go with --logs or --from-traffic."
        )
    from jettison.loop.init import Hints, look

    known = Hints(input=input_, id=id_, aliases=_aliases(aliases), **hints)
    looked = look(model, data, out=out, hints=known, force=force)
    if as_json:
        import msgspec

        told = msgspec.json.encode(looked, enc_hook=str)
        click.echo(msgspec.json.format(told, indent=2).decode())
    else:
        _tell(looked)
    return 0


def _aliases(pairs: tuple[str, ...]) -> dict[str, str]:
    for pair in pairs:
        if "=" not in pair:
            raise click.BadParameter(f"must be WRITTEN=MEANT, got {pair!r}.", param_hint="--alias")
    return dict(pair.split("=", 1) for pair in pairs)


def _tell(looked: Any) -> None:
    """Two short tables and what to do next."""
    from rich.console import Console
    from rich.table import Table

    from jettison.loop.init_text import model_words, token_words

    console = Console(file=sys.stdout, highlight=False)
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    splits = ", ".join(f"{name} {n}" for name, n in looked.n_examples.items() if n)
    has_labels = looked.data.kind == "classify"
    rows = [
        ("model", model_words(looked.model).removeprefix("incumbent: ")),
        ("data", f"{looked.data.n_rows} rows, {_answers(looked.data)}; {splits}"),
        *((role, reason) for role, reason in looked.data.reasons.items()),
        (
            "slices",
            ", ".join(f"{c} ({n} values)" for c, n in looked.data.slice_values.items()) or "none found",
        ),
        *([("out of scope", looked.data.out_of_scope or "no such label found")] if has_labels else []),
        ("labels", looked.labels.message),
        ("tokens", token_words(looked.tokens).partition(": ")[2]),
        *(("gate", _gate_words(gate, looked.proposal)) for gate in looked.proposal.gates),
    ]
    for name, said in rows:
        bad = name == "labels" and looked.labels.verdict == "differ"
        table.add_row(f"[bold]{name}[/bold]", _plain(said, "red" if bad else ""))
    console.print(table)
    colors = {"error": "red", "warning": "yellow", "note": "dim"}
    for finding in looked.findings:
        if finding.message in looked.blocking:
            continue
        console.print(_plain(f"{finding.severity}: {finding.message}", colors[finding.severity]))
    for path in looked.files:
        console.print(_plain(f"wrote {path}", "green"), soft_wrap=True)
    run = next(path for path in looked.files if path.endswith("jettison.toml"))
    for said in looked.blocking:
        console.print(_plain(f"first: {said}", "red"))
    console.print(
        _plain(f"{'then' if looked.blocking else 'next'}: jettison run {run}", ""), soft_wrap=True
    )


def _answers(data: Any) -> str:
    if data.kind == "classify":
        return f"{len(data.labels)} labels"
    return "objects of fields to extract" if data.kind == "extract" else "free answers"


def _gate_words(gate: Any, proposal: Any) -> str:
    slices = ", ".join(
        f"{name} ({proposal.sizes.get(name)} examples, margin {gate.margins.get(name, gate.margin):.2f})"
        for name in gate.slices
    )
    return f"{gate.scorer} not worse on {slices}"


def _plain(text: str, style: str) -> Any:
    from rich.text import Text

    return Text(text, style=style)
