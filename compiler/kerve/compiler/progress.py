"""How a compile tells what it is doing."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Literal, TypeVar

__all__ = ["Event", "Listener", "ignore", "stage", "steps"]

T = TypeVar("T")

#: Steps that follow one another faster are not told.
_PAUSE_SECONDS = 0.1


@dataclass(frozen=True)
class Event:
    """A stage began or ended, came a step further, or has something to say."""

    stage: str
    state: Literal["begin", "step", "note", "end", "failed"]
    seconds: float = 0.0
    detail: str = ""
    #: Of a step: how many are done, of how many.
    done: int = 0
    total: int = 0


#: Whoever wants to know. It is called in the order of events, in the compiling process or its parent.
Listener = Callable[[Event], None]


def ignore(_: Event) -> None:
    """Listen to nothing."""


class Stage:
    """A stage that is under way; set `detail` to what it found."""

    def __init__(self, name: str, listener: Listener) -> None:
        self.detail = ""
        self._name = name
        self._listener = listener
        self._told = 0.0

    def step(self, done: int, total: int, detail: str) -> None:
        """Tell how far the stage is, at most ten times a second."""
        now = time.perf_counter()
        if now - self._told >= _PAUSE_SECONDS:
            self._told = now
            self._listener(Event(self._name, "step", detail=detail, done=done, total=total))


_current: ContextVar[Stage | None] = ContextVar("stage", default=None)


@contextmanager
def stage(name: str, listener: Listener) -> Iterator[Stage]:
    """Report the begin and the end of a stage, with its time."""
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
    """Yield the items, of which there are `total`; each is a step of the stage under way, if there is one."""
    current = _current.get()
    for done, item in enumerate(items):
        if current is not None:
            current.step(done, total, detail)
        yield item
