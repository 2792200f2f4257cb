"""Measures one load until three consecutive windows agree, as perf_analyzer does."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from kerve.runtime.bench.load import Recorder
from kerve.runtime.client import ModelStatistics

__all__ = ["Load", "Result", "measure", "percentile"]

# Number of consecutive windows that must agree.
AGREEING = 3


class Load(Protocol):
    """Sends requests from `start` to `stop`."""

    def start(self) -> None:
        """Start sending."""

    def stop(self) -> None:
        """Send no more calls."""


@dataclass(frozen=True)
class Result:
    """The result of one load; times in milliseconds."""

    load: str
    requests_per_second: float
    p50: float
    p90: float
    p99: float
    # Means per request, from the server's statistics.
    queue: float
    compute: float
    rows_per_batch: float
    failures: int
    stable: bool


@dataclass(frozen=True)
class Window:
    """One interval of a measurement."""

    rate: float
    latencies: Sequence[float]

    @property
    def mean(self) -> float:
        """The mean latency in seconds."""
        return sum(self.latencies) / max(1, len(self.latencies))


def measure(
    name: str,
    load: Load,
    recorder: Recorder,
    statistics: Callable[[], ModelStatistics],
    *,
    seconds: float,
    stability: float,
    max_windows: int,
) -> Result:
    """Run a load: one warm-up window, then until it is stable or `max_windows` are used."""
    load.start()
    time.sleep(seconds)
    windows: list[Window] = []
    readings = [statistics()]
    while len(windows) < max_windows and not stable(windows, stability):
        start = time.perf_counter()
        time.sleep(seconds)
        end = time.perf_counter()
        latencies = recorder.window(start, end)
        windows.append(Window(len(latencies) / (end - start), latencies))
        readings.append(statistics())
    load.stop()
    last = windows[-AGREEING:]
    before, after = readings[-1 - len(last)], readings[-1]
    latencies = sorted(took for window in last for took in window.latencies)
    requests = max(1, after.requests - before.requests)
    return Result(
        load=name,
        requests_per_second=sum(window.rate for window in last) / len(last),
        p50=percentile(latencies, 50),
        p90=percentile(latencies, 90),
        p99=percentile(latencies, 99),
        queue=(after.queue_ns - before.queue_ns) / requests / 1e6,
        compute=(after.compute_ns - before.compute_ns) / requests / 1e6,
        rows_per_batch=(after.rows - before.rows) / max(1, after.batches - before.batches),
        failures=recorder.failures,
        stable=stable(windows, stability),
    )


def stable(windows: Sequence[Window], stability: float) -> bool:
    """Return whether the last windows agree in throughput and mean latency, within a fraction of the mean."""
    last = windows[-AGREEING:]
    if len(last) < AGREEING or not all(window.latencies for window in last):
        return False
    for values in ([window.rate for window in last], [window.mean for window in last]):
        mean = sum(values) / len(values)
        if max(abs(value - mean) for value in values) > stability * mean:
            return False
    return True


def percentile(ascending: Sequence[float], percent: float) -> float:
    """Return a percentile, in milliseconds, of times in seconds."""
    if not ascending:
        return float("nan")
    position = max(0, -(-len(ascending) * percent // 100) - 1)
    return ascending[int(position)] * 1e3
