"""Graph traversal that visits each item once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

__all__ = ["reachable"]

T = TypeVar("T")


def reachable(starts: Iterable[T], following: Callable[[T], Iterable[T]]) -> Iterator[T]:
    """Yield the starts and all items that are reachable from them, each once, depth first.

    Visiting shared operands repeatedly would take exponential time. Long chains need no recursion.
    `following` is called for an item after that is yielded.
    """
    waiting = list(dict.fromkeys(starts))
    seen = set(waiting)
    while waiting:
        each = waiting.pop()
        yield each
        fresh = [item for item in dict.fromkeys(following(each)) if item not in seen]
        seen.update(fresh)
        waiting += fresh
