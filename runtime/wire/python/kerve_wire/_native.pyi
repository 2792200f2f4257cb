"""The native half; see `kerve_wire` for the public one."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, final

import numpy as np
from numpy.typing import NDArray

_Spec = tuple[str, str, Sequence[int | str | None], Sequence[str], bool]
_Material = bytes | str
_Metadata = Sequence[tuple[str, str | bytes]] | None

@final
class Batch:
    """One or more requests that are computed together; answered exactly once, by `reply` or by `fail`."""

    @property
    def inputs(self) -> dict[str, NDArray[Any]]:
        """One contiguous read-only array per input: the rows of all requests on axis 0, then padding."""

    @property
    def rows(self) -> int:
        """Rows of the batch dimension, without padding; 1 for a model without one."""

    @property
    def requests(self) -> int:
        """How many requests are in it; one that was split is counted with its first part."""

    @property
    def parts(self) -> int:
        """How many requests, or parts of one that was split, are in it."""

    @property
    def request_ids(self) -> list[str]:
        """The ids of the requests, as far as they have any; none once they are answered."""

    @property
    def active(self) -> bool:
        """Whether anybody waits for an answer."""

    @property
    def requested(self) -> frozenset[str] | None:
        """The outputs that anyone in the batch asked for; None: all."""

    @property
    def deadline(self) -> float | None:
        """The earliest deadline, in seconds of `time.monotonic()`."""

    @property
    def parameters(self) -> dict[str, bool | int | float | str]:
        """The request's parameters; empty when the batch holds several requests."""

    def reply(self, outputs: Mapping[str, NDArray[Any] | np.generic]) -> None:
        """Answer with at least the requested outputs, padded as the inputs are; returns at once."""

    def fail(self, code: int, message: str) -> None:
        """Answer every request of the batch with a gRPC status."""

@final
class Answer:
    """The answer to a request of the server itself."""

    @property
    def token(self) -> Any:
        """What was asked with it."""

    @property
    def outputs(self) -> dict[str, NDArray[Any]] | None:
        """The outputs that were asked for, read-only, in the memory that the model's executor replied with
        where that can be; None when something went wrong.
        """

    @property
    def code(self) -> int:
        """The gRPC status; 0 with outputs."""

    @property
    def message(self) -> str:
        """What went wrong."""

    @property
    def nanoseconds(self) -> int:
        """How long its batches were computed."""

@final
class Inbox:
    """Where answers to requests of the server itself wait."""

    def __init__(self) -> None: ...
    def take(self) -> list[Answer] | None:
        """Wait without holding the GIL for answers, and take all that are there; None once closed."""

    def close(self) -> None:
        """Let `take` return None behind what is there."""

@final
class Load:
    """Sends one and the same unary call to a server without TLS, over one connection, from when it is made
    until it is stopped: for measurements.
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
        """`concurrency`: calls in flight at any time; or `request_rate`: Poisson arrivals per second, whose
        latency is measured from when they were due.
        """

    def take(self, now: float) -> tuple[list[tuple[float, float]], int]:
        """Take what has ended since the last time: of the calls that succeeded when, by the clock that says
        `now`, and how long they took, in seconds; and how many failed.

        RuntimeError when the server cannot be reached any more.
        """

    def stop(self) -> None:
        """Begin no more calls, and wait for those under way."""

@final
class Queue:
    """Where the requests of one model version wait for its executors."""

    def take(self) -> Batch | Callable[[], None] | None:
        """Wait for work without holding the GIL: a batch, or what was deferred; None once the queue is closed
        and empty.
        """

    def defer(self, task: Callable[[], None]) -> bool:
        """Let `take` return this when no request waits, outside the limits of requests.

        False once the queue is closed, and the task is not kept.
        """

    def ask(
        self,
        inputs: Mapping[str, NDArray[Any]],
        requested: Sequence[str] | None,
        parent: object,
        inbox: object,
        token: object,
    ) -> None:
        """Let a request of the server itself wait, for as long as the batch that it helps to answer is
        wanted; it has that batch's deadline, priority and parameters. TypeError for a batch or an
        `Inbox` of another transport.

        `inputs` fit the signature, and are not written to any more. The answer comes to the inbox, with the
        token.
        """

    def drain(self) -> None:
        """Refuse what clients send with UNAVAILABLE; what the server itself asks still waits and is taken."""

    def close(self) -> None:
        """Refuse new requests with UNAVAILABLE; what waits is still taken."""

    @property
    def depth(self) -> int:
        """The number of requests that wait."""

    def statistics(self) -> dict[str, Any]:
        """Return what has happened here: numbers since the beginning, durations in nanoseconds.

        `requests`, `rows`, `batches`, `waiting` (now), `codes` (requests by the status they ended with), and
        the histograms `succeeded`, `failed` (arrival to answer), `waited` (arrival to computation) and
        `computed` (of batches), each with `bounds` in microseconds, `counts` and `sum`.
        """

@final
class Observation:
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

@final
class Call:
    """One call of a servicer, of any of the four kinds."""

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
