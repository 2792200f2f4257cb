"""Timeouts that Python's waits accept: those of requests and configurations may be centuries."""

import threading
import time

__all__ = ["seconds_until"]


def seconds_until(deadline: float) -> float:
    """Return the seconds until a moment of `time.monotonic()`, or as many of them as can be waited for."""
    return min(max(0.0, deadline - time.monotonic()), threading.TIMEOUT_MAX)
