"""The bounded queue of the grpcio transport, in Python, with one request per batch."""

import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from itertools import chain
from typing import Any

from kerve.runtime.datatypes import Array
from kerve.runtime.errors import Code, InvalidArgumentError, ServingError, UnavailableError, error_for
from kerve.runtime.observation.observer import CallObservation
from kerve.runtime.timeouts import seconds_until
from kerve.runtime.transport.base import Batch, Deferred, Inbox, ServedModel
from kerve.runtime.transport.batching import QueuePolicy
from kerve.runtime.transport.local_inbox import LocalAnswer, LocalInbox
from kerve.runtime.transport.local_metrics import LocalMetrics

__all__ = ["LocalQueue", "Request"]


class Request:
    """A validated request, and a batch of one. Only the first answer counts."""

    requests = parts = 1

    def __init__(
        self,
        inputs: Mapping[str, Array],
        *,
        rows: int,
        requested: frozenset[str] | None,
        deadline: float | None,
        parameters: Mapping[str, Any],
        request_id: str = "",
        observation: CallObservation | None = None,
        parent: Batch | None = None,
    ) -> None:
        self.inputs = inputs
        self.rows = rows
        self.requested = requested
        self.deadline = deadline
        self.parameters = parameters
        self.request_ids = (request_id,) if request_id else ()
        # Its observation, if it is observed.
        self._observation = observation
        # For an in-process request, the batch on whose behalf it was made.
        self.parent = parent
        # The time until which it may wait, and whether it then continues to wait behind all others instead of
        # being refused; set by the queue.
        self.expires: float | None = None
        self.delayed = False
        # The status if it expires.
        self.late = Code.DEADLINE_EXCEEDED
        self.metrics: LocalMetrics | None = None
        self.arrived = time.monotonic_ns()
        # The time when an executor took it.
        self.taken: int | None = None
        # The time from then to its answer.
        self.nanoseconds = 0
        self._answer: Future[Mapping[str, Array]] = Future()
        self._ending = threading.Lock()

    def reply(self, outputs: Mapping[str, Array]) -> None:
        """Answer with outputs."""
        if self._end(Code.OK):
            if self.metrics:
                self.metrics.computed(self.rows, time.monotonic_ns() - (self.taken or self.arrived))
            self._answer.set_result(outputs)

    def fail(self, code: int, message: str) -> None:
        """Answer with a gRPC status."""
        self._refuse(error_for(Code(code), message))

    def abandon(self) -> None:
        """Cancel the request: it is skipped if it has not been taken."""
        self._refuse(error_for(Code.CANCELLED, "the client cancelled the request"))

    def refused(self, error: ServingError) -> ServingError:
        """Answer with an error, and return it."""
        self._refuse(error)
        return error

    def _refuse(self, error: ServingError) -> None:
        if self._end(error.code):
            self._answer.set_exception(error)

    def _end(self, code: Code) -> bool:
        """Count the answer; return False if there was one already."""
        if not self._ending.acquire(blocking=False):  # the first answer never releases it
            return False
        now = time.monotonic_ns()
        self.nanoseconds = 0 if self.taken is None else now - self.taken
        if self.metrics:
            self.metrics.ended(code, now - self.arrived)
        if self._observation is not None and self.taken is not None:
            self._observation.queued, self._observation.computed = self.taken - self.arrived, now - self.taken
            self._observation.batch = self.rows
        return True

    @property
    def answered(self) -> bool:
        """Whether it has been answered."""
        return self._ending.locked()

    @property
    def active(self) -> bool:
        """Whether a client still waits for the answer."""
        return not self.answered and (self.parent is None or self.parent.active)

    def deliver_to(self, inbox: LocalInbox, token: object) -> None:
        """Also deliver the answer to an inbox."""

        def put(answer: Future[Mapping[str, Array]]) -> None:
            error = answer.exception()
            if error is None:
                local_answer = LocalAnswer(token, answer.result(), Code.OK, "", self.nanoseconds)
            else:
                code = error.code if isinstance(error, ServingError) else Code.INTERNAL
                local_answer = LocalAnswer(token, None, code, str(error), self.nanoseconds)
            inbox.put(local_answer)

        self._answer.add_done_callback(put)

    def expire(self) -> bool:
        """Answer with an error if the request has expired; return whether it has."""
        limit = self._limit()
        expired = limit is not None and time.monotonic() >= limit
        if expired:
            self._refuse(error_for(self.late, "Deadline Exceeded while the request waited"))
        return expired

    def wait(self) -> Mapping[str, Array]:
        """Wait for the answer; return the outputs or raise the error."""
        while True:
            limit = self._limit()
            try:
                return self._answer.result(None if limit is None else seconds_until(limit))
            except TimeoutError:
                self.expire()

    def _limit(self) -> float | None:
        """The earlier of the deadline and, until it is taken, the queue timeout."""
        waiting = self.expires if self.taken is None and not self.delayed else None
        limits = [limit for limit in (self.deadline, waiting) if limit is not None]
        return min(limits, default=None)


class LocalQueue:
    """Requests of one model version: highest priority first, FIFO within a priority."""

    def __init__(self, served: ServedModel) -> None:
        self.served = served
        self._policies = served.batching.policies
        # One queue per priority; and the requests that were delayed after their queue timeout.
        self._levels: list[deque[Request]] = [deque() for _ in self._policies]
        self._delayed: deque[Request] = deque()
        # Taken when no request is waiting; not limited in number.
        self._deferred: deque[Deferred] = deque()
        self._metrics = LocalMetrics()
        self._changed = threading.Condition()
        # Clients' requests are refused; in-process ones are not, as accepted requests may depend on them.
        self._draining = False
        self._closed = False
        # Moving average of the seconds between two takes while requests are waiting.
        self._mean_interval = 0.0
        self._last_take = time.monotonic()

    def put(self, request: Request, *, priority: int = 0, timeout: float | None = None) -> None:
        """Add a request; raises ResourceExhaustedError if the queue is full, UnavailableError if closed,
        InvalidArgumentError for too many rows.

        `priority`: from 1, the highest; other values mean the queue's default. `timeout`: the request's own
        queue timeout in seconds, if the policy allows one.
        """
        if self.served.signature.batched:
            empty = all(each.size == 0 for each in request.inputs.values())
            if problem := self.served.batching.oversized(request.rows, empty=empty):
                raise request.refused(InvalidArgumentError(problem))
        level = self._level(priority)
        policy, waiting = self._policies[level], self._levels[level]
        with self._changed:
            request.metrics = self._metrics
            self._metrics.arrived()
            if self._closed or (self._draining and request.parent is None):
                raise request.refused(self._shutting_down())
            if (
                len(waiting) >= policy.max_queue_size
            ):  # drop requests that are already answered: expired or cancelled ones
                self._levels[level] = waiting = deque(each for each in waiting if not each.answered)
            if len(waiting) >= policy.max_queue_size:
                raise request.refused(self._full(policy.max_queue_size))
            request.expires = expiry(policy, timeout)
            request.delayed = policy.timeout_action == "DELAY"
            request.late = Code.UNAVAILABLE if self.served.batching.triton_codes else Code.DEADLINE_EXCEEDED
            waiting.append(request)
            self._changed.notify()

    def ask(
        self,
        inputs: Mapping[str, Array],
        requested: Sequence[str] | None,
        parent: Batch,
        inbox: Inbox,
        token: object,
    ) -> None:
        """Add an in-process request; see `Queue.ask`."""
        if not isinstance(inbox, LocalInbox):
            raise TypeError("the inbox is of another transport")
        batched = self.served.signature.batched and inputs
        request = Request(
            inputs,
            rows=len(next(iter(inputs.values()))) if batched else 1,
            requested=None if requested is None else frozenset(requested),
            deadline=parent.deadline,
            parameters=parent.parameters,
            request_id=next(iter(parent.request_ids), ""),
            parent=parent,
        )
        request.deliver_to(inbox, token)
        priority = request.parameters.get("priority", 0)
        with suppress(ServingError):  # it is delivered as the answer
            self.put(request, priority=priority if isinstance(priority, int) else 0)

    def defer(self, task: Deferred) -> bool:
        """Let `take` return a task when no request is waiting; returns False once the queue is closed."""
        with self._changed:
            if self._draining or self._closed:
                return False
            self._deferred.append(task)
            self._changed.notify()
        return True

    def take(self) -> Request | Deferred | None:
        """Wait for a request that is not cancelled, or a deferred task if no request is waiting.

        Returns None once the queue is closed and empty.
        """
        with self._changed:
            while True:
                idle = not self.depth
                while not (self.depth or self._deferred or self._closed):
                    self._changed.wait()
                if not self.depth:
                    return self._deferred.popleft() if self._deferred else None
                request = self._next()
                if request is not None:
                    self._record_interval(idle=idle)
                    request.taken = time.monotonic_ns()
                    self._metrics.waited(request.taken - request.arrived)
                    return request

    def drain(self) -> None:
        """Refuse clients' requests; waiting requests and those of `ask` are still taken."""
        with self._changed:
            self._draining = True

    def close(self) -> None:
        """Refuse new requests; waiting requests are still taken."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def statistics(self) -> dict[str, Any]:
        """Return the statistics; see `Queue.statistics`."""
        with self._changed:
            waiting = sum(not each.answered for each in chain(*self._levels, self._delayed))
        return self._metrics.read(waiting)

    @property
    def depth(self) -> int:
        """The number of waiting requests."""
        return sum(map(len, self._levels)) + len(self._delayed)

    def _shutting_down(self) -> ServingError:
        return UnavailableError(
            f"model {self.served.name!r} is shutting down here; try another server, or again later"
        )

    def _full(self, limit: int) -> ServingError:
        code = Code.UNAVAILABLE if self.served.batching.triton_codes else Code.RESOURCE_EXHAUSTED
        return error_for(
            code,
            f"model {self.served.name!r} has {limit} requests waiting, which is its limit; try again later",
            retry_after=min(5.0, max(0.01, self._mean_interval * limit)),
        )

    def _level(self, priority: int) -> int:
        levels = len(self._policies)
        chosen = priority if 1 <= priority <= levels else self.served.batching.default_priority_level
        return min(max(chosen, 1), levels) - 1

    def _next(self) -> Request | None:
        """Take the next request; None if it is answered, cancelled, expired or delayed."""
        waiting = next((level for level in self._levels if level), self._delayed)
        request = waiting.popleft()
        if request.answered or request.expire():
            return None
        if not request.active:
            request.abandon()
            return None
        late = request.expires is not None and time.monotonic() >= request.expires
        if late and waiting is not self._delayed:
            self._delayed.append(request)
            return None
        return request

    def _record_interval(self, *, idle: bool) -> None:
        now = time.monotonic()
        if not idle:  # an empty queue says nothing about the executors' speed
            self._mean_interval += 0.1 * (now - self._last_take - self._mean_interval)
        self._last_take = now


def expiry(policy: QueuePolicy, asked: float | None) -> float | None:
    """Return the `time.monotonic()` time until which a request may wait; None: until its deadline."""
    seconds = policy.default_timeout_microseconds / 1e6
    if asked and policy.allow_timeout_override:
        seconds = asked
    return time.monotonic() + seconds if seconds > 0 else None
