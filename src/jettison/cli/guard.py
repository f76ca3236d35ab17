"""`jettison guard`: make a guardrail against prompt injections or toxic texts, and prove it."""

import json
from pathlib import Path

import click


@click.command("guard")
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    default=Path("guard"),
    show_default=True,
    help="Folder of the guard.",
)
@click.option(
    "--kind", type=click.Choice(["prompt_injection", "toxicity"]), default="prompt_injection",
    show_default=True, help="What it is to catch.",
)  # fmt: skip
@click.option(
    "--attacks", "--toxic", "attacks", type=click.Path(path_type=Path), metavar="FILE",
    help="Texts of your own that it is to catch: JSON lines with `text`, or one text a line.",
)  # fmt: skip
@click.option(
    "--ordinary", type=click.Path(path_type=Path), metavar="FILE",
    help="Ordinary texts of your own traffic, likewise.",
)  # fmt: skip
@click.option("--budget", default="40m", show_default=True, help="Time for the search.")
@click.option("--json", "as_json", is_flag=True, help="Print the outcome as JSON.")
def command(
    output: Path, kind: str, attacks: Path | None, ordinary: Path | None, budget: str, as_json: bool
) -> int:
    """Make a lean guardrail against prompt injections or toxic texts, and prove it.

    A classifier is trained, and released if it is not worse than the encoder that taught it. Texts and
    encoder come as packages, each with a pinned hash. Exit code 0: OUTPUT can be served as guardrail
    `prompt_injection` or `toxicity`; 1: no candidate may ship; 2: bad input.
    """
    from jettison.cli.run import run_and_tell
    from jettison.loop.config import read_config
    from jettison.loop.guard import prepare_guard, write_guard
    from jettison.loop.guard_data import read_texts

    config = prepare_guard(
        output,
        kind=kind,
        attacks=read_texts(attacks) if attacks else (),
        ordinary=read_texts(ordinary) if ordinary else (),
        budget=budget,
        say=lambda message: click.echo(message, err=True),
    )
    code = run_and_tell(read_config(config), as_json=as_json)
    if code != 0:
        return code
    guard = write_guard(output, kind=kind)
    if as_json:
        click.echo(json.dumps({"guard": str(output), "thresholds": guard.thresholds}))
        return 0
    share = float(guard.share)
    click.echo(f"\nguard    {output}, at a false-alarm share of {share:.1%} on dev; on test it catches")
    for one in sorted(guard.caught, key=lambda caught: caught.kind == "ordinary"):
        click.echo(f"  {one.kind:9} {one.family:32} {one.n_caught:4} of {one.n}")
    click.echo(f'serve    [guardrails.{kind}] with model = "{output}" in serve.toml')
    return 0
