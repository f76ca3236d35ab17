"""Plain tables for people at a terminal."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table


def table(*headers: str) -> "Table":
    """A table without lines, its headers bold."""
    from rich.table import Table

    found = Table(box=None, padding=(0, 1, 0, 0), header_style="bold")
    for header in headers:
        found.add_column(header, no_wrap=True)
    return found
