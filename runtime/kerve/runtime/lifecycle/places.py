"""How many models may be loaded at a time."""

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from kerve.runtime.errors import ResourceExhaustedError

__all__ = ["Places"]


class Places:
    """The places for models; a model has one for as long as it serves."""

    def __init__(self, most: int, serving: Callable[[], set[str]]) -> None:
        """`most`: 0 for any number; `serving`: the names of the models that serve."""
        self._most = most
        self._serving = serving
        self._lock = threading.Lock()
        # Those that are being loaded.
        self._coming: Counter[str] = Counter()

    @contextmanager
    def take(self, name: str) -> Iterator[None]:
        """Hold a place while a model is loaded; ResourceExhaustedError when none is left."""
        with self._lock:
            taken = self._serving() | self._coming.keys()
            if self._most and name not in taken and len(taken) >= self._most:
                raise ResourceExhaustedError(
                    f"{self._most} models are loaded, which is the limit (--max-models); "
                    "unload one of them first"
                )
            self._coming[name] += 1
        try:
            yield
        finally:
            with self._lock:
                self._coming -= Counter([name])
