"""Progress display on standard error.

It is live on a terminal, plain lines on a dumb terminal, and only the notes on a pipe.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import click

from kerve.compiler.progress import Event, Listener

__all__ = ["terminal"]


@contextmanager
def terminal() -> Iterator[Listener]:
    """Show the stages, and exit on SIGTERM and SIGHUP as on Ctrl-C, so that partial output is removed."""
    before = {number: signal.signal(number, _end) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        with _shown() as listener:
            yield listener
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _end(number: int, _: object) -> None:
    sys.exit(128 + number)  # the shell's convention for a process ended by a signal


@contextmanager
def _shown() -> Iterator[Listener]:
    if not sys.stderr.isatty():
        yield _quiet
    elif os.environ.get("TERM", "dumb") == "dumb":
        yield _plain
    else:
        with _live() as listener:
            yield listener


@contextmanager
def _live() -> Iterator[Listener]:
    """Print a line for each finished stage, with a live line for the current stage below them."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
    from rich.text import Text

    console = Console(stderr=True)
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description:<9}", markup=False),
        TimeElapsedColumn(),
        BarColumn(24),
        TextColumn("{task.fields[detail]}", markup=False),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        current = progress.add_task("start", total=None, detail="")

        def show(event: Event) -> None:
            match event.state:
                case "begin":
                    progress.reset(current, total=None, description=event.stage, detail="")
                case "step":
                    counted = f"{event.done + 1}/{event.total} {event.detail}"
                    progress.update(current, completed=event.done, total=event.total, detail=counted)
                case "note":
                    console.print(Text(_note(event), style="dim"))
                case "end" | "failed":
                    mark, style = ("✓", "green") if event.state == "end" else ("✗", "red")
                    console.print(
                        Text.assemble(
                            (mark, style),
                            f" {event.stage:<9} ",
                            (f"{event.seconds:6.2f} s", "dim"),
                            f"  {event.detail}",
                        )
                    )

        yield show


def _quiet(event: Event) -> None:
    if event.state == "note":
        click.echo(_note(event), err=True)


def _plain(event: Event) -> None:
    _quiet(event)
    if event.state in ("end", "failed"):
        outcome = "" if event.state == "end" else "failed "
        line = f"{event.stage:<9} {outcome}{event.seconds:.2f} s  {event.detail}"
        click.echo(line.rstrip(), err=True)


def _note(event: Event) -> str:
    return f"  {event.stage}: {event.detail}"
