"""The limit of concurrent requests on the cold path, each of which blocks a thread."""

import threading

from kerve.runtime.errors import Code, error_for

__all__ = ["ConcurrencyLimit"]


class ConcurrencyLimit:
    """Limits the requests in flight: for each, the server calls itself, and that call also needs a thread."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._permits = threading.BoundedSemaphore(most)

    def acquire(self, *, wait: bool = False, triton_codes: bool = False) -> None:
        """Acquire a permit; if there is none, wait, or raise ResourceExhaustedError."""
        if not self._permits.acquire(blocking=wait):
            raise error_for(
                Code.UNAVAILABLE if triton_codes else Code.RESOURCE_EXHAUSTED,
                f"{self._most} requests that use sequences, shared memory or the response cache are in "
                "progress, which is the limit; try again later",
                retry_after=1.0,
            )

    def release(self) -> None:
        """Release a permit."""
        self._permits.release()
