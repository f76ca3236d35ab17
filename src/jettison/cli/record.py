"""`jettison record`: the gateway as a pass-through that only logs."""

from pathlib import Path

import click


@click.command("record")
@click.option("--incumbent", metavar="URL", required=True, help="The server that clients asked so far.")
@click.option(
    "--incumbent-key-env", metavar="NAME", help="Variable with its key; else the clients' keys go on."
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8080, show_default=True, help="0 takes any free one."
)
@click.option(
    "--state",
    type=click.Path(path_type=Path),
    default=Path("record"),
    show_default=True,
    help="Folder for the log.",
)
@click.option("--keep-pii", is_flag=True, help="Do not mask addresses and numbers of persons.")
@click.option("--open", "is_open", is_flag=True, help="Listen beyond this machine without keys of our own.")
def command(
    incumbent: str,
    incumbent_key_env: str | None,
    host: str,
    port: int,
    state: Path,
    keep_pii: bool,
    is_open: bool,
) -> int:
    """Pass every request on to the incumbent and log it, so that traffic becomes a task.

    Clients change their base URL and nothing else. `jettison init --from-traffic` makes the task.
    """
    from jettison.serve.config import LogConfig, ServeConfig, UpstreamConfig, check_serve_config
    from jettison.serve.main import serve
    from jettison.serve.tell import to_stderr

    upstream = UpstreamConfig(
        url=incumbent.rstrip("/"), api_key_env=incumbent_key_env, pass_key=incumbent_key_env is None
    )
    config = ServeConfig(
        upstreams={"incumbent": upstream},
        host=host,
        port=port,
        state=str(state),
        is_open=is_open,
        pass_other=True,
        log=LogConfig(text="keep", mask_pii=not keep_pii, whole_requests=True, keep_days=3650),
    )
    check_serve_config(config, "jettison record")
    to_stderr()

    def started(bound: int) -> None:
        click.echo(f"recording: set your clients' base URL to http://{host}:{bound}/v1", err=True)
        click.echo(f"when there is enough: jettison init --from-traffic {state / 'traffic'}", err=True)

    serve(config, on_started=started)
    return 0
