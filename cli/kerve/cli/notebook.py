"""Progress display in a notebook's cell."""

import sys
from collections.abc import Callable
from html import escape

__all__ = ["bar", "cell"]


def cell() -> Callable[[str], None] | None:
    """Return a function that displays HTML below the running cell, replacing that of the previous call.

    Returns None outside of a notebook's kernel; within one, IPython is already imported.
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
    """Return a line with a progress bar, which is indeterminate if `total` is not known."""
    value = f' value="{done:g}" max="{total:g}"' if total else ""
    return f"<div><b>{escape(title)}</b> <progress{value}></progress> {escape(detail)}</div>"
