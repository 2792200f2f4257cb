"""Tables for the terminal, or of a fixed width in a pipe; cells that are too wide are wrapped."""

import sys
from collections.abc import Iterable, Iterator, Sequence

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from kerve.cli.text import printable

__all__ = ["console", "print_table", "print_warning"]

PIPE_WIDTH = 200
# Of a column: a line, and a space on each side.
BORDER = 3

console = Console(width=None if sys.stdout.isatty() else PIPE_WIDTH)


def print_table(title: str, columns: Iterable[str], rows: Iterable[Iterable[str]]) -> None:
    """Print a table with a title; text is not interpreted as markup, and control characters are replaced.

    If the terminal is too narrow for the words of the header, the columns are printed as rows.
    """
    header, body = list(columns), [list(row) for row in rows]
    console.print(Text(title, style="bold"))
    parts = [(header, body)] if _header_width(header) <= console.width else _transposed(header, body)
    for part in parts:
        console.print(_table(*part))


def _table(columns: Iterable[str], rows: Iterable[Iterable[str]]) -> Table:
    table = Table()
    for column in columns:
        table.add_column(Text(column), overflow="fold")  # a truncated path is useless
    for row in rows:
        table.add_row(*(Text("\n".join(map(printable, cell.split("\n")))) for cell in row))
    return table


def _header_width(columns: Sequence[str]) -> int:
    """Return the width of a table in which no word of the header is broken."""
    return 1 + sum(BORDER + max(map(cell_len, column.split()), default=0) for column in columns)


def _transposed(
    columns: Sequence[str], rows: Sequence[Sequence[str]]
) -> Iterator[tuple[Sequence[str], Sequence[Sequence[str]]]]:
    """Yield header and rows of transposed tables, each with as many of the rows as fit side by side."""
    room = console.width - 1 - BORDER - max(map(cell_len, columns))
    widest = BORDER + max((cell_len(cell) for row in rows for cell in row), default=0)
    beside = max(1, room // widest)
    for start in range(0, len(rows) or 1, beside):
        first, *rest = zip(columns, *rows[start : start + beside], strict=True)
        yield first, rest


def print_warning(text: str) -> None:
    """Print one warning."""
    console.print(Text(f"warning: {text}", style="yellow"))
