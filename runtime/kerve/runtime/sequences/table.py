"""The sequences of one model version that are open: their states, and whose turn it is.

a request comes -> waits for those of its sequence before it -> is computed with the state -> leaves
the next state
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
from kerve.runtime.sequences.request import Asked, Identity

__all__ = ["Sequences", "Turn"]


@dataclass
class Sequence:
    """One sequence; only whose turn it is changes `states`."""

    # By input. None: it has not begun, or is over.
    states: Mapping[str, Value] | None = None
    # The requests that are there, in order; the first is being computed.
    present: deque[object] = field(default_factory=deque)
    # When the last one went, in seconds of `time.monotonic()`.
    touched: float = 0.0


@dataclass
class Turn:
    """What one request is given, and leaves."""

    states: Mapping[str, Value]


class Sequences:
    """The open sequences; every method may be called by any thread."""

    def __init__(self, model: str, *, most: int, idle: float, triton_codes: bool = False) -> None:
        """`most`: sequences that may be open; `idle`: seconds without a request that end one."""
        self._model = model
        self._most = most
        self._idle = idle
        self._full = Code.UNAVAILABLE if triton_codes else Code.RESOURCE_EXHAUSTED
        # The one that was used the longest time ago stands first.
        self._open: OrderedDict[Identity, Sequence] = OrderedDict()
        self._changed = threading.Condition()
        self._closed = False

    def __len__(self) -> int:
        """Return how many are open."""
        with self._changed:
            self._forget_idle()
            return len(self._open)

    def __contains__(self, identity: Identity) -> bool:
        """Return whether a sequence is open."""
        with self._changed:
            self._forget_idle()
            return identity in self._open

    @contextmanager
    def turn(
        self, asked: Asked, begin: Callable[[], Mapping[str, Value]], timeout: float | None
    ) -> Iterator[Turn]:
        """Wait for the requests of the sequence before this one, and yield the states that it is given.

        Whoever computes it assigns the next ones. A request that fails leaves the states as they were, one
        that was to start the sequence leaves none. `begin`: the states of a sequence that starts;
        `timeout`: seconds to wait.
        """
        ticket = object()
        sequence = self._enter(asked, ticket)
        try:
            self._wait(sequence, ticket, timeout)
            if asked.start:
                sequence.states = None
            elif sequence.states is None:
                raise self._not_begun(asked)
            turn = Turn(begin() if sequence.states is None else sequence.states)
            yield turn
            sequence.states = None if asked.end else turn.states
        finally:
            self._leave(asked.identity, sequence, ticket)

    def close(self) -> None:
        """Forget all, and begin none any more; who waits is refused with UNAVAILABLE."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            self._open.clear()

    def wait_until_over(self, timeout: float) -> None:
        """Wait until no sequence is open any more."""
        end = time.monotonic() + timeout
        while len(self) and (left := end - time.monotonic()) > 0:
            with self._changed:
                self._changed.wait(min(self._idle, left))

    def _enter(self, asked: Asked, ticket: object) -> Sequence:
        with self._changed:
            self._check_open()
            self._forget_idle()
            sequence = self._open.get(asked.identity)
            if sequence is None:
                if not asked.start:
                    raise self._not_begun(asked)
                if len(self._open) >= self._most:
                    raise error_for(
                        self._full,
                        f"model {self._model!r} has {self._most} sequences open, which is its limit; "
                        "try again when one of them is over",
                        retry_after=min(5.0, self._idle),
                    )
                sequence = self._open[asked.identity] = Sequence()
            sequence.present.append(ticket)
            self._open.move_to_end(asked.identity)
            return sequence

    def _wait(self, sequence: Sequence, ticket: object, timeout: float | None) -> None:
        with self._changed:
            there = self._changed.wait_for(lambda: self._closed or sequence.present[0] is ticket, timeout)
            self._check_open()
            if not there:
                raise DeadlineExceededError(
                    "the deadline passed while the request waited for those of its sequence before it"
                )

    def _leave(self, identity: Identity, sequence: Sequence, ticket: object) -> None:
        with self._changed:
            sequence.present.remove(ticket)
            sequence.touched = time.monotonic()
            if self._open.get(identity) is sequence:
                self._open.move_to_end(identity)
                if sequence.states is None and not sequence.present:
                    del self._open[identity]
            self._changed.notify_all()

    def _forget_idle(self) -> None:
        latest = time.monotonic() - self._idle
        for identity, sequence in list(self._open.items()):
            if sequence.present:
                continue
            if sequence.touched > latest:
                break
            del self._open[identity]

    def _check_open(self) -> None:
        if self._closed:
            raise UnavailableError(
                f"model {self._model!r} is shutting down here; try another server, or again later"
            )

    def _not_begun(self, asked: Asked) -> InvalidArgumentError:
        return InvalidArgumentError(
            f"inference request for sequence {asked.identity} to model '{self._model}' must specify the "
            "START flag on the first request of the sequence"
        )
