"""HTML tables for pages and notebooks; text arguments are escaped."""

from collections.abc import Iterable, Sequence
from html import escape

__all__ = ["captioned", "table"]


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table; the first column names the row."""
    head = "".join(f"<th scope=col>{escape(cell)}</th>" for cell in columns)
    body = "".join(
        f"<tr><th scope=row>{escape(first)}</th>{''.join(f'<td>{escape(cell)}</td>' for cell in rest)}</tr>"
        for first, *rest in rows
    )
    return f"<table><tr>{head}</tr>{body}</table>"


def captioned(title: str, *tables: str, note: str = "") -> str:
    """Return tables under a title, for the display of an object in a notebook."""
    said = f"<div>{escape(note)}</div>" if note else ""
    return f"<div><b>{escape(title)}</b>{said}{''.join(tables)}</div>"
