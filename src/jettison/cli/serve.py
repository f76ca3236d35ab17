"""`jettison serve`: the gateway."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from jettison.cli.finite import FiniteRange


@click.command("serve")
@click.argument("release", required=False, type=click.Path(path_type=Path))
@click.option("--config", type=click.Path(path_type=Path), help="serve.toml; options stand above it.")
@click.option("--incumbent", metavar="URL", help="OpenAI-compatible server to ask behind the release.")
@click.option("--incumbent-model", metavar="NAME", help="Name of the model there.")
@click.option("--incumbent-key-env", metavar="NAME", help="Environment variable that holds its key.")
@click.option("--route", type=click.Choice(["single", "cascade", "shadow", "split"]), help="Who answers.")
@click.option("--threshold", type=float, help="Of a cascade; the release's own where it certified one.")
@click.option("--share", type=FiniteRange(0, 1), help="Of shadowed or treated traffic.")
@click.option(
    "--audit-share", type=FiniteRange(0, 1), help="Of lean answers that the fallback is asked too."
)
@click.option("--host", help="Address to listen on; 127.0.0.1 unless told.")
@click.option("--port", type=click.IntRange(0, 65535), help="0 takes any free port.")
@click.option(
    "--state", type=click.Path(path_type=Path), help="Folder for the traffic log and control.json."
)
@click.option(
    "--log-text", type=click.Choice(["keep", "hash", "drop"]), help="What becomes of texts in the log."
)
@click.option("--template", metavar="TEXT", help="How clients write the task's input, with {input} in it.")
@click.option(
    "--ui",
    "with_ui",
    is_flag=True,
    help="Live pages under /ui, with a key that is shown once and made anew.",
)
@click.option("--unproven", is_flag=True, help="Serve a release whose proof does not do, and say so.")
@click.option("--check", is_flag=True, help="Check the configuration and the release, and stop.")
@click.option(
    "--new-key", metavar="NAME", help="Make an API key, print it with its line for serve.toml, and stop."
)
def command(
    release: Path | None, config: Path | None, check: bool, new_key: str | None, with_ui: bool, **given: Any
) -> int:
    """Serve RELEASE over an OpenAI-compatible API: lean first, the incumbent behind it.

    SIGTERM answers what is under way and stops; SIGHUP reads configuration and release anew.
    """
    if new_key is not None:
        _tell_key(new_key)
        return 0
    from jettison.serve.access import new_key as made_key
    from jettison.serve.flags import resolve
    from jettison.serve.tell import to_stderr

    ui_key = None
    if with_ui:
        ui_key, given["ui_sha256"] = made_key()

    def read() -> Any:
        return resolve(config, release, given)

    resolved = read()
    if check:
        from jettison.serve.check import check_starts

        click.echo(check_starts(resolved))
        return 0
    to_stderr()
    _serve(resolved, read, config, ui_key)
    return 0


def _tell_key(name: str) -> None:
    from jettison.serve.access import new_key

    key, digest = new_key()
    click.echo(f"{key}\n\nIt is shown this once. For serve.toml:\n")
    click.echo(f"[[keys]]\nname = {name!r}\nsha256 = {digest!r}\n")
    click.echo(
        f"or, to open the pages under /ui and nothing else:\n\n[ui]\nis_on = true\nsha256 = {digest!r}"
    )


def _serve(config: Any, read: Callable[[], Any], file: Path | None, ui_key: str | None) -> None:
    from jettison.serve.main import serve

    def started(port: int) -> None:
        click.echo(f"listening on http://{config.host}:{port}/v1", err=True)
        if config.ui.is_on:
            said = "" if ui_key is None else f", with the key {ui_key}"
            click.echo(f"pages at http://{config.host}:{port}/ui{said}", err=True)

    serve(config, read_again=read, watched=() if file is None else (file,), on_started=started)
