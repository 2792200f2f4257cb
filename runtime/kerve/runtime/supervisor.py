"""What the server tells the service manager that started it, by sd_notify(3)'s protocol."""

import logging
import os
import socket
import time

__all__ = ["ready", "reloading", "stopping"]

log = logging.getLogger(__name__)


def ready() -> None:
    """Tell that requests are served, at first or after a reload."""
    notify("READY=1", "STATUS=serving")


def reloading() -> None:
    """Tell that a reload has begun, which `ready` ends."""
    notify("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")


def stopping() -> None:
    """Tell that no new work is taken."""
    notify("STOPPING=1", "STATUS=finishing what was accepted")


def notify(*assignments: str) -> None:
    """Send assignments to the socket that NOTIFY_SOCKET names; without one, nobody is interested."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.connect("\0" + address[1:] if address[0] == "@" else address)
            sender.sendall("\n".join(assignments).encode())
    except OSError as error:  # whoever listens there is no reason not to serve
        log.warning("the service manager cannot be told %s: %s", assignments[0], error)
