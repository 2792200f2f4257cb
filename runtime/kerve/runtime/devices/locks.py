"""Locks that exclude device operations of other threads while a CUDA graph is captured.

ONNX Runtime captures in CUDA's global mode (`cudaStreamCaptureModeGlobal`): if any thread of the process
allocates device memory or loads a model meanwhile, that call and the capture fail.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["DEVICE_LOCK", "LOADING_LOCK", "SharedLock", "capturing"]


class SharedLock:
    """A readers-writer lock that prefers writers: shared by many threads, or held exclusively by one."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._holders = 0
        self._exclusive = False
        self._waiting = 0

    @contextmanager
    def shared(self) -> Iterator[None]:
        """Hold it shared; wait while a thread holds it exclusively or waits to do so."""
        with self._changed:
            self._changed.wait_for(lambda: not self._exclusive and not self._waiting)
            self._holders += 1
        try:
            yield
        finally:
            with self._changed:
                self._holders -= 1
                self._changed.notify_all()

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Hold it exclusively; wait until no thread holds it."""
        with self._changed:
            self._waiting += 1
            self._changed.wait_for(lambda: not self._exclusive and not self._holders)
            self._waiting -= 1
            self._exclusive = True
        try:
            yield
        finally:
            with self._changed:
                self._exclusive = False
                self._changed.notify_all()


#: For short operations that must not overlap with a capture: runs, copies, freeing memory.
DEVICE_LOCK = SharedLock()
#: For loading models: a capture that waits for it must not block running computations.
LOADING_LOCK = SharedLock()


@contextmanager
def capturing() -> Iterator[None]:
    """Hold both locks exclusively while a CUDA graph is captured."""
    with LOADING_LOCK.exclusive(), DEVICE_LOCK.exclusive():
        yield
