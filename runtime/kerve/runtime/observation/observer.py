"""Observations of requests that are served in Python; kerve-wire observes those that it serves itself."""

import random
import re
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Protocol

__all__ = ["CAPACITY", "TRACE_PARENT", "CallObservation", "Observation", "Observer", "current"]

# Maximum number of observations that wait to be read; further ones are dropped and counted.
CAPACITY = 1 << 15

# W3C Trace Context, section 3.2; versions after 00 may have more after the flags.
TRACE_PARENT = re.compile(
    r"(?P<version>(?!ff)[0-9a-f]{2})-(?P<trace>(?!0{32})[0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-(?P<flags>[0-9a-f]{2})"
    r"(?P<more>-.*)?"
)


class Observation(Protocol):
    """The record of one request; times and durations in nanoseconds."""

    @property
    def method(self) -> str:
        """The path of the method."""

    @property
    def peer(self) -> str:
        """The caller, in gRPC's notation."""

    @property
    def request_id(self) -> str:
        """The client's id of the request, or a generated one."""

    @property
    def trace_parent(self) -> str:
        """The caller's W3C `traceparent`."""

    @property
    def trace_state(self) -> str:
        """The caller's W3C `tracestate`."""

    @property
    def sampled(self) -> bool:
        """Whether it is traced."""

    @property
    def model(self) -> str:
        """The requested model, if the request could be decoded."""

    @property
    def version(self) -> str:
        """The version that answered, or the requested one if none did."""

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
        """The time of arrival, since the epoch."""

    @property
    def queued(self) -> int | None:
        """The time from arrival to computation; None: it was not computed."""

    @property
    def computed(self) -> int | None:
        """The compute time of its batch."""

    @property
    def total(self) -> int:
        """The time from arrival to response."""


@dataclass
class CallObservation:
    """The observation of a call that is served in Python, during and after the call."""

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
    # Whether the server calls itself for this request, and that call is observed instead.
    delegated: bool = False
    begun: int = field(default_factory=time.perf_counter_ns)

    def set_request(self, request: Any) -> None:
        """Set the model, the version and the id of the request, if the message has them."""
        spec = getattr(request, "model_spec", None)
        if spec is not None:
            self.model, self.version = spec.name, spec.version_label or str(spec.version.value or "")
            return
        self.model = str(getattr(request, "model_name", "") or getattr(request, "name", ""))
        self.version = str(getattr(request, "model_version", "") or getattr(request, "version", ""))
        self.request_id = str(getattr(request, "id", "") or self.request_id)


# The observation of the call that the current thread serves.
CURRENT: ContextVar[CallObservation | None] = ContextVar("observation", default=None)


def current() -> CallObservation | None:
    """Return the observation of the call that this thread serves, if it is observed."""
    return CURRENT.get()


class Observer:
    """Decides which requests are observed, and stores the observations until they are read."""

    def __init__(self) -> None:
        self._everything = False
        self._traced: float | None = None
        self._ended: deque[CallObservation] = deque()
        self._lost = 0

    @property
    def active(self) -> bool:
        """Whether any request is observed."""
        return self._everything or self._traced is not None

    def configure(self, *, everything: bool, traced: float | None) -> None:
        """Observe every request, or only traced ones; see `Transport.observe`."""
        self._everything, self._traced = everything, traced

    def begin(self, method: str, peer: str, metadata: Mapping[str, str | bytes]) -> CallObservation | None:
        """Begin the observation of a request; return None if it is not to be observed."""
        if not self.active:
            return None
        parent = str(metadata.get("traceparent", ""))
        sampled = self._traced is not None and self._sampled(parent, self._traced)
        if not (self._everything or sampled):
            return None
        request_id = str(metadata.get("x-request-id", "")) or f"{random.getrandbits(64):016x}"
        return CallObservation(method, peer, request_id, parent, str(metadata.get("tracestate", "")), sampled)

    def end(self, observation: CallObservation, code: int) -> None:
        """End the observation of an answered request."""
        observation.code = code
        observation.total = time.perf_counter_ns() - observation.begun
        if len(self._ended) < CAPACITY:
            self._ended.append(observation)
        else:
            self._lost += 1

    @contextmanager
    def serving(self, observation: CallObservation | None) -> Iterator[None]:
        """Make an observation the current one of this thread; None: its request is not observed."""
        token = CURRENT.set(observation)
        try:
            yield
        finally:
            CURRENT.reset(token)

    def read(self) -> tuple[list[CallObservation], int]:
        """Return the ended observations, and the total number of dropped ones."""
        return [self._ended.popleft() for _ in range(len(self._ended))], self._lost

    def _sampled(self, parent: str, share: float) -> bool:
        match = TRACE_PARENT.fullmatch(parent)
        if match is None or (match["version"] == "00" and match["more"]):
            return random.random() < share  # noqa: S311  not a secret
        return bool(int(match["flags"], 16) & 1)
