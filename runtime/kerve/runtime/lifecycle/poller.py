"""The thread that looks at the repositories again and again."""

import logging
import threading
from collections import deque
from collections.abc import Callable

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
        self._wanted = threading.Event()
        # Who wants to know when the next refresh is over.
        self._waiting: deque[Callable[[], None]] = deque()
        self._ended = False

    def run(self) -> None:
        """Wait, refresh, and again."""
        while not self._ended:
            self._wanted.wait(self._seconds)
            self._wanted.clear()
            if self._ended:
                return
            waiting = [self._waiting.popleft() for _ in range(len(self._waiting))]
            try:
                self._refresh()
            except Exception:  # a repository that cannot be read now may be read the next time
                log.exception("the repositories cannot be read; what serves goes on serving")
            for over in waiting:
                over()

    def wake(self, over: Callable[[], None]) -> None:
        """Refresh now, and call `over` when that is done; safe in a signal handler."""
        self._waiting.append(over)
        self._wanted.set()

    def stop(self) -> None:
        """End after the refresh that is under way."""
        self._ended = True
        self._wanted.set()
