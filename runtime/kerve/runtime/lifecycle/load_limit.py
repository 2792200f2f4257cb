"""The limit of loaded models (`--max-models`)."""

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from kerve.runtime.errors import ResourceExhaustedError

__all__ = ["LoadLimit"]


class LoadLimit:
    """Limits the number of models that are served or being loaded."""

    def __init__(self, most: int, serving: Callable[[], set[str]]) -> None:
        """`most`: 0 means unlimited; `serving`: returns the names of the models that are served."""
        self._most = most
        self._serving = serving
        self._lock = threading.Lock()
        # The models that are being loaded.
        self._loading: Counter[str] = Counter()

    @contextmanager
    def reserve(self, name: str) -> Iterator[None]:
        """Count a model as loaded within the block; raises ResourceExhaustedError beyond the limit."""
        with self._lock:
            taken = self._serving() | self._loading.keys()
            if self._most and name not in taken and len(taken) >= self._most:
                raise ResourceExhaustedError(
                    f"{self._most} models are loaded, which is the limit (--max-models); "
                    "unload one of them first"
                )
            self._loading[name] += 1
        try:
            yield
        finally:
            with self._lock:
                self._loading -= Counter([name])
