"""The portable reference transport: grpcio's server, threads, one request per batch."""

from __future__ import annotations  # grpc's classes take type arguments in the stubs only

import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc

from kerve.runtime import rpc
from kerve.runtime.catalog import Catalog
from kerve.runtime.errors import SHUTTING_DOWN, UnavailableError, UnimplementedError
from kerve.runtime.observation.interceptor import ObservingInterceptor
from kerve.runtime.observation.observer import Observation, Observer
from kerve.runtime.protocol import oip, tfs
from kerve.runtime.security.tls import Certificates, grpcio_credentials
from kerve.runtime.servicers.concurrency import ConcurrencyLimit
from kerve.runtime.servicers.infer import InferServicer, InFlight
from kerve.runtime.servicers.predict import PredictServicer
from kerve.runtime.transport.base import ColdPath, Queue, ServedModel, TransportOptions
from kerve.runtime.transport.local_inbox import LocalInbox
from kerve.runtime.transport.local_queue import LocalQueue
from kerve.runtime.transport.rates import RateLimiter, RateLimitInterceptor

__all__ = ["GrpcioTransport"]

# An inference call occupies a thread until it is answered, so this limits the waiting calls over all models.
# Threads are started on demand. All other methods have separate threads, so that health and metadata are
# answered while inference is overloaded.
INFERENCE_THREADS = 512
OTHER_THREADS = 16

# Maximum bytes of a call's metadata, as in the native transport.
MOST_METADATA = 16 * 1024

OPTIONS = [
    ("grpc.max_send_message_length", 2**31 - 1),
    # A second server on the same port must fail instead of receiving half of the connections.
    ("grpc.so_reuseport", 0),
    # Between its soft and hard limit, grpcio rejects at random: equal limits make it deterministic.
    ("grpc.max_metadata_size", MOST_METADATA),
    ("grpc.absolute_max_metadata_size", MOST_METADATA),
]


class GrpcioTransport:
    """A `Transport` on `grpc.Server`."""

    name = "grpcio"

    def __init__(self, options: TransportOptions | None = None) -> None:
        options = options or TransportOptions()
        if options.max_connections is not None:
            raise UnimplementedError("grpcio does not support --max-connections; use --transport wire")
        self._routes: Catalog[LocalQueue] = Catalog()
        self._draining = False
        self.observer = Observer()
        self._rate_limiter = RateLimiter(options.rate)
        self._server = grpc.server(
            ThreadPoolExecutor(OTHER_THREADS, "rpc"),
            interceptors=[
                ObservingInterceptor(self.observer),
                *options.interceptors,
                RateLimitInterceptor(self._rate_limiter),
            ],
            options=[*OPTIONS, ("grpc.max_receive_message_length", options.max_message_bytes)],
        )
        self._in_flight = InFlight()
        cold_limit = ConcurrencyLimit(INFERENCE_THREADS // 2)
        self._infer = infer = InferServicer(
            self._route, self._in_flight, self.observer, self._rate_limiter, cold_limit
        )
        pool = ThreadPoolExecutor(INFERENCE_THREADS, "infer")
        methods = {
            name: rpc.in_pool(method, pool) for name, method in rpc.methods_of(oip.SERVICE, infer).items()
        }
        rpc.add_service(self, oip.SERVICE, methods)
        self._predict = PredictServicer(self._route, self._in_flight, self._rate_limiter, cold_limit)
        predict = rpc.in_pool(self._predict.Predict, pool)
        rpc.add_service(self, tfs.PREDICTION_SERVICE, {"Predict": predict})

    def _route(self, name: str, version: str) -> LocalQueue:
        if self._draining:
            raise UnavailableError(SHUTTING_DOWN)
        return self._routes.find(name, version)

    def attach(self, served: ServedModel) -> LocalQueue:
        """Create a queue for a model version."""
        return LocalQueue(served)

    def inbox(self) -> LocalInbox:
        """Create an inbox for the answers to `Queue.ask`."""
        return LocalInbox()

    def publish(
        self, name: str, routes: Mapping[str, Queue], unready: Mapping[str, str] | None = None
    ) -> None:
        """Set all routes of a model at once; see `Transport.publish`."""
        own = {version: queue for version, queue in routes.items() if isinstance(queue, LocalQueue)}
        if len(own) != len(routes):
            raise TypeError("routes lead to queues that another transport attached")
        self._routes.publish(name, own, unready)

    def unpublish(self, name: str) -> None:
        """Remove a model."""
        self._routes.unpublish(name)

    def add_generic_rpc_handlers(self, generic_rpc_handlers: Sequence[grpc.GenericRpcHandler]) -> None:
        """Host a service."""
        self._server.add_generic_rpc_handlers(generic_rpc_handlers)

    def add_registered_method_handlers(
        self, service_name: str, method_handlers: Mapping[str, grpc.RpcMethodHandler[Any, Any]]
    ) -> None:
        """Host a service by its methods."""
        self._server.add_registered_method_handlers(service_name, dict(method_handlers))

    def add_cold(self, cold: ColdPath) -> None:
        """Set the cold path; see `Transport.add_cold`."""
        self._infer.cold = cold
        self._predict.cold = cold.Predict

    def add_insecure_port(self, address: str) -> int:
        """Listen without encryption; raises RuntimeError if the address cannot be bound."""
        return self._server.add_insecure_port(address)

    def add_secure_port(self, address: str, certificates: Certificates) -> int:
        """Listen with TLS; raises RuntimeError if the address cannot be bound."""
        return self._server.add_secure_port(address, grpcio_credentials(certificates))

    def add_http_port(self, address: str, application: Path, *, inference: bool) -> None:  # noqa: ARG002
        """Leave HTTP to the application."""
        return

    def set_tokens(self, infer: Mapping[bytes, bool]) -> None:
        """Identify clients by their tokens for rate limits; the interceptors check access to every call."""
        self._rate_limiter.by_token = bool(infer)

    def observe(self, *, everything: bool, traced: float | None) -> None:
        """Observe requests; see `Transport.observe`."""
        self.observer.configure(everything=everything, traced=traced)

    def observations(self) -> tuple[Sequence[Observation], int]:
        """Return the requests that ended since the last call, and the total number of dropped ones."""
        return self.observer.read()

    def start(self) -> None:
        """Start accepting connections."""
        self._server.start()

    def stop(self, grace: float | None) -> threading.Event:
        """Refuse new inference, give requests in flight `grace` seconds, then end every call."""
        self._draining = True
        stopped = threading.Event()

        def stop_when_idle() -> None:
            self._in_flight.wait_until_idle(grace or 0.0)
            self._server.stop(None).wait()
            stopped.set()

        threading.Thread(target=stop_when_idle, name="stop").start()
        return stopped

    def wait_for_termination(self, timeout: float | None = None) -> bool:
        """Wait until stopped; return True on timeout."""
        return self._server.wait_for_termination(timeout)
