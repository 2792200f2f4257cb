"""A place in a notebook's cell whose contents change: for the progress of long work."""

import sys
from collections.abc import Callable
from html import escape

__all__ = ["bar", "cell"]


def cell() -> Callable[[str], None] | None:
    """Return a function that shows HTML below the running cell, each call in the place of the one before.

    None where nobody could see it, outside of a notebook's kernel; within one, IPython is imported already.
    """
    interactive = sys.modules.get("IPython")
    shell = interactive.get_ipython() if interactive is not None else None
    if interactive is None or getattr(shell, "kernel", None) is None:
        return None
    display, as_html = interactive.display.display, interactive.display.HTML
    handle = display(as_html(""), display_id=True)

    def show(html: str) -> None:
        handle.update(as_html(html))

    return show


def bar(title: str, done: float, total: float | None, detail: str = "") -> str:
    """Return a line with a bar; one that only moves where `total` is not known."""
    value = f' value="{done:g}" max="{total:g}"' if total else ""
    return f"<div><b>{escape(title)}</b> <progress{value}></progress> {escape(detail)}</div>"
