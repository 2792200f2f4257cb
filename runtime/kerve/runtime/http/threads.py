"""The threads of the HTTP server: health probes have their own, so that they never wait."""

import resource
from typing import Any

from waitress.task import ThreadedTaskDispatcher

__all__ = ["Threads", "max_connections"]

# Concurrent requests; inference over HTTP occupies a thread until it is done. The native transport admits as
# many at a time, plus probes.
THREADS = 16
PROBE_THREADS = 4

# Path prefix of health probes; also defined in the native transport.
PROBES = "/v2/health/"

# Maximum number of connections, if the process may open twice as many files. Each probe has its own.
MOST_CONNECTIONS = 16_384


class Threads(ThreadedTaskDispatcher):
    """waitress' dispatcher, with a second one for probes."""

    def __init__(self) -> None:
        super().__init__()
        self._probes = ThreadedTaskDispatcher()
        self._probes.set_thread_count(PROBE_THREADS)
        self.set_thread_count(THREADS)

    def add_task(self, task: Any) -> None:
        """Dispatch a connection by its first request."""
        if task.requests[0].path.startswith(PROBES):
            self._probes.add_task(task)
        else:
            super().add_task(task)

    def shutdown(self, cancel_pending: bool = True, timeout: float = 5) -> None:
        """End the threads."""
        self._probes.shutdown(cancel_pending, timeout)
        super().shutdown(cancel_pending, timeout)


def max_connections() -> int:
    """Return the maximum number of connections: half of the process' limit of open files."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MOST_CONNECTIONS if files == resource.RLIM_INFINITY else min(MOST_CONNECTIONS, max(1, files // 2))
