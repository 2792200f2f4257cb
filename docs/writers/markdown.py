"""Markdown as a code host and Sphinx both read it."""

import re
from collections.abc import Iterable, Sequence

__all__ = ["code", "plain", "table"]

#: Code spans, which stay as they are, and what Markdown or HTML would take for its own.
_SPECIAL = re.compile(r"(`[^`]*`)|([<>*])")


def plain(text: str) -> str:
    """Return text of the code (a docstring, a help) as one line that reads the same in Markdown."""
    return _SPECIAL.sub(lambda found: found[1] or f"\\{found[2]}", " ".join(text.split()))


def code(text: object) -> str:
    """Return a code span; nothing for nothing."""
    return f"`{text}`" if str(text) else ""


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table, its cells given in Markdown."""
    lines = [columns, ["---"] * len(columns), *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines) + "\n"
