"""Progress events of a compile."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Literal, TypeVar

__all__ = ["Event", "Listener", "ignore", "stage", "steps"]

T = TypeVar("T")

#: The minimum time between two reported steps.
_PAUSE_SECONDS = 0.1


@dataclass(frozen=True)
class Event:
    """A stage began, advanced by a step, ended or failed, or reports a note."""

    stage: str
    state: Literal["begin", "step", "note", "end", "failed"]
    seconds: float = 0.0
    detail: str = ""
    #: For a step: the number of steps done, and the total.
    done: int = 0
    total: int = 0


#: Called for each event in order, in the compiling process or its parent.
Listener = Callable[[Event], None]


def ignore(_: Event) -> None:
    """Ignore an event."""


class Stage:
    """A stage in progress; set `detail` to its result."""

    def __init__(self, name: str, listener: Listener) -> None:
        self.detail = ""
        self._name = name
        self._listener = listener
        self._told = 0.0

    def step(self, done: int, total: int, detail: str) -> None:
        """Report a step, at most ten times a second."""
        now = time.perf_counter()
        if now - self._told >= _PAUSE_SECONDS:
            self._told = now
            self._listener(Event(self._name, "step", detail=detail, done=done, total=total))


_current: ContextVar[Stage | None] = ContextVar("stage", default=None)


@contextmanager
def stage(name: str, listener: Listener) -> Iterator[Stage]:
    """Report the beginning and the end of a stage, with its duration."""
    listener(Event(name, "begin"))
    begin = time.perf_counter()
    current = Stage(name, listener)
    outer = _current.set(current)
    try:
        yield current
    except BaseException:
        listener(Event(name, "failed", time.perf_counter() - begin))
        raise
    finally:
        _current.reset(outer)
    listener(Event(name, "end", time.perf_counter() - begin, current.detail))


def steps(items: Iterable[T], total: int, detail: str) -> Iterator[T]:
    """Yield the `total` items; each is reported as a step of the current stage, if there is one."""
    current = _current.get()
    for done, item in enumerate(items):
        if current is not None:
            current.step(done, total, detail)
        yield item
