"""Implements grpcio's server interface with the native server."""

import os
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass
from typing import Any

import grpc

from kerve_wire import _native
from kerve_wire._calls import Handler
from kerve_wire._hosting import Pool, Services
from kerve_wire._options import QueueOptions, ServerOptions, TensorSpec

__all__ = ["Credentials", "Server"]


@dataclass(frozen=True)
class Credentials:
    """The credentials of a TLS port: each the path of a PEM file, which is reloaded when it changes, or PEM.

    (grpcio's own `ssl_server_credentials` cannot be read from Python.)
    """

    private_key: bytes | os.PathLike[str]
    certificate_chain: bytes | os.PathLike[str]
    # Root certificates for verifying clients; None: clients need no certificate.
    root_certificates: bytes | os.PathLike[str] | None = None
    require_client_auth: bool = False


class Server(grpc.Server):
    """A gRPC server that hosts servicers in a small pool of threads, and serves inference natively.

    Threads are started on demand, up to `max_threads`; a call occupies its thread until it ends.
    """

    def __init__(
        self,
        options: ServerOptions | None = None,
        *,
        max_threads: int = 64,
        interceptors: Sequence[grpc.ServerInterceptor] = (),
    ) -> None:
        options = options or ServerOptions()
        self._native = _native.Server(options.fields())
        self._services = Services(interceptors)
        self._pool = Pool(self._native, self._services, max_threads, options.compression)
        self._stopped = threading.Event()
        self._stopping = threading.Lock()

    # Inference.

    def attach(
        self,
        name: str,
        version: int,
        inputs: Sequence[TensorSpec],
        outputs: Sequence[TensorSpec],
        *,
        batched: bool,
        options: QueueOptions | None = None,
    ) -> _native.Queue:
        """Create the queue of a model version; it receives requests once it is published.

        `batched`: axis 0 of all inputs and outputs is the same free dimension, along which requests can be
        batched.
        """
        specs = [[astuple(spec) for spec in specs] for specs in (inputs, outputs)]
        fields = (options or QueueOptions()).fields()
        return self._native.attach((name, version), specs[0], specs[1], batched, fields)

    def publish(
        self, name: str, routes: Mapping[str, _native.Queue], unready: Mapping[str, str] | None = None
    ) -> None:
        """Publish the routes of all versions of a model, by version ("" for the default, "3") or label.

        Without routes the model is known but not ready: its requests are rejected with UNAVAILABLE, as are
        those for the versions and labels in `unready`, which maps them to the reason.
        """
        self._native.publish(name, dict(routes), dict(unready or {}))

    def unpublish(self, name: str) -> None:
        """Remove the routes of a model: its requests are rejected with NOT_FOUND."""
        self._native.unpublish(name)

    def set_tokens(self, known: Mapping[bytes, bool]) -> None:
        """Require a bearer token of native calls from now on; `known` maps its SHA-256 to whether it permits
        inference.

        Calls of servicers must be checked by interceptors.
        """
        self._native.set_tokens(dict(known))

    def observe(self, *, everything: bool, traced: float | None) -> None:
        """Set which native requests are observed: all, or those that are traced.

        A request is traced if its caller samples it (`traceparent`, W3C Trace Context); without a decision of
        the caller, at the sampling rate `traced`. None: no request is traced.
        """
        self._native.observe(everything, traced)

    def observations(self, limit: int = 4096) -> tuple[list[_native.Observation], int]:
        """Take up to `limit` observations of native requests that have ended; also return how many were
        dropped so far because they were not read in time.
        """
        return self._native.observations(limit)

    def statistics(self) -> dict[str, Any]:
        """Return the metrics of the server; see `Queue.statistics` for those of models."""
        return self._native.statistics()

    # grpcio's interface.

    def add_generic_rpc_handlers(self, generic_rpc_handlers: Iterable[grpc.GenericRpcHandler]) -> None:
        """Host the services of generic handlers."""
        self._services.add_generic(generic_rpc_handlers)

    def add_registered_method_handlers(
        self, service_name: str, method_handlers: Mapping[str, Handler]
    ) -> None:
        """Host a service, given the handlers of its methods."""
        self._services.add_registered(service_name, method_handlers)

    def add_insecure_port(self, address: str) -> int:
        """Listen without TLS; return the port. Raises RuntimeError if the address cannot be bound."""
        return self._native.listen(address)

    def add_secure_port(self, address: str, server_credentials: grpc.ServerCredentials | Credentials) -> int:
        """Listen with TLS; return the port. Raises RuntimeError if the address cannot be bound."""
        if not isinstance(server_credentials, Credentials):
            raise TypeError(
                f"expected kerve_wire.Credentials, got {type(server_credentials).__name__}: "
                "grpcio's credentials cannot be read from Python"
            )
        given = server_credentials
        material = [
            each if each is None or isinstance(each, bytes) else os.fspath(each)
            for each in (given.private_key, given.certificate_chain, given.root_certificates)
        ]
        key, chain, roots = material
        assert key is not None
        assert chain is not None
        return self._native.listen(address, (key, chain, roots, given.require_client_auth))

    def add_http_port(
        self, address: str, application: str | os.PathLike[str], *, inference: bool = True
    ) -> int:
        """Listen for HTTP; return the port. Raises RuntimeError if the address cannot be bound.

        Inference by the Open Inference Protocol and by TensorFlow Serving's REST API is served natively,
        unless `inference` is False; all other requests are forwarded to the application that speaks HTTP on a
        UNIX socket, with the client's address in `Forwarded` (RFC 7239).
        """
        return self._native.listen_http(address, os.fspath(application), inference)

    def start(self) -> None:
        """Start to accept connections."""
        self._native.start()
        self._pool.start()

    def stop(self, grace: float | None) -> threading.Event:
        """Reject new requests, give inference in flight `grace` seconds, then end calls and connections."""

        def stop() -> None:
            self._native.stop(grace or 0.0)
            self._stopped.set()

        if self._stopping.acquire(blocking=False):
            threading.Thread(target=stop, name="kerve-wire-stop").start()
        return self._stopped

    def wait_for_termination(self, timeout: float | None = None) -> bool:
        """Wait until the server has stopped; return whether the timeout passed first."""
        return not self._stopped.wait(timeout)
