"""The thread that polls the repositories."""

import logging
import queue
import threading
from collections.abc import Callable
from contextlib import suppress

__all__ = ["Poller"]

log = logging.getLogger(__name__)


class Poller(threading.Thread):
    """Calls `refresh` at a fixed interval, and immediately on `wake`; exceptions do not end it."""

    def __init__(self, refresh: Callable[[], None], seconds: float | None) -> None:
        super().__init__(name="poll", daemon=True)
        self._refresh = refresh
        # None: only on `wake`.
        self._seconds = seconds
        # Callbacks for the end of the next refresh. `put` of a SimpleQueue is reentrant: a signal may arrive
        # while another one's handler is in `put`. The lock of an Event would deadlock there.
        self._waiting: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._ended = False

    def run(self) -> None:
        """Wait and refresh, until stopped."""
        while True:
            waiting = self._wait()
            if self._ended:
                return
            try:
                self._refresh()
            except Exception:  # a repository that cannot be read now may be read the next time
                log.exception("the repositories cannot be read; loaded models continue to serve")
            for over in waiting:
                over()

    def wake(self, over: Callable[[], None]) -> None:
        """Refresh now and call `over` when done; safe in a signal handler."""
        self._waiting.put(over)

    def stop(self) -> None:
        """End after the current refresh."""
        self._ended = True
        self._waiting.put(lambda: None)

    def _wait(self) -> list[Callable[[], None]]:
        """Wait until the interval is over or `wake` is called; return the callbacks that are waiting."""
        waiting: list[Callable[[], None]] = []
        with suppress(queue.Empty):
            waiting.append(self._waiting.get(timeout=self._seconds))
            while True:
                waiting.append(self._waiting.get_nowait())
        return waiting
