"""Notes of requests that Python serves; kerve-wire keeps its own of those that it serves itself."""

import random
import re
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Protocol

__all__ = ["ROOM", "TRACE_PARENT", "Note", "Observation", "Observer", "current"]

# Notes that may wait for their reader; more are lost, and counted.
ROOM = 1 << 15

# W3C Trace Context, section 3.2; a version after 00 may have more behind the flags.
TRACE_PARENT = re.compile(
    r"(?P<version>(?!ff)[0-9a-f]{2})-(?P<trace>(?!0{32})[0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-(?P<flags>[0-9a-f]{2})"
    r"(?P<more>-.*)?"
)


class Observation(Protocol):
    """What became of one request; times and durations in nanoseconds."""

    @property
    def method(self) -> str:
        """The path of the method."""

    @property
    def peer(self) -> str:
        """Who asked, in gRPC's notation."""

    @property
    def request_id(self) -> str:
        """The client's id of the request, or one that was made for it."""

    @property
    def trace_parent(self) -> str:
        """The caller's W3C trace context."""

    @property
    def trace_state(self) -> str:
        """The rest of it."""

    @property
    def sampled(self) -> bool:
        """Whether it is traced."""

    @property
    def model(self) -> str:
        """The model that was asked, as far as the request could be read."""

    @property
    def version(self) -> str:
        """The version that answered; what was asked for where none did."""

    @property
    def rows(self) -> int:
        """The request's rows."""

    @property
    def batch(self) -> int:
        """The rows of the batch that it was computed in."""

    @property
    def code(self) -> int:
        """The gRPC status."""

    @property
    def arrived(self) -> int:
        """When it came, since the epoch."""

    @property
    def queued(self) -> int | None:
        """From arrival to computation; None: it was not computed."""

    @property
    def computed(self) -> int | None:
        """The computation of its batch."""

    @property
    def total(self) -> int:
        """From arrival to answer."""


@dataclass
class Note:
    """An observation that is being made; see there."""

    method: str
    peer: str
    request_id: str
    trace_parent: str
    trace_state: str
    sampled: bool
    model: str = ""
    version: str = ""
    rows: int = 0
    batch: int = 0
    code: int = 0
    arrived: int = field(default_factory=time.time_ns)
    queued: int | None = None
    computed: int | None = None
    total: int = 0
    # Whether the server calls itself for this request, and notes that call in place of this one.
    passed_on: bool = False
    begun: int = field(default_factory=time.perf_counter_ns)

    def asks(self, request: Any) -> None:
        """Note the model, the version and the id in a message, as far as it has them."""
        spec = getattr(request, "model_spec", None)
        if spec is not None:
            self.model, self.version = spec.name, spec.version_label or str(spec.version.value or "")
            return
        self.model = str(getattr(request, "model_name", "") or getattr(request, "name", ""))
        self.version = str(getattr(request, "model_version", "") or getattr(request, "version", ""))
        self.request_id = str(getattr(request, "id", "") or self.request_id)


# The note of the call that the thread serves.
CURRENT: ContextVar[Note | None] = ContextVar("note", default=None)


def current() -> Note | None:
    """Return the note of the call that this thread serves, if it is noted."""
    return CURRENT.get()


class Observer:
    """Decides which requests are noted, and keeps the notes until they are read."""

    def __init__(self) -> None:
        self._everything = False
        self._traced: float | None = None
        self._ended: deque[Note] = deque()
        self._lost = 0

    @property
    def active(self) -> bool:
        """Whether anything is noted at all."""
        return self._everything or self._traced is not None

    def want(self, *, everything: bool, traced: float | None) -> None:
        """Note every request, or those that are traced; see `Transport.observe`."""
        self._everything, self._traced = everything, traced

    def begin(self, method: str, peer: str, metadata: Mapping[str, str | bytes]) -> Note | None:
        """Begin to note a request, if it is to be noted."""
        if not self.active:
            return None
        parent = str(metadata.get("traceparent", ""))
        sampled = self._traced is not None and self._sampled(parent, self._traced)
        if not (self._everything or sampled):
            return None
        request_id = str(metadata.get("x-request-id", "")) or f"{random.getrandbits(64):016x}"
        return Note(method, peer, request_id, parent, str(metadata.get("tracestate", "")), sampled)

    def end(self, note: Note, code: int) -> None:
        """The request is answered."""
        note.code = code
        note.total = time.perf_counter_ns() - note.begun
        if len(self._ended) < ROOM:
            self._ended.append(note)
        else:
            self._lost += 1

    @contextmanager
    def serving(self, note: Note | None) -> Iterator[None]:
        """Let a note be the current one of this thread; None: the thread's request is not noted."""
        token = CURRENT.set(note)
        try:
            yield
        finally:
            CURRENT.reset(token)

    def read(self) -> tuple[list[Note], int]:
        """Return the notes that are there, and how many have been lost so far."""
        return [self._ended.popleft() for _ in range(len(self._ended))], self._lost

    def _sampled(self, parent: str, share: float) -> bool:
        match = TRACE_PARENT.fullmatch(parent)
        if match is None or (match["version"] == "00" and match["more"]):
            return random.random() < share  # noqa: S311  no secret
        return bool(int(match["flags"], 16) & 1)
