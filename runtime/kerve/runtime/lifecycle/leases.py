"""Who else needs a version: it stays, out of service, until none of them does."""

import threading

__all__ = ["Leases"]


class Leases:
    """How many need something."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._count = 0

    def take(self) -> None:
        """One more needs it."""
        with self._changed:
            self._count += 1

    def give(self) -> None:
        """One needs it no more."""
        with self._changed:
            self._count -= 1
            self._changed.notify_all()

    @property
    def taken(self) -> bool:
        """Whether anybody needs it."""
        with self._changed:
            return self._count > 0

    def wait_until_free(self, timeout: float) -> bool:
        """Wait until nobody needs it; return whether that is so."""
        with self._changed:
            return self._changed.wait_for(lambda: self._count == 0, timeout)
