"""How long to wait at once: a request or a configuration may name centuries, which Python's waits refuse."""

import threading
import time

__all__ = ["until"]


def until(moment: float) -> float:
    """Return the seconds until a moment of `time.monotonic()`, or as many of them as can be waited for."""
    return min(max(0.0, moment - time.monotonic()), threading.TIMEOUT_MAX)
