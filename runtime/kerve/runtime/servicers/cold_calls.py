"""Requests that queues know nothing of, where each keeps a thread: how many there may be."""

import threading

from kerve.runtime.errors import Code, error_for

__all__ = ["Room"]


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
