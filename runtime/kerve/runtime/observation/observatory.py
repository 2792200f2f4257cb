"""The thread that reads what became of requests, and tells it to whoever wants to know."""

import logging
import threading
from collections.abc import Sequence
from typing import Protocol

from kerve.runtime.observation.notes import ROOM, Observation

__all__ = ["Listener", "Observatory", "Source"]

log = logging.getLogger(__name__)

# Seconds between two looks: how late an access line is at most, and how much must fit between two.
INTERVAL = 0.05

# As many wait for a look at most: the wire's notes, and Python's.
MOST_WAITING = 2 * ROOM


class Source(Protocol):
    """Where observations come from: the transport."""

    def observe(self, *, everything: bool, traced: float | None) -> None:
        """Note what becomes of requests; see `Transport.observe`."""

    def observations(self) -> tuple[Sequence[Observation], int]:
        """Return what has ended since the last look, and how much was lost so far."""


class Listener(Protocol):
    """Somebody who wants to know."""

    @property
    def everything(self) -> bool:
        """Whether of every request."""

    @property
    def traced(self) -> float | None:
        """The share of requests that are traced where their caller does not decide; None: none is."""

    def tell(self, observations: Sequence[Observation]) -> None:
        """Here is what became of some requests."""

    def close(self) -> None:
        """No more will come."""


class Observatory:
    """Tells listeners from `start` to `close`. What they want may change; `refresh` asks them anew."""

    def __init__(self, source: Source, listeners: Sequence[Listener]) -> None:
        self._source = source
        self._listeners = listeners
        self._ended = threading.Event()
        # Set while somebody wants to know anything.
        self._wanted = threading.Event()
        self._thread = threading.Thread(target=self._run, name="observe", daemon=True)
        self._lost = 0
        # Held by whoever reads and tells: the thread, or who cannot wait for it.
        self._looking = threading.Lock()

    def start(self) -> None:
        """Begin."""
        self.refresh()
        self._thread.start()

    def refresh(self) -> None:
        """Note what the listeners want to know now."""
        shares = [each.traced for each in self._listeners if each.traced is not None]
        everything = any(each.everything for each in self._listeners)
        self._source.observe(everything=everything, traced=max(shares, default=None))
        if everything or shares:
            self._wanted.set()
        else:
            self._wanted.clear()

    def catch_up(self) -> None:
        """Tell of what has ended so far, now: what the listeners want is about to change."""
        with self._looking:
            self._look()

    def close(self) -> None:
        """Tell what is left, and end."""
        self._ended.set()
        self._wanted.set()
        if self._thread.is_alive():
            self._thread.join()
        for listener in self._listeners:
            listener.close()

    def _run(self) -> None:
        while self._wanted.wait() and not self._ended.wait(INTERVAL):
            self.catch_up()
        self.catch_up()

    def _look(self) -> None:
        told = 0
        # What comes meanwhile, perhaps faster than it is told, is for the next look.
        while told < MOST_WAITING:
            observations, lost = self._source.observations()
            if lost > self._lost:
                log.warning("%d requests came too fast to tell of them", lost - self._lost)
                self._lost = lost
            if not observations:
                return
            told += len(observations)
            for listener in self._listeners:
                try:
                    listener.tell(observations)
                except Exception:  # one listener's trouble is not the others', and no request's
                    log.exception("%s failed", type(listener).__name__)
            self.refresh()  # some may know enough now
