"""Progress of a compile in a notebook cell."""

from __future__ import annotations

from kerve.cli.html import table
from kerve.cli.notebook import bar, cell
from kerve.compiler.progress import Event, Listener, ignore

__all__ = ["progress_listener"]


def progress_listener(listener: Listener | None) -> Listener:
    """Return the listener; without one, a listener that shows the stages in a notebook's cell."""
    if listener is not None:
        return listener
    show = cell()
    if show is None:
        return ignore
    ended: list[tuple[str, str, str]] = []

    def hear(event: Event) -> None:
        under_way = ""
        match event.state:
            case "begin" | "step":
                under_way = bar(event.stage, event.done, event.total, event.detail)
            case "end" | "failed":
                detail = event.detail if event.state == "end" else "failed"
                ended.append((event.stage, f"{event.seconds:.2f} s", detail))
        if event.state != "note":
            show((table(("stage", "time", ""), ended) if ended else "") + under_way)

    return hear
