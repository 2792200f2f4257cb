"""Requests that queues know nothing of, where each keeps a thread: how many there may be, and their order."""

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import TypeVar

from kerve.runtime.errors import Code, error_for

__all__ = ["Lanes", "Room"]

T = TypeVar("T")


class Room:
    """Bounds what is under way: the server calls itself to compute it, and that call needs a thread too."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._left = threading.BoundedSemaphore(most)

    def enter(self, *, wait: bool = False, triton_codes: bool = False) -> None:
        """Be under way until `leave`; where too many are, wait, or raise ResourceExhaustedError."""
        if not self._left.acquire(blocking=wait):
            raise error_for(
                Code.UNAVAILABLE if triton_codes else Code.RESOURCE_EXHAUSTED,
                f"{self._most} requests of sequences, of tensors in shared memory and of models with a cache "
                "are under way, which is the limit; try again later",
                retry_after=1.0,
            )

    def leave(self) -> None:
        """Let another one be under way."""
        self._left.release()


class Lanes:
    """The requests of one stream: those of a sequence one after another, others at the same time."""

    def __init__(self, most: int) -> None:
        self._pool = ThreadPoolExecutor(most, "stream")
        # By sequence, its last request.
        self._last: dict[object, Future[None]] = {}

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
            self._last[sequence] = answer  # type: ignore[assignment]  # only waited for
        return answer

    def close(self) -> None:
        """Begin no more."""
        self._pool.shutdown(wait=False)
