"""What the executors of one model version have computed, as Triton's ModelStatistics counts it.

Times of a batch count once for each request in it: the mean over requests is what a request saw.
"""

import threading
import time
from dataclasses import dataclass, field, replace

from kerve.runtime.transport.base import Batch

__all__ = ["Duration", "ServedStatistics", "Snapshot"]


@dataclass
class Duration:
    """How often, and how long in all."""

    count: int = 0
    nanoseconds: int = 0

    def add(self, count: int, nanoseconds: int) -> None:
        """Count so many that took as long each."""
        self.count += count
        self.nanoseconds += count * nanoseconds

    def plus(self, other: "Duration") -> "Duration":
        """Return both together."""
        return Duration(self.count + other.count, self.nanoseconds + other.nanoseconds)


@dataclass
class Snapshot:
    """The numbers at one moment."""

    # Milliseconds since the epoch; 0: never.
    last_inference: int = 0
    # Rows, and batches that were computed.
    inference_count: int = 0
    execution_count: int = 0
    # Of requests.
    computed: Duration = field(default_factory=Duration)
    # Of requests that were answered from the cache, and of those that it was asked for in vain: the time of
    # the look, and of keeping the answer.
    cache_hits: Duration = field(default_factory=Duration)
    cache_misses: Duration = field(default_factory=Duration)
    # Of batches, by their rows.
    batches: dict[int, Duration] = field(default_factory=dict)


class ServedStatistics:
    """Written by the executors of a version, read by any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._now = Snapshot()

    def computed(self, batch: Batch, nanoseconds: int) -> None:
        """Count a batch. A request that was split is one request, which all of its parts took time for."""
        with self._lock:
            self._now.last_inference = time.time_ns() // 1_000_000
            self._now.inference_count += batch.rows
            self._now.execution_count += 1
            self._now.computed.count += batch.requests
            self._now.computed.nanoseconds += batch.parts * nanoseconds
            self._now.batches.setdefault(batch.rows, Duration()).add(1, nanoseconds)

    def cache_hit(self, nanoseconds: int) -> None:
        """Count a request that was answered from the cache."""
        with self._lock:
            self._now.cache_hits.add(1, nanoseconds)

    def cache_miss(self, nanoseconds: int) -> None:
        """Count a request that was not in the cache."""
        with self._lock:
            self._now.cache_misses.add(1, nanoseconds)

    def read(self) -> Snapshot:
        """Return a copy of the numbers."""
        with self._lock:
            now = self._now
            return replace(
                now,
                computed=replace(now.computed),
                cache_hits=replace(now.cache_hits),
                cache_misses=replace(now.cache_misses),
                batches={rows: replace(each) for rows, each in sorted(now.batches.items())},
            )
