"""How a compile tells what it is doing."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import click

__all__ = ["Event", "Listener", "stage", "terminal"]


@dataclass(frozen=True)
class Event:
    """A stage began or ended, or has something to say."""

    stage: str
    state: Literal["begin", "end", "failed", "note"]
    seconds: float = 0.0
    detail: str = ""


#: Whoever wants to know. It is called in the order of events, in the compiling process or its parent.
Listener = Callable[[Event], None]


class Stage:
    """A stage that is under way; set `detail` to what it found."""

    detail = ""


@contextmanager
def stage(name: str, listener: Listener) -> Iterator[Stage]:
    """Report the begin and the end of a stage, with its time."""
    listener(Event(name, "begin"))
    begin = time.perf_counter()
    current = Stage()
    try:
        yield current
    except BaseException:
        listener(Event(name, "failed", time.perf_counter() - begin))
        raise
    listener(Event(name, "end", time.perf_counter() - begin, current.detail))


@contextmanager
def terminal() -> Iterator[Listener]:
    """Show stages as they pass: a spinner with times on a terminal, plain lines in a pipe."""
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal:
        yield _plain
        return
    with console.status("") as status:

        def show(event: Event) -> None:
            if event.state == "begin":
                status.update(f"{event.stage} ...")
                return
            if event.state == "note":
                console.print(_note(event), highlight=False, markup=False, style="dim")
                return
            mark = "[green]✓[/]" if event.state == "end" else "[red]✗[/]"
            console.print(
                f"{mark} {event.stage:<9} [dim]{event.seconds:6.2f} s[/]  {event.detail}", highlight=False
            )

        yield show


def _plain(event: Event) -> None:
    if event.state == "note":
        click.echo(_note(event), err=True)
    elif event.state != "begin":
        outcome = "" if event.state == "end" else "failed "
        line = f"{event.stage:<9} {outcome}{event.seconds:.2f} s  {event.detail}"
        click.echo(line.rstrip(), err=True)


def _note(event: Event) -> str:
    return f"  {event.stage}: {event.detail}"
