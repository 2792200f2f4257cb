"""The thread that polls the observations of requests, and passes them to exporters (logs, traces)."""

import logging
import threading
from collections.abc import Sequence
from typing import Protocol

from kerve.runtime.observation.observer import CAPACITY, Observation

__all__ = ["Exporter", "ExporterPipeline", "Source"]

log = logging.getLogger(__name__)

# Seconds between two polls: the maximum delay of a line of the access log.
INTERVAL = 0.05

# The maximum number that can wait for a poll: the capacities of the native transport's channel and Python's.
MAX_POLL = 2 * CAPACITY


class Source(Protocol):
    """The source of observations: the transport."""

    def observe(self, *, everything: bool, traced: float | None) -> None:
        """Observe requests; see `Transport.observe`."""

    def observations(self) -> tuple[Sequence[Observation], int]:
        """Return the observations since the last poll, and the total number of dropped ones."""


class Exporter(Protocol):
    """A consumer of observations."""

    @property
    def everything(self) -> bool:
        """Whether it needs the observations of every request."""

    @property
    def traced(self) -> float | None:
        """The sampling rate of requests whose caller has not decided; None: it does not trace."""

    def notify(self, observations: Sequence[Observation]) -> None:
        """Process observations."""

    def close(self) -> None:
        """Finish: no more observations follow."""


class ExporterPipeline:
    """Passes observations to exporters from `start` to `close`; `refresh` updates what they need."""

    def __init__(self, source: Source, exporters: Sequence[Exporter]) -> None:
        self._source = source
        self._exporters = exporters
        self._ended = threading.Event()
        # Set while any exporter needs observations.
        self._enabled = threading.Event()
        self._thread = threading.Thread(target=self._run, name="observe", daemon=True)
        self._lost = 0
        # Held while polling, by the thread or a caller of `flush`.
        self._polling = threading.Lock()

    def start(self) -> None:
        """Start the thread."""
        self.refresh()
        self._thread.start()

    def refresh(self) -> None:
        """Configure the source for what the exporters currently need."""
        shares = [each.traced for each in self._exporters if each.traced is not None]
        everything = any(each.everything for each in self._exporters)
        self._source.observe(everything=everything, traced=max(shares, default=None))
        if everything or shares:
            self._enabled.set()
        else:
            self._enabled.clear()

    def flush(self) -> None:
        """Pass on the observations so far, before the exporters' needs change."""
        with self._polling:
            self._poll()

    def close(self) -> None:
        """Pass on the remaining observations, and end."""
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
        # Bounded, as more may arrive meanwhile.
        while count < MAX_POLL:
            observations, lost = self._source.observations()
            if lost > self._lost:
                log.warning("%d requests were not exported, because they arrived too fast", lost - self._lost)
                self._lost = lost
            if not observations:
                return
            count += len(observations)
            for listener in self._exporters:
                try:
                    listener.notify(observations)
                except Exception:  # an error of one exporter must not affect others
                    log.exception("%s failed", type(listener).__name__)
            self.refresh()  # an exporter may need no more observations, as after `trace_count`
