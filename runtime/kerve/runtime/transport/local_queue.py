"""A bounded queue in Python, one request per batch: what the grpcio transport hands to the executors."""

import threading
import time
from collections import deque
from collections.abc import Mapping
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from typing import Any

from kerve.runtime.datatypes import Array
from kerve.runtime.errors import (
    Code,
    DeadlineExceededError,
    ResourceExhaustedError,
    ServingError,
    UnavailableError,
    error_for,
)
from kerve.runtime.transport.base import ServedModel

__all__ = ["LocalQueue", "Request"]


class Request:
    """A validated request, and a batch of one. The first answer counts; later ones are for nobody."""

    def __init__(
        self,
        inputs: Mapping[str, Array],
        *,
        rows: int,
        requested: frozenset[str] | None,
        deadline: float | None,
        parameters: Mapping[str, Any],
    ) -> None:
        self.inputs = inputs
        self.rows = rows
        self.requested = requested
        self.deadline = deadline
        self.parameters = parameters
        self._answer: Future[Mapping[str, Array]] = Future()

    def reply(self, outputs: Mapping[str, Array]) -> None:
        """Answer with outputs."""
        with suppress(InvalidStateError):  # the client is gone
            self._answer.set_result(outputs)

    def fail(self, code: int, message: str) -> None:
        """Answer with a gRPC status."""
        self._refuse(error_for(Code(code), message))

    def abandon(self) -> None:
        """Nobody waits for the answer any more: skip the request if it has not been taken."""
        self._refuse(error_for(Code.CANCELLED, "the client cancelled the request"))

    def _refuse(self, error: ServingError) -> None:
        with suppress(InvalidStateError):  # answered already
            self._answer.set_exception(error)

    @property
    def answered(self) -> bool:
        """Whether there is an answer."""
        return self._answer.done()

    def expire(self) -> bool:
        """Answer DEADLINE_EXCEEDED if the time is over; return whether it is."""
        expired = self.deadline is not None and time.monotonic() >= self.deadline
        if expired:
            self._refuse(DeadlineExceededError("the deadline passed while the request waited"))
        return expired

    def wait(self) -> Mapping[str, Array]:
        """Return the outputs once they are there; raise the error that was answered instead of them."""
        left = None if self.deadline is None else max(0.0, self.deadline - time.monotonic())
        try:
            return self._answer.result(left)
        except TimeoutError:
            self.expire()
            return self._answer.result()


class LocalQueue:
    """Requests of one model version, first in, first out."""

    def __init__(self, served: ServedModel) -> None:
        self.served = served
        self._waiting: deque[Request] = deque()
        self._changed = threading.Condition()
        self._closed = False
        # Seconds between two takes, smoothed: how fast the executors are.
        self._pace = 0.0
        self._last_take = time.monotonic()

    def put(self, request: Request) -> None:
        """Add a request; ResourceExhaustedError when the queue is full, UnavailableError when closed."""
        name, limit = self.served.name, self.served.max_queue_size
        with self._changed:
            if self._closed:
                raise UnavailableError(
                    f"model {name!r} is shutting down here; try another server, or again later"
                )
            if len(self._waiting) >= limit:
                raise ResourceExhaustedError(
                    f"model {name!r} has {limit} requests waiting, which is its limit; try again later",
                    retry_after=min(5.0, max(0.01, self._pace * limit)),
                )
            self._waiting.append(request)
            self._changed.notify()

    def take(self) -> Request | None:
        """Wait for a request that somebody still waits for; None once the queue is closed and empty."""
        with self._changed:
            while True:
                idle = not self._waiting
                while not self._waiting and not self._closed:
                    self._changed.wait()
                if not self._waiting:
                    return None
                request = self._waiting.popleft()
                if not request.answered and not request.expire():
                    self._keep_pace(idle=idle)
                    return request

    def close(self) -> None:
        """Refuse new requests; what waits is still taken."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _keep_pace(self, *, idle: bool) -> None:
        now = time.monotonic()
        if not idle:  # waiting for a client says nothing about the executors
            self._pace += 0.1 * (now - self._last_take - self._pace)
        self._last_take = now
