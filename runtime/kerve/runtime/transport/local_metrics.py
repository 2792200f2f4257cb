"""Metrics of a `LocalQueue`, counted like kerve-wire's."""

import bisect
import threading
from collections import Counter
from typing import Any

__all__ = ["LocalMetrics"]

# Upper bounds of the histograms' buckets in microseconds, as in kerve-wire. The last bucket is unbounded.
BOUNDS = (
    *(50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000),
    *(2_500_000, 5_000_000, 10_000_000, 30_000_000),
)
HISTOGRAMS = ("succeeded", "failed", "waited", "computed")


class LocalMetrics:
    """Counters and histograms of one queue."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts = {"requests": 0, "rows": 0, "batches": 0}
        self._codes: Counter[int] = Counter()
        self._buckets = {name: [0] * (len(BOUNDS) + 1) for name in HISTOGRAMS}
        self._sums = dict.fromkeys(HISTOGRAMS, 0)

    def arrived(self) -> None:
        """Count a request."""
        with self._lock:
            self._counts["requests"] += 1

    def waited(self, nanoseconds: int) -> None:
        """Count the time from a request's arrival to its computation."""
        with self._lock:
            self._record("waited", nanoseconds)

    def ended(self, code: int, nanoseconds: int) -> None:
        """Count the end of a request, with the time since its arrival."""
        with self._lock:
            self._codes[code] += 1
            self._record("succeeded" if code == 0 else "failed", nanoseconds)

    def computed(self, rows: int, nanoseconds: int) -> None:
        """Count a batch."""
        with self._lock:
            self._counts["rows"] += rows
            self._counts["batches"] += 1
            self._record("computed", nanoseconds)

    def read(self, waiting: int) -> dict[str, Any]:
        """Return all metrics; see `Queue.statistics`."""
        with self._lock:
            histograms = {
                name: {"bounds": list(BOUNDS), "counts": list(counts), "sum": self._sums[name]}
                for name, counts in self._buckets.items()
            }
            return {**self._counts, "waiting": waiting, "codes": dict(self._codes), **histograms}

    def _record(self, name: str, nanoseconds: int) -> None:
        self._buckets[name][bisect.bisect_left(BOUNDS, nanoseconds / 1000)] += 1
        self._sums[name] += nanoseconds
