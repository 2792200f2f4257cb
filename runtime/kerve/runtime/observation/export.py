"""The thread that polls the observations of requests, and passes them to listeners (logs, traces)."""

import logging
import threading
from collections.abc import Sequence
from typing import Protocol

from kerve.runtime.observation.observer import CAPACITY, Observation

__all__ = ["Exporter", "ExporterPipeline", "Source"]

log = logging.getLogger(__name__)

# Seconds between two polls: how late a line of the access log is at most.
INTERVAL = 0.05

# The most that can wait for a poll: the capacities of the wire's channel and of Python's.
MAX_POLL = 2 * CAPACITY


class Source(Protocol):
    """Where observations come from: the transport."""

    def observe(self, *, everything: bool, traced: float | None) -> None:
        """Observe requests; see `Transport.observe`."""

    def observations(self) -> tuple[Sequence[Observation], int]:
        """Return the observations since the last poll, and how many were dropped so far."""


class Exporter(Protocol):
    """A consumer of observations."""

    @property
    def everything(self) -> bool:
        """Whether it takes those of every request."""

    @property
    def traced(self) -> float | None:
        """The sampling rate of requests whose caller has not decided; None: it traces none."""

    def notify(self, observations: Sequence[Observation]) -> None:
        """Take some observations."""

    def close(self) -> None:
        """End: no more will come."""


class ExporterPipeline:
    """Passes observations to listeners from `start` to `close`; `refresh` asks again what they take."""

    def __init__(self, source: Source, exporters: Sequence[Exporter]) -> None:
        self._source = source
        self._exporters = exporters
        self._ended = threading.Event()
        # Set while any listener takes observations.
        self._enabled = threading.Event()
        self._thread = threading.Thread(target=self._run, name="observe", daemon=True)
        self._lost = 0
        # Held by whoever polls: the thread, or a caller of `flush`.
        self._polling = threading.Lock()

    def start(self) -> None:
        """Begin."""
        self.refresh()
        self._thread.start()

    def refresh(self) -> None:
        """Configure the source for what the listeners take now."""
        shares = [each.traced for each in self._exporters if each.traced is not None]
        everything = any(each.everything for each in self._exporters)
        self._source.observe(everything=everything, traced=max(shares, default=None))
        if everything or shares:
            self._enabled.set()
        else:
            self._enabled.clear()

    def flush(self) -> None:
        """Pass on what has ended so far, before what the listeners take changes."""
        with self._polling:
            self._poll()

    def close(self) -> None:
        """Pass on what is left, and end."""
        self._ended.set()
        self._enabled.set()
        if self._thread.is_alive():
            self._thread.join()
        for listener in self._exporters:
            listener.close()

    def _run(self) -> None:
        while self._enabled.wait() and not self._ended.wait(INTERVAL):
            self.flush()
        self.flush()

    def _poll(self) -> None:
        count = 0
        # Bounded, as more may come meanwhile.
        while count < MAX_POLL:
            observations, lost = self._source.observations()
            if lost > self._lost:
                log.warning("%d requests came too fast to tell of them", lost - self._lost)
                self._lost = lost
            if not observations:
                return
            count += len(observations)
            for listener in self._exporters:
                try:
                    listener.notify(observations)
                except Exception:  # one listener's trouble is not the others', and no request's
                    log.exception("%s failed", type(listener).__name__)
            self.refresh()  # some may know enough now
