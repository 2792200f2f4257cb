"""Markdown that code hosts and Sphinx both render."""

import re
from collections.abc import Iterable, Sequence

__all__ = ["code", "plain", "table"]

#: Code spans, which are kept, and characters with a meaning in Markdown or HTML.
_SPECIAL = re.compile(r"(`[^`]*`)|([<>*])")


def plain(text: str) -> str:
    """Return a docstring or help text as one line of Markdown."""
    return _SPECIAL.sub(lambda found: found[1] or f"\\{found[2]}", " ".join(text.split()))


def code(text: object) -> str:
    """Return a code span; an empty text for an empty one."""
    return f"`{text}`" if str(text) else ""


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table; the cells are Markdown."""
    lines = [columns, ["---"] * len(columns), *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines) + "\n"
