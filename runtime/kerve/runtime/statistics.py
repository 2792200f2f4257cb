"""Statistics of the executors of one model version, counted like Triton's ModelStatistics.

The time of a batch counts once for each request in it: the mean over requests is what a request experienced.
"""

import threading
import time
from dataclasses import dataclass, field, replace

from kerve.runtime.transport.base import Batch

__all__ = ["Duration", "ServedStatistics", "Snapshot"]


@dataclass
class Duration:
    """A count and the total time."""

    count: int = 0
    nanoseconds: int = 0

    def add(self, count: int, nanoseconds: int) -> None:
        """Add `count` events of the same duration."""
        self.count += count
        self.nanoseconds += count * nanoseconds

    def plus(self, other: "Duration") -> "Duration":
        """Return the sum of both."""
        return Duration(self.count + other.count, self.nanoseconds + other.nanoseconds)


@dataclass
class Snapshot:
    """The statistics at one point in time."""

    # Milliseconds since the epoch; 0: never.
    last_inference: int = 0
    # Computed rows, and computed batches.
    inference_count: int = 0
    execution_count: int = 0
    # Computed requests.
    computed: Duration = field(default_factory=Duration)
    # Requests answered from the cache, and cache misses: the time of the lookup and of storing the response.
    cache_hits: Duration = field(default_factory=Duration)
    cache_misses: Duration = field(default_factory=Duration)
    # Computed batches, by number of rows.
    batches: dict[int, Duration] = field(default_factory=dict)


class ServedStatistics:
    """Statistics updated by the executors of a version and read by any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._now = Snapshot()

    def computed(self, batch: Batch, nanoseconds: int) -> None:
        """Count a batch. A split request counts once, with the time of all its parts."""
        with self._lock:
            self._now.last_inference = time.time_ns() // 1_000_000
            self._now.inference_count += batch.rows
            self._now.execution_count += 1
            self._now.computed.count += batch.requests
            self._now.computed.nanoseconds += batch.parts * nanoseconds
            self._now.batches.setdefault(batch.rows, Duration()).add(1, nanoseconds)

    def cache_hit(self, nanoseconds: int) -> None:
        """Count a request answered from the cache."""
        with self._lock:
            self._now.cache_hits.add(1, nanoseconds)

    def cache_miss(self, nanoseconds: int) -> None:
        """Count a request that was not in the cache."""
        with self._lock:
            self._now.cache_misses.add(1, nanoseconds)

    def read(self) -> Snapshot:
        """Return a copy of the statistics."""
        with self._lock:
            now = self._now
            return replace(
                now,
                computed=replace(now.computed),
                cache_hits=replace(now.cache_hits),
                cache_misses=replace(now.cache_misses),
                batches={rows: replace(each) for rows, each in sorted(now.batches.items())},
            )
