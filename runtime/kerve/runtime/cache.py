"""LRU cache of responses, limited in bytes."""

import itertools
import threading
from collections import OrderedDict

__all__ = ["CachePart", "ResponseCache"]

# Approximate bytes of an entry in addition to its response.
OVERHEAD = 300

Key = tuple[int, bytes]


class ResponseCache:
    """The responses of all models, in parts that can be emptied."""

    def __init__(self, limit: int) -> None:
        """`limit`: maximum size in bytes."""
        self._limit = limit
        self._lock = threading.Lock()
        self._answers: OrderedDict[Key, bytes] = OrderedDict()
        self._size = 0
        self._numbers = itertools.count()

    def part(self) -> "CachePart":
        """Return a new part, for one load of one version of a model."""
        return CachePart(self, next(self._numbers))

    def get(self, key: Key) -> bytes | None:
        """Return a response, if it is cached."""
        with self._lock:
            if key in self._answers:
                self._answers.move_to_end(key)
            return self._answers.get(key)

    def put(self, key: Key, answer: bytes) -> None:
        """Store a response, evicting others if there is no room."""
        size = len(answer) + OVERHEAD
        if size > self._limit:
            return
        with self._lock:
            self._drop(key)
            while self._size + size > self._limit:
                self._drop(next(iter(self._answers)))
            self._answers[key] = answer
            self._size += size

    def empty(self, part: int) -> None:
        """Remove the responses of a part."""
        with self._lock:
            for key in [key for key in self._answers if key[0] == part]:
                self._drop(key)

    def _drop(self, key: Key) -> None:
        if (answer := self._answers.pop(key, None)) is not None:
            self._size -= len(answer) + OVERHEAD


class CachePart:
    """The responses of one load of a version, which are not valid for any other."""

    def __init__(self, cache: ResponseCache, number: int) -> None:
        self._cache = cache
        self._number = number
        self._closed = False

    def get(self, digest: bytes) -> bytes | None:
        """Return the response to a request, if it is cached."""
        return self._cache.get((self._number, digest))

    def put(self, digest: bytes, answer: bytes) -> None:
        """Store the response to a request."""
        if not self._closed:
            self._cache.put((self._number, digest), answer)

    def close(self) -> None:
        """Remove all responses, and store no more."""
        self._closed = True
        self._cache.empty(self._number)
