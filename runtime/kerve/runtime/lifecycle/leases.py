"""Leases on a version: while any is held, it stays in memory, even if it is no longer served."""

import threading

__all__ = ["Leases"]


class Leases:
    """Counts the leases that are held."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._count = 0

    def acquire(self) -> None:
        """Take a lease."""
        with self._changed:
            self._count += 1

    def release(self) -> None:
        """Release a lease."""
        with self._changed:
            self._count -= 1
            self._changed.notify_all()

    @property
    def held(self) -> bool:
        """Whether any lease is held."""
        with self._changed:
            return self._count > 0

    def wait_until_free(self, timeout: float) -> bool:
        """Wait until no lease is held; return False on timeout."""
        with self._changed:
            return self._changed.wait_for(lambda: self._count == 0, timeout)
