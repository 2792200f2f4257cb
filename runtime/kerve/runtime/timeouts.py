"""Timeouts limited to what Python's waits accept: those of requests and configurations may be larger."""

import threading
import time

__all__ = ["seconds_until"]


def seconds_until(deadline: float) -> float:
    """Return the seconds until a `time.monotonic()` deadline, at most `threading.TIMEOUT_MAX`."""
    return min(max(0.0, deadline - time.monotonic()), threading.TIMEOUT_MAX)
