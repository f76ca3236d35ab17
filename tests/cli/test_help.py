"""`--help`: every option says what it is for, and no summary is cut short."""

from collections.abc import Iterator

import click
import pytest
from click.testing import CliRunner

from jettison.cli.main import COMMANDS, jettison


def commands() -> Iterator[tuple[tuple[str, ...], click.Command]]:
    context = click.Context(jettison)
    for name in COMMANDS:
        found = jettison.get_command(context, name)
        yield (name,), found
        if isinstance(found, click.Group):
            yield from (((name, inner), each) for inner, each in found.commands.items())


@pytest.mark.parametrize(("path", "command"), list(commands()), ids=str)
def test_every_option_has_help(path: tuple[str, ...], command: click.Command) -> None:
    without = [p.name for p in command.params if isinstance(p, click.Option) and not p.help]
    assert not without


@pytest.mark.parametrize("name", [p[0] for p, command in commands() if isinstance(command, click.Group)])
def test_summaries_fit_on_a_line_of_eighty(name: str) -> None:
    said = CliRunner().invoke(jettison, [name, "--help"], terminal_width=80).output
    assert "..." not in said.partition("Commands:")[2]
