"""The life of a server: listen, load, serve, drain."""

import logging
import threading
import time

from grpc_health.v1 import health, health_pb2_grpc
from grpc_health.v1.health_pb2 import HealthCheckResponse

from kerve.runtime import rpc
from kerve.runtime.artifact import read_artifact
from kerve.runtime.catalog import Catalog
from kerve.runtime.errors import ArtifactError, ServingError, UnavailableError
from kerve.runtime.executor import Executor
from kerve.runtime.model import Model, load
from kerve.runtime.protocol import oip
from kerve.runtime.repository import Repository
from kerve.runtime.servicers.oip import OipServicer
from kerve.runtime.transport.base import DEFAULT, Queue, ServedModel, Transport

__all__ = ["Server"]

log = logging.getLogger(__name__)

# Seconds that answers have to reach their clients, however late it is.
LAST_WORDS = 1.0


class Server:
    """Serves the newest version of every model of a repository.

    A model that cannot be loaded is logged and known as not ready; it does not keep the others from being
    served.
    """

    def __init__(
        self, repository: Repository, transport: Transport, *, threads: int, max_queue_size: int
    ) -> None:
        self._repository = repository
        self._transport = transport
        self._threads = threads
        self._max_queue_size = max_queue_size
        self._catalog: Catalog[Model] = Catalog()
        self._queues: list[Queue] = []
        self._executors: list[Executor] = []
        self._health = health.HealthServicer()
        self._ready = False
        self.stopping = threading.Event()

    def listen(self, address: str) -> int:
        """Answer on `host:port` from now on, but serve no model yet; return the port."""
        self._host_services()
        for name in self._repository.models():
            self._catalog.publish(name, {})
            self._transport.publish(name, {})
        try:
            port = self._transport.add_insecure_port(address)
        except RuntimeError as error:
            raise UnavailableError(
                f"cannot listen on {address}; choose another port if it is taken, "
                "or an address that this machine has"
            ) from error
        self._transport.start()
        return port

    def load(self) -> list[tuple[str, int]]:
        """Load every model and serve it; return the names and versions that are served.

        Ends early once `stopping` is set. ArtifactError when not one model can be served.
        """
        served: list[tuple[str, int]] = []
        for name in self._repository.models():
            if self.stopping.is_set():
                return served
            if (version := self._load_newest(name)) is not None:
                served.append((name, version))
        if not served:
            raise ArtifactError(
                f"no model of {self._repository.path} can be served; "
                "expected <model>/<version>/model.onnx, with a number as the version"
            )
        self._ready = True
        self._set_health(HealthCheckResponse.SERVING)
        return served

    def drain(self, timeout: float) -> bool:
        """Refuse new work, finish what was accepted within `timeout` seconds, then close every connection.

        Returns whether all of it was finished; the rest is answered with UNAVAILABLE, if it can be stopped.
        """
        end = time.monotonic() + timeout
        self._ready = False
        self._health.enter_graceful_shutdown()
        for queue in self._queues:
            queue.close()
        for executor in self._executors:
            executor.join(max(0.0, end - time.monotonic()))
        late = [executor for executor in self._executors if executor.is_alive()]
        for executor in late:
            executor.terminate()
        for executor in late:
            executor.join(LAST_WORDS)
        self._transport.stop(max(LAST_WORDS, end - time.monotonic())).wait()
        return not late

    def _host_services(self) -> None:
        servicer = OipServicer(self._catalog, ready=lambda: self._ready)
        rpc.add_service(self._transport, oip.SERVICE, rpc.methods_of(oip.SERVICE, servicer))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._transport)
        rpc.add_reflection(self._transport, [oip.SERVICE.full_name, health.SERVICE_NAME])
        self._set_health(HealthCheckResponse.NOT_SERVING)

    def _set_health(self, status: int) -> None:
        for service in (health.OVERALL_HEALTH, oip.SERVICE.full_name):
            self._health.set(service, status)

    def _load_newest(self, name: str) -> int | None:
        """Serve the newest version that loads; return it, or None when none does."""
        for version in reversed(self._repository.versions(name)):
            begin = time.monotonic()
            try:
                model = load(read_artifact(self._repository.folder(name, version)), threads=self._threads)
            except ServingError as error:
                log.error("model %r version %d is not served: %s", name, version, error)
            except Exception:  # one model that cannot load never keeps the server from serving the others
                log.exception("model %r version %d is not served", name, version)
            else:
                log.info("model %r version %d is ready after %.2f s", name, version, time.monotonic() - begin)
                self._serve(name, version, model)
                return version
        return None

    def _serve(self, name: str, version: int, model: Model) -> None:
        queue = self._transport.attach(ServedModel(name, version, model.signature, self._max_queue_size))
        executor = Executor(model, queue, name=f"{name}/{version}")
        executor.start()
        self._queues.append(queue)
        self._executors.append(executor)
        self._catalog.publish(name, {DEFAULT: model, str(version): model})
        self._transport.publish(name, {DEFAULT: queue, str(version): queue})
