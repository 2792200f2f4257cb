"""grpcio's server interface on the native server."""

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
    """What a TLS port needs; a path is a PEM file that is read again when it changes, bytes are PEM.

    (grpcio's own `ssl_server_credentials` cannot be read from Python.)
    """

    private_key: bytes | os.PathLike[str]
    certificate_chain: bytes | os.PathLike[str]
    # The certificates that vouch for clients; None: clients need none.
    root_certificates: bytes | os.PathLike[str] | None = None
    require_client_auth: bool = False


class Server(grpc.Server):
    """A gRPC server: hosts servicers in a small pool of threads, and serves inference natively.

    Threads start when they are needed, up to `max_threads`; a call keeps its thread to its end.
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
        """Make a queue for a model version; it gets requests once it is published.

        `batched`: axis 0 of all inputs and outputs is the same free dimension, along which requests may be
        stacked.
        """
        specs = [[astuple(spec) for spec in specs] for specs in (inputs, outputs)]
        fields = (options or QueueOptions()).fields()
        return self._native.attach((name, version), specs[0], specs[1], batched, fields)

    def publish(
        self, name: str, routes: Mapping[str, _native.Queue], unready: Mapping[str, str] | None = None
    ) -> None:
        """Route a model's requests, all at once: "" for no version, "3" for version 3, or a label.

        Without routes the model is known but not ready, and its requests are refused with UNAVAILABLE, and
        so are those for what is in `unready`, which says why.
        """
        self._native.publish(name, dict(routes), dict(unready or {}))

    def unpublish(self, name: str) -> None:
        """Forget a model: its requests are refused with NOT_FOUND."""
        self._native.unpublish(name)

    def set_tokens(self, known: Mapping[bytes, bool]) -> None:
        """Let native calls in only with a bearer token from now on; by its SHA-256, whether it permits
        inference.

        Calls of servicers are for interceptors to check.
        """
        self._native.set_tokens(dict(known))

    def observe(self, *, everything: bool, traced: float | None) -> None:
        """Note what becomes of native requests: of every one, or of those that are traced.

        A request is traced when its caller traces it (W3C's `traceparent`); where the caller says nothing,
        `traced` is the share of requests that are. None: none is.
        """
        self._native.observe(everything, traced)

    def observations(self, limit: int = 4096) -> tuple[list[_native.Observation], int]:
        """Return the native requests that have ended since the last look, up to a limit, and how many
        observations have been lost since the beginning because nobody looked in time.
        """
        return self._native.observations(limit)

    def statistics(self) -> dict[str, Any]:
        """Return what happens in the server; see `Queue.statistics` for its models."""
        return self._native.statistics()

    # grpcio's interface.

    def add_generic_rpc_handlers(self, generic_rpc_handlers: Iterable[grpc.GenericRpcHandler]) -> None:
        """Host services."""
        self._services.add_generic(generic_rpc_handlers)

    def add_registered_method_handlers(
        self, service_name: str, method_handlers: Mapping[str, Handler]
    ) -> None:
        """Host a service by its methods."""
        self._services.add_registered(service_name, method_handlers)

    def add_insecure_port(self, address: str) -> int:
        """Listen without encryption; return the port. RuntimeError when the address cannot be had."""
        return self._native.listen(address)

    def add_secure_port(self, address: str, server_credentials: grpc.ServerCredentials | Credentials) -> int:
        """Listen with TLS; return the port. RuntimeError when the address cannot be had."""
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
        """Listen for HTTP; return the port. RuntimeError when the address cannot be had.

        Inference by the Open Inference Protocol is served natively; everything else is handed to the
        application that speaks HTTP on a UNIX socket, which learns of the client in `Forwarded` (RFC 7239).
        `inference`: False leaves that to the application, too.
        """
        return self._native.listen_http(address, os.fspath(application), inference)

    def start(self) -> None:
        """Begin to accept connections."""
        self._native.start()
        self._pool.start()

    def stop(self, grace: float | None) -> threading.Event:
        """Refuse new work, give inference in flight `grace` seconds, then end every call and connection."""

        def stop() -> None:
            self._native.stop(grace or 0.0)
            self._stopped.set()

        if self._stopping.acquire(blocking=False):
            threading.Thread(target=stop, name="kerve-wire-stop").start()
        return self._stopped

    def wait_for_termination(self, timeout: float | None = None) -> bool:
        """Wait until stopped; return whether the time was over first."""
        return not self._stopped.wait(timeout)
