"""The order of requests that come together: those of a sequence one after another."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any, TypeVar

__all__ = ["Lanes"]

T = TypeVar("T")


class Lanes:
    """Threads for requests: those of a sequence have one after another, others at the same time."""

    def __init__(self, most: int, name: str) -> None:
        self._pool = ThreadPoolExecutor(most, name)
        # By sequence, its last request.
        self._last: dict[object, Future[Any]] = {}

    def begin(self, sequence: object, work: Callable[[], T]) -> "Future[T]":
        """Do work once that of the same sequence before it is done; None: at once."""
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
        """Begin no more."""
        self._pool.shutdown(wait=False)
