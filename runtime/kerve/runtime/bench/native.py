"""Load that kerve-wire makes, where it is installed: Python's time is not in the latencies."""

from __future__ import annotations  # kerve_wire may not be there

import importlib.util
import time
from typing import TYPE_CHECKING

from kerve.runtime.bench.load import Recorder
from kerve.runtime.client import EncodedCall
from kerve.runtime.errors import UnavailableError

if TYPE_CHECKING:
    import kerve_wire

__all__ = ["Native", "can_send"]


def can_send(call: EncodedCall, *, encrypted: bool) -> bool:
    """Return whether a call can be sent so: to a host and a port, without TLS."""
    host, _, port = call.address.rpartition(":")
    named = bool(host) and port.isdecimal() and (host.startswith("[") or not {":", "/"} & set(host))
    return named and not encrypted and importlib.util.find_spec("kerve_wire") is not None


class Native(Recorder):
    """So many calls under way at any time, or so many a second; it keeps its own times."""

    def __init__(
        self, call: EncodedCall, *, concurrency: int | None = None, request_rate: float | None = None
    ) -> None:
        super().__init__()
        self._call = call
        self._concurrency = concurrency
        self._request_rate = request_rate
        self._load: kerve_wire.Load | None = None

    def start(self) -> None:
        """Begin."""
        from kerve_wire import Load

        call = self._call
        self._load = Load(
            *(call.address, call.path, call.metadata, call.message),
            concurrency=self._concurrency,
            request_rate=self._request_rate,
        )

    def stop(self) -> None:
        """Begin no more calls, and wait for those under way."""
        if self._load is not None:
            self._load.stop()

    def window(self, start: float, end: float) -> list[float]:
        """Return how long the calls took that ended within a time, ascending."""
        assert self._load is not None
        try:
            calls, failures = self._load.take(time.perf_counter())
        except RuntimeError as error:
            raise UnavailableError(f"{self._call.address} cannot be asked any more: {error}") from error
        self.calls += calls
        self.failures += failures
        return super().window(start, end)
