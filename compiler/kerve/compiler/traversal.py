"""Walks over graphs in which many paths lead to the same place."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

__all__ = ["reachable"]

T = TypeVar("T")


def reachable(starts: Iterable[T], following: Callable[[T], Iterable[T]]) -> Iterator[T]:
    """Yield the starts and whatever follows from them, each once, depth first.

    Neither shared operands, which would double the work at each of many steps, nor cycles are visited
    twice, and a long chain needs no recursion. `following` is asked for an item after that is yielded.
    """
    waiting = list(dict.fromkeys(starts))
    seen = set(waiting)
    while waiting:
        each = waiting.pop()
        yield each
        fresh = [item for item in dict.fromkeys(following(each)) if item not in seen]
        seen.update(fresh)
        waiting += fresh
