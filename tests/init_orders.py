"""Orders to look at, and `jettison init` to look at them."""

from typing import Any

from click.testing import CliRunner, Result

from jettison.cli.init import command
from task_writing import Row, rows

LABELS = ("buy", "oos", "sell")


def orders(n: int = 30, **more: Any) -> list[Row]:
    return [
        {**row, "part": split, "domain": ("web", "mail")[i % 2], **more}
        for split in ("train", "val", "test")
        for i, row in enumerate(rows(n, split=split, labels=LABELS))
    ]


def run(*arguments: object) -> Result:
    return CliRunner().invoke(
        command, [str(argument) for argument in arguments], standalone_mode=False, catch_exceptions=False
    )
