"""Plain tables for people at a terminal."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from jettison.decide.report_costs import CostRow


def wide_console() -> "Console":
    """A console that cuts no cell short where its output goes to a file or a pipe."""
    from rich.console import Console

    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = max(console.width, 200)
    return console


def table(*headers: str) -> "Table":
    """A table without lines, its headers bold."""
    from rich.table import Table

    found = Table(box=None, padding=(0, 1, 0, 0), header_style="bold")
    for header in headers:
        found.add_column(header, no_wrap=True)
    return found


def print_costs(console: "Console", names: "Sequence[str]", rows: "Sequence[CostRow]") -> None:
    """One column a target, in units that people read; estimates in a table of their own."""
    from rich.markup import escape
    from rich.table import Table

    from jettison.decide.report_costs import ESTIMATED_TITLE, cost_tables

    tables = cost_tables(rows)
    for title, part in (("", tables.measured), (ESTIMATED_TITLE, tables.estimated)):
        if not part:
            continue
        shown = Table(box=None, pad_edge=False, header_style="bold")
        shown.add_column(title)
        for name in names:
            shown.add_column(escape(name), justify="right", overflow="fold")
        for row in part:
            shown.add_row(row.name, *map(escape, row.figures))
        console.print(shown)
        console.print()
