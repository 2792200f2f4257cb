"""While a CUDA graph is captured, no other thread of the process may allocate device memory or load a model.

ONNX Runtime captures in CUDA's global mode (`cudaStreamCaptureModeGlobal`), which makes such calls fail in
every thread, and the capture with them.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["GATE", "LOADING", "Gate", "capturing"]


class Gate:
    """Many may pass together, or one alone; who wants to be alone goes first, so that it is not starved."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._inside = 0
        self._alone = False
        self._waiting = 0

    @contextmanager
    def together(self) -> Iterator[None]:
        """Pass while nobody is alone."""
        with self._changed:
            self._changed.wait_for(lambda: not self._alone and not self._waiting)
            self._inside += 1
        try:
            yield
        finally:
            with self._changed:
                self._inside -= 1
                self._changed.notify_all()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Pass once everybody is out, and keep everybody out."""
        with self._changed:
            self._waiting += 1
            self._changed.wait_for(lambda: not self._alone and not self._inside)
            self._waiting -= 1
            self._alone = True
        try:
            yield
        finally:
            with self._changed:
                self._alone = False
                self._changed.notify_all()


#: What is short and may not meet a capture: runs, copies, giving memory back.
GATE = Gate()
#: What may take long: a capture that waits for a model to be loaded must not keep others from computing.
LOADING = Gate()


@contextmanager
def capturing() -> Iterator[None]:
    """Capture alone."""
    with LOADING.alone(), GATE.alone():
        yield
