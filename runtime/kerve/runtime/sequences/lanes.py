"""Threads that run the requests of a sequence in order."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any, TypeVar

__all__ = ["Lanes"]

T = TypeVar("T")


class Lanes:
    """Runs requests of the same sequence one after another, others concurrently."""

    def __init__(self, most: int, name: str) -> None:
        self._pool = ThreadPoolExecutor(most, name)
        # The last request of each sequence.
        self._last: dict[object, Future[Any]] = {}

    def begin(self, sequence: object, work: Callable[[], T]) -> "Future[T]":
        """Run work after the previous work of the same sequence; with sequence None, immediately."""
        before = self._last.get(sequence)

        def in_turn() -> T:
            if before is not None:
                wait([before])
            return work()

        answer = self._pool.submit(in_turn)
        if sequence is not None:
            self._last = {key: each for key, each in self._last.items() if not each.done()}
            self._last[sequence] = answer
        return answer

    def close(self) -> None:
        """Accept no more work."""
        self._pool.shutdown(wait=False)
