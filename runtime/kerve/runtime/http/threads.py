"""The threads that answer over HTTP: probes have their own, and wait for nobody."""

import resource
from typing import Any

from waitress.task import ThreadedTaskDispatcher

__all__ = ["Threads", "max_connections"]

# Requests that are served at the same time; inference over HTTP holds one for as long as it takes. The wire
# lets so many in at a time, and probes besides.
THREADS = 16
PROBE_THREADS = 4

# What begins so asks whether the server lives; the wire knows it, too.
PROBES = "/v2/health/"

# Connections at most, if the process may open twice as many files. A probe comes on one of its own.
MOST_CONNECTIONS = 16_384


class Threads(ThreadedTaskDispatcher):
    """Waitress's dispatcher, with a second one for probes."""

    def __init__(self) -> None:
        super().__init__()
        self._probes = ThreadedTaskDispatcher()
        self._probes.set_thread_count(PROBE_THREADS)
        self.set_thread_count(THREADS)

    def add_task(self, task: Any) -> None:
        """Have a connection's first request answered."""
        if task.requests[0].path.startswith(PROBES):
            self._probes.add_task(task)
        else:
            super().add_task(task)

    def shutdown(self, cancel_pending: bool = True, timeout: float = 5) -> None:
        """End the threads."""
        self._probes.shutdown(cancel_pending, timeout)
        super().shutdown(cancel_pending, timeout)


def max_connections() -> int:
    """Return how many connections may be open: half of the files that this process may have open."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MOST_CONNECTIONS if files == resource.RLIM_INFINITY else min(MOST_CONNECTIONS, max(1, files // 2))
