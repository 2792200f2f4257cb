"""The thread that looks at the repositories again and again."""

import logging
import queue
import threading
from collections.abc import Callable
from contextlib import suppress

__all__ = ["Poller"]

log = logging.getLogger(__name__)


class Poller(threading.Thread):
    """Calls `refresh` every so many seconds, and at once when it is told to; whatever goes wrong, it goes
    on.
    """

    def __init__(self, refresh: Callable[[], None], seconds: float | None) -> None:
        super().__init__(name="poll", daemon=True)
        self._refresh = refresh
        # None: only when it is told to.
        self._seconds = seconds
        # Who wants to know when the next refresh is over. A signal may come while another is heeded, in the
        # middle of a put: this queue allows for that, where an event has a lock that it would wait for.
        self._waiting: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._ended = False

    def run(self) -> None:
        """Wait, refresh, and again."""
        while True:
            waiting = self._wait()
            if self._ended:
                return
            try:
                self._refresh()
            except Exception:  # a repository that cannot be read now may be read the next time
                log.exception("the repositories cannot be read; what serves goes on serving")
            for over in waiting:
                over()

    def wake(self, over: Callable[[], None]) -> None:
        """Refresh now, and call `over` when that is done; safe in a signal handler."""
        self._waiting.put(over)

    def stop(self) -> None:
        """End after the refresh that is under way."""
        self._ended = True
        self._waiting.put(lambda: None)

    def _wait(self) -> list[Callable[[], None]]:
        """Return when it is time, or somebody wants it: who does."""
        waiting: list[Callable[[], None]] = []
        with suppress(queue.Empty):
            waiting.append(self._waiting.get(timeout=self._seconds))
            while True:
                waiting.append(self._waiting.get_nowait())
        return waiting
