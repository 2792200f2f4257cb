"""The interface between transports, which carry requests, and the runtime, which computes them.

    client -> transport -> queue of a model version -> batch -> executor thread -> model -> reply

A transport handles connections, decoding, validation against the signature, queues, deadlines and encoding.
The runtime handles models: it attaches a queue for each version that it has loaded, publishes routes to it,
and runs executor threads that take batches and reply. Transports differ only in speed; `transport/grpcio.py`
is the reference.

Tensors in this interface are NumPy arrays as described in `kerve.runtime.datatypes`. A transport refuses
requests with the errors and messages of `kerve.runtime.signature`.
"""

from __future__ import annotations  # grpc's classes take type arguments in the stubs only

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import grpc

from kerve.runtime.datatypes import Array
from kerve.runtime.observation.observer import Observation, Observer
from kerve.runtime.security.tls import Certificates
from kerve.runtime.signature import Signature
from kerve.runtime.transport.batching import Batching
from kerve.runtime.transport.rates import RateLimit

__all__ = [
    "DEFAULT",
    "Answer",
    "Batch",
    "ColdPath",
    "Deferred",
    "Inbox",
    "Queue",
    "ServedModel",
    "Transport",
    "TransportOptions",
]

# The route of requests without a version.
DEFAULT = ""


@dataclass(frozen=True)
class ServedModel:
    """The properties of a model version that a transport needs to serve it."""

    name: str
    version: int
    signature: Signature
    batching: Batching = field(default_factory=Batching)
    # Whether its inference requests go to the cold path (`add_cold`).
    cold: bool = False


@dataclass(frozen=True, kw_only=True)
class TransportOptions:
    """Options of a transport."""

    interceptors: tuple[grpc.ServerInterceptor, ...] = ()
    # Maximum bytes of a message; the default, 2 GB - 1, is the maximum of gRPC and protobuf.
    max_message_bytes: int = 2**31 - 1
    # Maximum number of open connections; None: unlimited.
    max_connections: int | None = None
    # Whether requests with tensors in shared memory go to the cold path (`add_cold`).
    shared_memory: bool = False
    # Rate limit of each client's inference requests.
    rate: RateLimit | None = None


class Batch(Protocol):
    """One or more requests that are computed together; answered exactly once, with `reply` or `fail`."""

    @property
    def inputs(self) -> Mapping[str, Array]:
        """One contiguous array per input, the rows of all requests stacked on axis 0."""

    @property
    def rows(self) -> int:
        """Size of the batch dimension; 1 for a model without one."""

    @property
    def requests(self) -> int:
        """Number of requests; a split request is counted with its first part."""

    @property
    def parts(self) -> int:
        """Number of requests or parts of split requests."""

    @property
    def request_ids(self) -> Sequence[str]:
        """The ids of the requests that have one; may be empty for an answered batch."""

    @property
    def active(self) -> bool:
        """Whether any client still waits for a response."""

    @property
    def requested(self) -> frozenset[str] | None:
        """The outputs requested by any request of the batch; None: all."""

    @property
    def deadline(self) -> float | None:
        """The earliest deadline, as a time of `time.monotonic()`."""

    @property
    def parameters(self) -> Mapping[str, Any]:
        """The request's parameters; empty if the batch has several requests."""

    def reply(self, outputs: Mapping[str, Array]) -> None:
        """Answer with at least the requested outputs; does not block."""

    def fail(self, code: int, message: str) -> None:
        """Answer every request of the batch with a gRPC status."""


class Answer(Protocol):
    """The answer to an in-process request."""

    @property
    def token(self) -> Any:
        """The token of the request."""

    @property
    def outputs(self) -> Mapping[str, Array] | None:
        """The requested outputs, without a copy if possible; None on an error."""

    @property
    def code(self) -> int:
        """The gRPC status."""

    @property
    def message(self) -> str:
        """The error message."""

    @property
    def nanoseconds(self) -> int:
        """The computation time."""


class Inbox(Protocol):
    """A queue of answers to in-process requests."""

    def take(self) -> Sequence[Answer] | None:
        """Wait for answers without holding the GIL, and take all available ones; None once closed."""

    def close(self) -> None:
        """Let `take` return None after the available answers."""


# A task that an executor runs when no request is waiting; it must not raise.
Deferred = Callable[[], None]


class Queue(Protocol):
    """The queue in which requests of one model version wait for its executors."""

    def defer(self, task: Deferred) -> bool:
        """Let `take` return a task when no request is waiting; tasks do not count towards any limit.

        Tasks are taken in order. Returns False, and drops the task, once the queue is closed.
        """

    def take(self) -> Batch | Deferred | None:
        """Wait for work without holding the GIL; None once the queue is closed and empty.

        Expired and cancelled requests are answered by the queue, not returned.
        """

    def ask(
        self,
        inputs: Mapping[str, Array],
        requested: Sequence[str] | None,
        parent: Batch,
        inbox: Inbox,
        token: object,
    ) -> None:
        """Add an in-process request on behalf of the requests of a batch, with their deadline, priority and
        parameters; it is cancelled when all of them are.

        `inputs` must fit the signature and must not be modified any more. The answer, also if it is an
        error, is put into the inbox, which belongs to the same transport, with the token.
        """

    def drain(self) -> None:
        """Refuse clients' requests with UNAVAILABLE; waiting requests and those of `ask` are still taken."""

    def close(self) -> None:
        """Refuse new requests with UNAVAILABLE; waiting requests are still taken."""

    def statistics(self) -> dict[str, Any]:
        """Return the statistics of the queue since its creation, with durations in nanoseconds.

        `requests`, `rows`, `batches`, `waiting` (current), `codes` (requests by final status), and the
        histograms `succeeded`, `failed` (arrival to response), `waited` (arrival to computation) and
        `computed` (of batches), each with `bounds` in microseconds, `counts` and `sum`.
        """


class ColdPath(Protocol):
    """Answers requests that queues cannot: those of sequences, with shared memory, or with a cache."""

    def ModelInfer(self, request: Any, context: grpc.ServicerContext, /) -> Any:  # noqa: N802  the protocol's name
        """Answer a call of the Open Inference Protocol."""

    def Predict(self, request: Any, context: grpc.ServicerContext, /) -> Any:  # noqa: N802  the protocol's name
        """Answer a call of TensorFlow Serving's."""

    def answer(self, request: Any, context: grpc.ServicerContext, /) -> Any:
        """Answer a request of ModelInfer or of a stream; raises ServingError."""


class Transport(Protocol):
    """A gRPC server: hosts servicers written for grpcio, and handles inference itself."""

    @property
    def name(self) -> str:
        """Its name in the ready line."""

    @property
    def observer(self) -> Observer:
        """Records the requests that are served in Python; they are also part of `observations`."""

    def attach(self, served: ServedModel) -> Queue:
        """Create a queue for a model version; it receives requests once published."""

    def inbox(self) -> Inbox:
        """Create an inbox for the answers to `Queue.ask`."""

    def publish(
        self, name: str, routes: Mapping[str, Queue], unready: Mapping[str, str] | None = None
    ) -> None:
        """Set all routes of a model at once: DEFAULT for no version, "3" for version 3, or a label.

        Without routes the model is known but not ready, and its requests are refused with UNAVAILABLE, as
        are those for a version or label in `unready`, which gives the reasons.
        """

    def unpublish(self, name: str) -> None:
        """Remove a model: its requests are refused with NOT_FOUND."""

    def add_generic_rpc_handlers(self, generic_rpc_handlers: Sequence[grpc.GenericRpcHandler]) -> None:
        """Host a service; called by grpcio's generated code."""

    def add_registered_method_handlers(
        self, service_name: str, method_handlers: Mapping[str, grpc.RpcMethodHandler[Any, Any]]
    ) -> None:
        """Host a service by its methods; called by grpcio's generated code."""

    def add_cold(self, cold: ColdPath) -> None:
        """Set the cold path for inference requests, including those of streams, that a queue cannot answer:
        for models with `cold`, and for tensors in shared memory, which are refused without it.
        """

    def add_insecure_port(self, address: str) -> int:
        """Listen on `host:port` without encryption; return the port, which the system chooses if it is 0."""

    def add_secure_port(self, address: str, certificates: Certificates) -> int:
        """Listen on `host:port` with TLS; return the port."""

    def add_http_port(self, address: str, application: Path, *, inference: bool) -> int | None:
        """Listen on `host:port` for HTTP, as a proxy of an application on a UNIX socket; return the port.

        With `inference`, the transport answers inference itself; other requests are forwarded to the
        application, with the client's address in `Forwarded` (RFC 7239). Returns None, without listening,
        if this transport supports only gRPC.
        """

    def set_tokens(self, infer: Mapping[bytes, bool]) -> None:
        """Require a bearer token for inference: `infer` maps its SHA-256 to whether it permits inference.

        Access to other methods is checked by the interceptors of `TransportOptions`.
        """

    def observe(self, *, everything: bool, traced: float | None) -> None:
        """Observe every request from now on, or only traced ones.

        A request is traced if its caller traces it (W3C `traceparent`); without that header, `traced` is the
        share of requests that are traced. None: none is traced.
        """

    def observations(self) -> tuple[Sequence[Observation], int]:
        """Return the requests that ended since the last call, and the total number of observations that were
        dropped because they were not read in time.
        """

    def start(self) -> None:
        """Start accepting connections."""

    def stop(self, grace: float | None) -> threading.Event:
        """Refuse new requests, give those in flight `grace` seconds, then end every call and connection.

        Calls that never end on their own (health's Watch, reflection) are ended as soon as no inference is
        in flight. The event is set when everything has ended.
        """

    def wait_for_termination(self, timeout: float | None = None) -> bool:
        """Wait until stopped; return True on timeout."""
