"""While a CUDA graph is captured, no other thread of the process may allocate device memory or load a model.

ONNX Runtime captures in CUDA's global mode (`cudaStreamCaptureModeGlobal`), which makes such calls fail in
every thread, and the capture with them.
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
        """Hold it shared; wait while it is held exclusively, or a thread waits for that."""
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


#: For short operations that a capture excludes: runs, copies, freeing memory.
DEVICE_LOCK = SharedLock()
#: For long ones: a capture that waits until a model is loaded must not block others that compute.
LOADING_LOCK = SharedLock()


@contextmanager
def capturing() -> Iterator[None]:
    """Hold both locks exclusively while a CUDA graph is captured."""
    with LOADING_LOCK.exclusive(), DEVICE_LOCK.exclusive():
        yield
