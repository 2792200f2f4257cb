"""The native extension module; see `kerve_wire` for the public interface."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, final

import numpy as np
from numpy.typing import NDArray

_Spec = tuple[str, str, Sequence[int | str | None], Sequence[str], bool]
_Material = bytes | str
_Metadata = Sequence[tuple[str, str | bytes]] | None

@final
class Batch:
    """One or more requests that are computed together; completed exactly once, by `reply` or `fail`."""

    @property
    def inputs(self) -> dict[str, NDArray[Any]]:
        """One contiguous read-only array per input: the rows of all requests on axis 0, then padding."""

    @property
    def rows(self) -> int:
        """The number of rows, without padding; 1 for a model without a batch dimension."""

    @property
    def requests(self) -> int:
        """The number of requests; a split request is counted with its first part."""

    @property
    def parts(self) -> int:
        """The number of requests, with each part of a split request counted."""

    @property
    def request_ids(self) -> list[str]:
        """The ids of the requests that have one; empty once the batch is completed."""

    @property
    def active(self) -> bool:
        """Whether any of the requests is not cancelled."""

    @property
    def requested(self) -> frozenset[str] | None:
        """The outputs that any of the requests selects; None for all."""

    @property
    def deadline(self) -> float | None:
        """The earliest deadline, in seconds of `time.monotonic()`."""

    @property
    def parameters(self) -> dict[str, bool | int | float | str]:
        """The parameters of the request; empty if the batch has several requests."""

    def reply(self, outputs: Mapping[str, NDArray[Any] | np.generic]) -> None:
        """Complete the requests with at least the requested outputs, padded like the inputs; never blocks."""

    def fail(self, code: int, message: str) -> None:
        """Complete all requests of the batch with a gRPC error status."""

@final
class Answer:
    """The response to an in-process request."""

    @property
    def token(self) -> Any:
        """The token of the request."""

    @property
    def outputs(self) -> dict[str, NDArray[Any]] | None:
        """The requested outputs, read-only, where possible in the memory of the executor's reply; None on an
        error.
        """

    @property
    def code(self) -> int:
        """The gRPC status code; 0 with outputs."""

    @property
    def message(self) -> str:
        """The error message."""

    @property
    def nanoseconds(self) -> int:
        """The computation time of its batches."""

@final
class Inbox:
    """A queue of responses to in-process requests."""

    def __init__(self) -> None: ...
    def take(self) -> list[Answer] | None:
        """Wait for responses without holding the GIL, and take all that have arrived; None once closed."""

    def close(self) -> None:
        """Close the queue: `take` returns None after the responses that have arrived."""

@final
class Load:
    """A load generator: sends the same unary call repeatedly over one connection without TLS, until it is
    stopped.
    """

    def __init__(
        self,
        address: str,
        path: str,
        metadata: Sequence[tuple[str, str]],
        message: bytes,
        *,
        concurrency: int | None = None,
        request_rate: float | None = None,
    ) -> None:
        """Start to send calls: `concurrency` of them in flight at any time, or with Poisson arrivals at
        `request_rate` per second, whose latency is measured from the time when they were due.
        """

    def take(self, now: float) -> tuple[list[tuple[float, float]], int]:
        """Take the calls that have completed since the previous `take`: for each successful call its end, on
        the clock of `now`, and its latency, in seconds; and the number of failed calls.

        Raises RuntimeError if the server can no longer be reached.
        """

    def stop(self) -> None:
        """Stop sending calls and wait for those in flight."""

@final
class Queue:
    """The queue of one model version, from which its executors take batches."""

    def take(self) -> Batch | Callable[[], None] | None:
        """Wait for work without holding the GIL: a batch or a deferred task; None once the queue is closed
        and empty.
        """

    def defer(self, task: Callable[[], None]) -> bool:
        """Let `take` return a task when no requests are waiting.

        It does not count toward the limits of requests. False if the queue is draining or closed; the task is
        then not kept.
        """

    def ask(
        self,
        inputs: Mapping[str, NDArray[Any]],
        requested: Sequence[str] | None,
        parent: object,
        inbox: object,
        token: object,
    ) -> None:
        """Add an in-process request, made for the requests of the batch `parent`; it is cancelled when all of
        them are, and has the batch's deadline, priority and parameters. Raises TypeError for a batch or an
        `Inbox` of another transport.

        `inputs` must match the signature and must not be written to afterwards. The response is put into the
        inbox with the token.
        """

    def drain(self) -> None:
        """Reject client requests with UNAVAILABLE; waiting and in-process requests are still taken."""

    def close(self) -> None:
        """Reject new requests with UNAVAILABLE; waiting requests are still taken."""

    @property
    def depth(self) -> int:
        """The number of waiting requests."""

    def statistics(self) -> dict[str, Any]:
        """Return the metrics of the queue: counts since its creation, durations in nanoseconds.

        `requests`, `rows`, `batches`, `waiting` (currently), `codes` (requests by status code), and the
        histograms `succeeded`, `failed` (arrival to response), `waited` (arrival to computation) and
        `computed` (of batches), each with `bounds` in microseconds, `counts` and `sum`.
        """

@final
class Observation:
    """The record of one request; times and durations in nanoseconds."""

    @property
    def method(self) -> str:
        """The method's path."""

    @property
    def peer(self) -> str:
        """The client's address, in gRPC's notation."""

    @property
    def request_id(self) -> str:
        """The client's id of the request, or a generated one."""

    @property
    def trace_parent(self) -> str:
        """The caller's `traceparent` (W3C Trace Context)."""

    @property
    def trace_state(self) -> str:
        """The caller's `tracestate`."""

    @property
    def sampled(self) -> bool:
        """Whether the request is traced."""

    @property
    def model(self) -> str:
        """The requested model; empty if the request could not be decoded."""

    @property
    def version(self) -> str:
        """The version that served the request, or the requested version if none did."""

    @property
    def rows(self) -> int:
        """The number of rows."""

    @property
    def batch(self) -> int:
        """The number of rows of the batch that it was computed in."""

    @property
    def code(self) -> int:
        """The gRPC status code."""

    @property
    def arrived(self) -> int:
        """The time of arrival, since the epoch."""

    @property
    def queued(self) -> int | None:
        """Time from arrival to the start of the computation; None if it was not computed."""

    @property
    def computed(self) -> int | None:
        """Computation time of its batch; None if it was not computed."""

    @property
    def total(self) -> int:
        """Time from arrival to response."""

@final
class Call:
    """A call that a servicer serves, unary or streaming in either direction."""

    @property
    def method(self) -> str: ...
    @property
    def metadata(self) -> tuple[tuple[str, str | bytes], ...]: ...
    @property
    def peer(self) -> str: ...
    @property
    def identity(self) -> dict[str, list[bytes]]: ...
    @property
    def id(self) -> int: ...
    def time_remaining(self) -> float | None: ...
    def is_active(self) -> bool: ...
    def complete(self) -> bool: ...
    def watch(self) -> bool: ...
    def cancel(self) -> bool: ...
    def receive(self) -> bytes | None: ...
    def begin(self, metadata: _Metadata, compression: str | None = None) -> bool: ...
    def send(self, message: bytes, compression: str | None = None) -> bool: ...
    def finish(self, code: int, details: str, metadata: _Metadata) -> bool: ...

@final
class Server:
    """A gRPC server."""

    def __init__(self, options: Mapping[str, object]) -> None: ...
    def attach(
        self,
        model: tuple[str, int],
        inputs: Sequence[_Spec],
        outputs: Sequence[_Spec],
        batched: bool,
        options: Mapping[str, object],
    ) -> Queue: ...
    def publish(self, name: str, routes: Mapping[str, Queue], unready: Mapping[str, str]) -> None: ...
    def unpublish(self, name: str) -> None: ...
    def set_tokens(self, known: Mapping[bytes, bool]) -> None: ...
    def listen(
        self,
        address: str,
        credentials: tuple[_Material, _Material, _Material | None, bool] | None = None,
    ) -> int: ...
    def listen_http(self, address: str, application: str, inference: bool) -> int: ...
    def start(self) -> None: ...
    def stop(self, grace: float) -> None: ...
    def observe(self, everything: bool, traced: float | None) -> None: ...
    def observations(self, limit: int) -> tuple[list[Observation], int]: ...
    def next_event(self) -> tuple[Literal["begun", "complete", "ended"], Call] | None: ...
    def statistics(self) -> dict[str, Any]: ...
