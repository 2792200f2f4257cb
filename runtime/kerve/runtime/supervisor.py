"""Notifications to the service manager that started the server, in sd_notify(3)'s protocol."""

import logging
import os
import socket
import time

__all__ = ["ready", "reloading", "stopping"]

log = logging.getLogger(__name__)


def ready() -> None:
    """Report that requests are served, after the start or a reload."""
    notify("READY=1", "STATUS=serving")


def reloading() -> None:
    """Report that a reload has begun; `ready` reports its end."""
    notify("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")


def stopping() -> None:
    """Report that no new requests are accepted."""
    notify("STOPPING=1", "STATUS=finishing accepted requests")


def notify(*assignments: str) -> None:
    """Send assignments to the socket in NOTIFY_SOCKET; do nothing if it is not set."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.connect("\0" + address[1:] if address[0] == "@" else address)
            sender.sendall("\n".join(assignments).encode())
    except OSError as error:  # a failed notification must not stop the server
        log.warning("the service manager cannot be notified of %s: %s", assignments[0], error)
