"""The native transport: kerve-wire, which batches requests and does all but compute without the GIL."""

from __future__ import annotations  # grpc's classes take type arguments in the stubs only

import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc

import kerve_wire
from kerve.runtime import rpc
from kerve.runtime.observation.interceptor import ObservingInterceptor
from kerve.runtime.observation.observer import Observation, Observer
from kerve.runtime.protocol import oip, tfs
from kerve.runtime.security.tls import Certificates
from kerve.runtime.signature import TensorSpec
from kerve.runtime.transport.base import ColdPath, Queue, ServedModel, TransportOptions

__all__ = ["WireTransport"]

# A call on the cold path occupies a thread until it is answered. Health and metadata have separate threads,
# so that they are answered meanwhile.
COLD_THREADS = 512


class WireTransport:
    """A `Transport` on `kerve_wire.Server`."""

    name = "wire"

    def __init__(self, options: TransportOptions | None = None) -> None:
        options = options or TransportOptions()
        self.observer = Observer()
        self._server = kerve_wire.Server(
            kerve_wire.ServerOptions(
                max_receive_message_length=options.max_message_bytes,
                max_connections=options.max_connections,
                host_shared_memory=options.shared_memory,
                rate_limit=options.rate.rate if options.rate else None,
                rate_burst=options.rate.burst if options.rate else 1,
            ),
            interceptors=(ObservingInterceptor(self.observer), *options.interceptors),
        )

    def attach(self, served: ServedModel) -> kerve_wire.Queue:
        """Create a queue for a model version."""
        return self._server.attach(
            served.name,
            served.version,
            [wire_spec(spec) for spec in served.signature.inputs],
            [wire_spec(spec) for spec in served.signature.outputs],
            batched=served.signature.batched,
            options=wire_options(served),
        )

    def inbox(self) -> kerve_wire.Inbox:
        """Create an inbox for the answers to `Queue.ask`."""
        return kerve_wire.Inbox()

    def publish(
        self, name: str, routes: Mapping[str, Queue], unready: Mapping[str, str] | None = None
    ) -> None:
        """Set all routes of a model at once; see `Transport.publish`."""
        own = {version: queue for version, queue in routes.items() if isinstance(queue, kerve_wire.Queue)}
        if len(own) != len(routes):
            raise TypeError("routes lead to queues that another transport attached")
        self._server.publish(name, own, unready)

    def unpublish(self, name: str) -> None:
        """Remove a model."""
        self._server.unpublish(name)

    def add_generic_rpc_handlers(self, generic_rpc_handlers: Sequence[grpc.GenericRpcHandler]) -> None:
        """Host a service."""
        self._server.add_generic_rpc_handlers(generic_rpc_handlers)

    def add_registered_method_handlers(
        self, service_name: str, method_handlers: Mapping[str, grpc.RpcMethodHandler[Any, Any]]
    ) -> None:
        """Host a service by its methods."""
        self._server.add_registered_method_handlers(service_name, method_handlers)

    def add_cold(self, cold: ColdPath) -> None:
        """Set the cold path; see `Transport.add_cold`."""
        pool = ThreadPoolExecutor(COLD_THREADS, "cold")
        rpc.add_service(self, oip.SERVICE, {"ModelInfer": rpc.in_pool(cold.ModelInfer, pool)})
        rpc.add_service(self, tfs.PREDICTION_SERVICE, {"Predict": rpc.in_pool(cold.Predict, pool)})

    def add_insecure_port(self, address: str) -> int:
        """Listen without encryption; raises RuntimeError if the address cannot be bound."""
        return self._server.add_insecure_port(address)

    def add_secure_port(self, address: str, certificates: Certificates) -> int:
        """Listen with TLS; raises RuntimeError if the address cannot be bound."""
        certificates.check()  # its error messages are better than the native transport's
        roots = certificates.client_roots
        credentials = kerve_wire.Credentials(
            certificates.key, certificates.chain, roots, require_client_auth=roots is not None
        )
        return self._server.add_secure_port(address, credentials)

    def add_http_port(self, address: str, application: Path, *, inference: bool) -> int:
        """Listen for HTTP as an application's proxy; raises RuntimeError if the address cannot be bound."""
        return self._server.add_http_port(address, application, inference=inference)

    def set_tokens(self, infer: Mapping[bytes, bool]) -> None:
        """Require a bearer token for inference; see `Transport.set_tokens`."""
        self._server.set_tokens(infer)

    def observe(self, *, everything: bool, traced: float | None) -> None:
        """Observe requests; see `Transport.observe`."""
        self.observer.configure(everything=everything, traced=traced)
        self._server.observe(everything=everything, traced=traced)

    def observations(self) -> tuple[Sequence[Observation], int]:
        """Return the requests that ended since the last call, and the total number of dropped ones."""
        native, lost = self._server.observations()
        hosted, lost_too = self.observer.read()
        return [*native, *hosted], lost + lost_too

    def start(self) -> None:
        """Start accepting connections."""
        self._server.start()

    def stop(self, grace: float | None) -> threading.Event:
        """Refuse new inference, give requests in flight `grace` seconds, then end every call."""
        return self._server.stop(grace)

    def wait_for_termination(self, timeout: float | None = None) -> bool:
        """Wait until stopped; return True on timeout."""
        return self._server.wait_for_termination(timeout)


def wire_spec(spec: TensorSpec) -> kerve_wire.TensorSpec:
    """Convert a spec to kerve-wire's."""
    return kerve_wire.TensorSpec(spec.name, spec.datatype, spec.shape, spec.labels, spec.optional)


def wire_options(served: ServedModel) -> kerve_wire.QueueOptions:
    """Convert the batching options to kerve-wire's, which have the same names."""
    policies = tuple(kerve_wire.QueuePolicy(**vars(policy)) for policy in served.batching.policies)
    given = {**vars(served.batching), "policies": policies, "hosted": served.cold}
    return kerve_wire.QueueOptions(**given)
