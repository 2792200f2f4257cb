"""The seam between what carries requests and what computes them.

    client -> transport -> queue of a model version -> batch -> executor thread -> model -> reply

A transport owns bytes: connections, decoding, validation against the signature, queues, deadlines,
encoding. The runtime owns models: it attaches a queue for each version it has loaded, publishes routes to
it, and runs executor threads that take batches and reply. Transports differ in speed only; see
`transport/grpcio.py` for the reference.

Tensors on this seam are NumPy arrays as `kerve.runtime.datatypes` describes them. What a transport refuses,
it refuses with the errors and the texts of `kerve.runtime.signature`.
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

# The route of requests that name no version.
DEFAULT = ""


@dataclass(frozen=True)
class ServedModel:
    """What a transport must know of a model version to serve it."""

    name: str
    version: int
    signature: Signature
    batching: Batching = field(default_factory=Batching)
    # Whether requests of inference for it go to what `add_cold` was given.
    cold: bool = False


@dataclass(frozen=True, kw_only=True)
class TransportOptions:
    """How a transport is made."""

    interceptors: tuple[grpc.ServerInterceptor, ...] = ()
    # Bytes of a message at most; the default, 2 GB - 1, is the most that gRPC and protobuf carry.
    max_message_bytes: int = 2**31 - 1
    # Connections that may be open; None: any number.
    max_connections: int | None = None
    # Whether tensors in shared memory go to what `add_cold` was given.
    shared_memory: bool = False
    # How often each client may ask for inference.
    rate: RateLimit | None = None


class Batch(Protocol):
    """One or more requests that are computed together; answered exactly once, by `reply` or by `fail`."""

    @property
    def inputs(self) -> Mapping[str, Array]:
        """One contiguous array per input, the rows of all requests stacked on axis 0."""

    @property
    def rows(self) -> int:
        """Rows of the batch dimension; 1 for a model without one."""

    @property
    def requests(self) -> int:
        """How many requests are in it; one that was split is counted with its first part."""

    @property
    def parts(self) -> int:
        """How many requests, or parts of one that was split, are in it."""

    @property
    def request_ids(self) -> Sequence[str]:
        """The ids of the requests, as far as they have any and are known: an answered batch may have none."""

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
    def parameters(self) -> Mapping[str, Any]:
        """The request's parameters; empty when the batch holds several requests."""

    def reply(self, outputs: Mapping[str, Array]) -> None:
        """Answer with at least the requested outputs; returns at once."""

    def fail(self, code: int, message: str) -> None:
        """Answer every request of the batch with a gRPC status."""


class Answer(Protocol):
    """The answer to an in-process request."""

    @property
    def token(self) -> Any:
        """The token of the request."""

    @property
    def outputs(self) -> Mapping[str, Array] | None:
        """The outputs that were asked for, without a copy where that can be; None when something went
        wrong.
        """

    @property
    def code(self) -> int:
        """The gRPC status."""

    @property
    def message(self) -> str:
        """What went wrong."""

    @property
    def nanoseconds(self) -> int:
        """How long it was computed."""


class Inbox(Protocol):
    """A queue of answers to in-process requests."""

    def take(self) -> Sequence[Answer] | None:
        """Wait for answers without holding the GIL, and take all that are there; None once closed."""

    def close(self) -> None:
        """Let `take` return None behind what is there."""


# A task that an executor runs when no request waits; it raises nothing.
Deferred = Callable[[], None]


class Queue(Protocol):
    """Where the requests of one model version wait for its executors."""

    def defer(self, task: Deferred) -> bool:
        """Let `take` return this when no request waits; it counts against no limit.

        Tasks are taken in order. False once the queue is closed, and the task is not kept.
        """

    def take(self) -> Batch | Deferred | None:
        """Wait for work without holding the GIL; None once the queue is closed and empty.

        Expired and cancelled requests are answered here, not returned.
        """

    def ask(
        self,
        inputs: Mapping[str, Array],
        requested: Sequence[str] | None,
        parent: Batch,
        inbox: Inbox,
        token: object,
    ) -> None:
        """Add an in-process request, made for the requests of a batch, with their deadline, priority and
        parameters; it is cancelled when they all are.

        `inputs` fit the signature and are not written to any more. Everything that can go wrong is an answer
        too: it comes to the inbox, which is of the same transport, with the token.
        """

    def drain(self) -> None:
        """Refuse clients' requests with UNAVAILABLE; what waits and what `ask` adds is still taken."""

    def close(self) -> None:
        """Refuse new requests with UNAVAILABLE; what waits is still taken."""

    def statistics(self) -> dict[str, Any]:
        """Return what has happened here: numbers since the beginning, durations in nanoseconds.

        `requests`, `rows`, `batches`, `waiting` (now), `codes` (requests by the status they ended with), and
        the histograms `succeeded`, `failed` (arrival to answer), `waited` (arrival to computation) and
        `computed` (of batches), each with `bounds` in microseconds, `counts` and `sum`.
        """


class ColdPath(Protocol):
    """Answers requests that queues cannot: those of sequences, in shared memory, or with a cache."""

    def ModelInfer(self, request: Any, context: grpc.ServicerContext, /) -> Any:  # noqa: N802  the protocol's name
        """Answer a call of the Open Inference Protocol."""

    def Predict(self, request: Any, context: grpc.ServicerContext, /) -> Any:  # noqa: N802  the protocol's name
        """Answer a call of TensorFlow Serving's."""

    def answer(self, request: Any, context: grpc.ServicerContext, /) -> Any:
        """Answer a request of ModelInfer, be it a call or one of a stream; raises ServingError."""


class Transport(Protocol):
    """A gRPC server: hosts servicers written for grpcio, and carries inference itself."""

    @property
    def name(self) -> str:
        """What the ready line calls it."""

    @property
    def observer(self) -> Observer:
        """Notes what Python serves: part of `observations`, too."""

    def attach(self, served: ServedModel) -> Queue:
        """Make a queue for a model version; it gets requests once it is published."""

    def inbox(self) -> Inbox:
        """Make a place for the answers to `Queue.ask`."""

    def publish(
        self, name: str, routes: Mapping[str, Queue], unready: Mapping[str, str] | None = None
    ) -> None:
        """Route the model's requests, all at once: DEFAULT for no version, "3" for version 3, or a label.

        Without routes the model is known but not ready, and its requests are refused with UNAVAILABLE; and
        so are those for a version or label of `unready`, which says why.
        """

    def unpublish(self, name: str) -> None:
        """Forget a model: its requests are refused with NOT_FOUND."""

    def add_generic_rpc_handlers(self, generic_rpc_handlers: Sequence[grpc.GenericRpcHandler]) -> None:
        """Host a service; called by grpcio's generated code."""

    def add_registered_method_handlers(
        self, service_name: str, method_handlers: Mapping[str, grpc.RpcMethodHandler[Any, Any]]
    ) -> None:
        """Host a service by its methods; called by grpcio's generated code."""

    def add_cold(self, cold: ColdPath) -> None:
        """Let requests of inference, of a stream too, be answered where a queue cannot: for models that say
        so, and for tensors in shared memory, which are refused otherwise.
        """

    def add_insecure_port(self, address: str) -> int:
        """Listen on `host:port` without encryption; return the port, which the system chooses for port 0."""

    def add_secure_port(self, address: str, certificates: Certificates) -> int:
        """Listen on `host:port` with TLS; return the port."""

    def add_http_port(self, address: str, application: Path, *, inference: bool) -> int | None:
        """Listen on `host:port` for HTTP in front of an application on a UNIX socket; return the port.

        Inference is answered here where `inference` says so, and whatever else comes is handed to the
        application, with the client's address in `Forwarded` (RFC 7239). None: this transport speaks gRPC
        only, and nobody listens.
        """

    def set_tokens(self, infer: Mapping[bytes, bool]) -> None:
        """Let inference in only with a bearer token: by its SHA-256, whether it permits that.

        What else is hosted is for the interceptors of `TransportOptions` to let in.
        """

    def observe(self, *, everything: bool, traced: float | None) -> None:
        """Observe every request from now on, or those that are traced.

        A request is traced when its caller traces it (W3C's `traceparent`); where the caller says nothing,
        `traced` is the share of requests that are. None: none is.
        """

    def observations(self) -> tuple[Sequence[Observation], int]:
        """Return the requests that have ended since the last call, and how many were dropped because
        nobody read them in time.
        """

    def start(self) -> None:
        """Begin to accept connections."""

    def stop(self, grace: float | None) -> threading.Event:
        """Refuse new requests, give those in flight `grace` seconds, then end every call and connection.

        Calls that never end of themselves (health's Watch, reflection) are ended as soon as no inference is
        left. The event is set when all is over.
        """

    def wait_for_termination(self, timeout: float | None = None) -> bool:
        """Wait until stopped; return whether the time was over first."""
