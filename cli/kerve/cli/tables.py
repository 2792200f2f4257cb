"""Tables on standard output: as wide as the terminal, or PIPE_WIDTH in a pipe; wider cells are wrapped."""

import sys
from collections.abc import Iterable

from rich.console import Console
from rich.table import Table
from rich.text import Text

from kerve.cli.text import printable

__all__ = ["console", "print_table", "print_warning"]

PIPE_WIDTH = 200

console = Console(width=None if sys.stdout.isatty() else PIPE_WIDTH)


def print_table(title: str, columns: Iterable[str], rows: Iterable[Iterable[str]]) -> None:
    """Print a table under its title; text is not parsed as markup, and control characters are escaped."""
    table = Table()
    for column in columns:
        table.add_column(Text(column), overflow="fold")  # a truncated path is useless
    for row in rows:
        table.add_row(*(Text("\n".join(map(printable, cell.split("\n")))) for cell in row))
    console.print(Text(title, style="bold"))
    console.print(table)


def print_warning(text: str) -> None:
    """Print one warning."""
    console.print(Text(f"warning: {text}", style="yellow"))
