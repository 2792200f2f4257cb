"""Sends requests at a concurrency or a rate, and records their latencies."""

import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Concurrency", "Poisson", "Recorder", "Send"]

# Sends a call and, when it ends, calls back with whether it succeeded.
Send = Callable[[Callable[[bool], None]], None]


@dataclass
class Recorder:
    """The completed calls, with their end times and latencies in seconds."""

    calls: list[tuple[float, float]] = field(default_factory=list)
    failures: int = 0
    _lock: Any = field(default_factory=threading.Lock)

    def end(self, begin: float, *, ok: bool) -> None:
        """Record a completed call."""
        now = time.perf_counter()
        with self._lock:
            if ok:
                self.calls.append((now, now - begin))
            else:
                self.failures += 1

    def window(self, start: float, end: float) -> list[float]:
        """Return the latencies of the calls that ended within an interval, ascending."""
        with self._lock:
            return sorted(took for when, took in self.calls if start <= when < end)


class Concurrency:
    """Keeps a fixed number of calls in flight."""

    def __init__(self, send: Send, concurrency: int, recorder: Recorder) -> None:
        self._send = send
        self._concurrency = concurrency
        self._recorder = recorder
        self._stopped = False
        self._under_way = threading.Semaphore(0)

    def start(self) -> None:
        """Start sending."""
        for _ in range(self._concurrency):
            self._next()

    def stop(self) -> None:
        """Send no more calls, and wait for those in flight."""
        self._stopped = True
        for _ in range(self._concurrency):
            self._under_way.acquire()

    def _next(self) -> None:
        begin = time.perf_counter()

        def ended(ok: bool) -> None:
            self._recorder.end(begin, ok=ok)
            if self._stopped:
                self._under_way.release()
            else:
                self._next()

        self._send(ended)


class Poisson:
    """Sends calls with Poisson arrivals at a mean rate, whether or not earlier ones have been answered.

    Delays of this client count: the latency of a call is measured from the time at which it was due.
    """

    def __init__(self, send: Send, rate: float, recorder: Recorder) -> None:
        self._send = send
        self._rate = rate
        self._recorder = recorder
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="arrivals", daemon=True)

    def start(self) -> None:
        """Start sending."""
        self._thread.start()

    def stop(self) -> None:
        """Send no more calls."""
        self._stopped.set()
        self._thread.join()

    def _run(self) -> None:
        gaps = random.Random(0)  # noqa: S311  arrivals, not secrets
        due = time.perf_counter()
        while not self._stopped.is_set():
            due += gaps.expovariate(self._rate)
            if (early := due - time.perf_counter()) > 0:
                time.sleep(early)
            self._send(self._ended(due))

    def _ended(self, due: float) -> Callable[[bool], None]:
        return lambda ok: self._recorder.end(due, ok=ok)
