"""The open sequences of one model version: their states, and the order of their requests.

a request arrives -> waits until its sequence is open -> waits for earlier requests of its sequence ->
is computed with the states -> stores the next states
"""

import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from kerve.runtime.errors import (
    Code,
    DeadlineExceededError,
    InvalidArgumentError,
    UnavailableError,
    error_for,
)
from kerve.runtime.sequences.plan import Value
from kerve.runtime.sequences.request import Identity, SequencePosition
from kerve.runtime.timeouts import seconds_until

__all__ = ["Sequences", "Turn"]


# Requests that may wait for their sequence to be opened, over all models: each occupies a thread, and threads
# must remain for others, such as those that end open sequences.
MOST_WAITING = threading.BoundedSemaphore(128)

# Registers a callback for the end of a call; returns False if the call has already ended.
Watch = Callable[[Callable[[], None]], bool]


@dataclass
class Sequence:
    """One sequence; only the request whose turn it is changes `states`."""

    # By input. None: the sequence has not begun or has ended.
    states: Mapping[str, Value] | None = None
    # Its current requests in order; the first one is being computed.
    present: "deque[Ticket]" = field(default_factory=deque)
    # The `time.monotonic()` time at which the last one ended.
    touched: float = 0.0


@dataclass(eq=False)
class Ticket:
    """A current request."""

    # Its deadline as a time of `time.monotonic()`; None: none.
    end: float | None
    # Whether its client has cancelled it.
    gone: bool = False


@dataclass
class Turn:
    """The states before a request, and, assigned by its caller, those after it."""

    states: Mapping[str, Value]


class Sequences:
    """The open sequences; thread-safe."""

    def __init__(
        self, model: str, *, most: int, idle: float, max_waiting: int = 0, triton_codes: bool = False
    ) -> None:
        """`most`: maximum number of open sequences; `max_waiting`: requests that may wait for one to end;
        `idle`: seconds without a request after which a sequence ends.
        """
        self._model = model
        self._most = most
        self._most_waiting = max_waiting
        self._idle = idle
        self._full = Code.UNAVAILABLE if triton_codes else Code.RESOURCE_EXHAUSTED
        # In order of their last use, least recent first.
        self._open: OrderedDict[Identity, Sequence] = OrderedDict()
        # Sequences that wait to be opened, in the order of their arrival.
        self._waiting: OrderedDict[Identity, Sequence] = OrderedDict()
        self._changed = threading.Condition()
        self._closed = False

    def __len__(self) -> int:
        """Return the number of open sequences."""
        with self._changed:
            self._evict_and_admit()
            return len(self._open)

    def __contains__(self, identity: Identity) -> bool:
        """Return whether a sequence is open or waits to be opened."""
        with self._changed:
            self._evict_and_admit()
            return identity in self._open or identity in self._waiting

    @contextmanager
    def turn(
        self,
        position: SequencePosition,
        begin: Callable[[], Mapping[str, Value]],
        timeout: float | None,
        watch: Watch = lambda _: True,
    ) -> Iterator[Turn]:
        """Wait until the sequence is open and earlier requests of it have ended; yield the current states.

        The caller assigns the next states. A failed request leaves the states unchanged; if it was to start
        the sequence, there are none. `begin`: returns the initial states; `timeout`: seconds to wait;
        `watch`: registers a callback for cancellation by the client.
        """
        ticket = Ticket(None if timeout is None else time.monotonic() + timeout)
        sequence = self._enter(position, ticket)
        try:
            self._wait(position.identity, sequence, ticket, watch)
            if position.start:
                sequence.states = None
            elif sequence.states is None:
                raise self._not_begun(position)
            turn = Turn(begin() if sequence.states is None else sequence.states)
            yield turn
            sequence.states = None if position.end else turn.states
        finally:
            self._leave(position.identity, sequence, ticket)

    def close(self) -> None:
        """Drop all sequences, and open no more; waiting requests are refused with UNAVAILABLE."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            self._open.clear()
            self._waiting.clear()

    def wait_until_over(self, end: float) -> None:
        """Wait until no sequence is open, or until `end`, a time of `time.monotonic()`."""
        while len(self) and (now := time.monotonic()) < end:
            with self._changed:
                self._changed.wait(seconds_until(min(now + self._idle, end)))

    def _enter(self, position: SequencePosition, ticket: Ticket) -> Sequence:
        with self._changed:
            self._check_open()
            self._evict_and_admit()
            identity = position.identity
            sequence = self._open.get(identity) or self._waiting.get(identity)
            if sequence is None:
                if not position.start:
                    raise self._not_begun(position)
                sequence = Sequence()
                room = len(self._open) < self._most and not self._waiting
                (self._open if room else self._waiting)[identity] = sequence
            sequence.present.append(ticket)
            if identity in self._open:
                self._open.move_to_end(identity)
            return sequence

    def _wait(self, identity: Identity, sequence: Sequence, ticket: Ticket, watch: Watch) -> None:
        """Wait for the turn of a request; raises a ServingError if it does not come."""

        def leave() -> None:
            with self._changed:
                ticket.gone = True
                self._changed.notify_all()

        if self._is_next(identity, sequence, ticket):
            return
        if not watch(leave):
            leave()
        with self._waiting_slot(identity), self._changed:
            while not (ticket.gone or self._is_next(identity, sequence, ticket)):
                self._check_open()
                now = time.monotonic()
                if ticket.end is not None and ticket.end <= now:
                    raise DeadlineExceededError(
                        "Deadline Exceeded while the request waited for its turn in its sequence, or for a "
                        "sequence to end"
                    )
                moments = [each for each in (ticket.end, self._next_idle()) if each is not None]
                self._changed.wait(seconds_until(min(moments)) if moments else None)
                self._evict_and_admit()
        # Even if its turn has come: its client would not know of the sequence, which would stay open.
        if ticket.gone:
            raise error_for(Code.CANCELLED, "the client cancelled the request")

    def _is_next(self, identity: Identity, sequence: Sequence, ticket: Ticket) -> bool:
        with self._changed:
            return self._open.get(identity) is sequence and sequence.present[0] is ticket

    @contextmanager
    def _waiting_slot(self, identity: Identity) -> Iterator[None]:
        """Count a request that waits for its sequence to be opened; refuse it beyond the limit."""
        with self._changed:
            waits = identity in self._waiting
            waiting = sum(len(each.present) for each in self._waiting.values())
        if not waits:
            yield
            return
        if waiting > self._most_waiting or not MOST_WAITING.acquire(blocking=False):
            raise error_for(
                self._full,
                f"model {self._model!r} has {self._most} sequences open, which is its limit, and too "
                "many requests that wait for one to end; try again later",
                retry_after=min(5.0, self._idle),
            )
        try:
            yield
        finally:
            MOST_WAITING.release()

    def _leave(self, identity: Identity, sequence: Sequence, ticket: Ticket) -> None:
        with self._changed:
            sequence.present.remove(ticket)
            sequence.touched = time.monotonic()
            if self._open.get(identity) is sequence:
                self._open.move_to_end(identity)
                if sequence.states is None and not sequence.present:
                    del self._open[identity]
            elif self._waiting.get(identity) is sequence and not sequence.present:
                del self._waiting[identity]
            self._evict_and_admit()
            self._changed.notify_all()

    def _evict_and_admit(self) -> None:
        """Evict idle sequences, and open waiting ones."""
        latest = time.monotonic() - self._idle
        idle = []
        # No copy: this runs several times for every request.
        for identity, sequence in self._open.items():
            if sequence.present:
                continue
            if sequence.touched > latest:
                break
            idle.append(identity)
        for identity in idle:
            del self._open[identity]
        while self._waiting and len(self._open) < self._most:
            identity, sequence = self._waiting.popitem(last=False)
            self._open[identity] = sequence
            self._changed.notify_all()

    def _next_idle(self) -> float | None:
        """Return the time at which the next sequence becomes idle; None while all have current requests."""
        return next((each.touched + self._idle for each in self._open.values() if not each.present), None)

    def _check_open(self) -> None:
        if self._closed:
            raise UnavailableError(
                f"model {self._model!r} is shutting down here; try another server, or again later"
            )

    def _not_begun(self, position: SequencePosition) -> InvalidArgumentError:
        return InvalidArgumentError(
            f"inference request for sequence {position.identity} to model '{self._model}' must specify the "
            "START flag on the first request of the sequence"
        )
