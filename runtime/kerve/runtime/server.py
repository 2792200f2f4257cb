"""The server: listen, load, serve, drain."""

import logging
import threading
import time
from collections import ChainMap
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from google.protobuf.descriptor import ServiceDescriptor
from grpc_health.v1 import health, health_pb2
from grpc_health.v1.health_pb2 import HealthCheckResponse

from kerve.runtime import rpc
from kerve.runtime.catalog import Catalog
from kerve.runtime.errors import ArtifactError, InvalidArgumentError, UnavailableError
from kerve.runtime.evaluation.deferred import Evaluable
from kerve.runtime.evaluation.history import FILE as HISTORY_FILE
from kerve.runtime.evaluation.history import History
from kerve.runtime.gateway import Gateway
from kerve.runtime.lifecycle.manager import ControlMode, ModelManager
from kerve.runtime.lifecycle.poller import Poller
from kerve.runtime.lifecycle.served import Limits, ServedVersion
from kerve.runtime.lifecycle.states import UNASKED, State
from kerve.runtime.logs import LogControl
from kerve.runtime.observation.export import Exporter, ExporterPipeline
from kerve.runtime.observation.settings import TraceSettings
from kerve.runtime.observation.trace_file import TraceFiles
from kerve.runtime.protocol import evaluation, oip, tfs
from kerve.runtime.repository import Repository
from kerve.runtime.security.permissions import Permission
from kerve.runtime.security.tls import Certificates
from kerve.runtime.security.tokens import Authority, Tokens
from kerve.runtime.servicers.cold import ColdInferServicer
from kerve.runtime.servicers.evaluation import EvaluationServicer
from kerve.runtime.servicers.model_service import ModelServicer
from kerve.runtime.servicers.oip import OipServicer
from kerve.runtime.servicers.prediction import PredictionServicer
from kerve.runtime.servicers.repository import RepositoryServicer
from kerve.runtime.servicers.settings import SettingsServicer
from kerve.runtime.servicers.shared_memory import SharedMemoryServicer
from kerve.runtime.servicers.statistics import StatisticsServicer
from kerve.runtime.shared_memory import Regions
from kerve.runtime.transport.base import Transport

if TYPE_CHECKING:
    from kerve.runtime.http.server import HttpServer

__all__ = ["Ports", "Server", "ServerOptions"]

log = logging.getLogger(__name__)

HEALTH: ServiceDescriptor = health_pb2.DESCRIPTOR.services_by_name["Health"]

# Rows of an evaluation that are computed at a time: a request waits for no more than these.
MOST_EVALUATED = 256

# Size of the separate thread pool of each group of methods; all others share the default pool. The first
# groups may block: on the client's stream, on a model, on a load. The last one must always answer: over
# grpcio, a call whose message does not arrive occupies a thread, whatever its method.
POOLS = {
    ("Evaluate", "Compare"): 64,
    ("Classify", "Regress", "MultiInference"): 256,
    ("RepositoryModelLoad", "RepositoryModelUnload", "HandleReloadConfigRequest"): 16,
    ("Check", "ServerLive", "ServerReady", "ModelReady"): 64,
}

# Minimum time in seconds for responses to reach their clients.
LAST_WORDS = 1.0


@dataclass(frozen=True, kw_only=True)
class ServerOptions:
    """How a server treats its models."""

    mode: ControlMode = "none"
    # With explicit control, the models to load at startup; "*": all.
    load_models: tuple[str, ...] = ()
    # With `poll`, seconds between two scans of the repositories; 0: only on reload.
    poll_seconds: float = 15.0
    # Whether the server is ready only while every model that should serve is ready.
    strict_readiness: bool = False
    load_threads: int = 4
    # Maximum number of loaded models; 0: unlimited.
    max_models: int = 0
    # Maximum bytes of an HTTP request.
    max_message_bytes: int = 2**31 - 1
    limits: Limits = field(default_factory=Limits)


@dataclass(frozen=True, kw_only=True)
class Ports:
    """The addresses that a server listens on, and their TLS certificates."""

    host: str = "127.0.0.1"
    # 0: any free port.
    grpc_port: int = 8001
    # None: no HTTP. 0: any free port.
    http_port: int | None = None
    certificates: Certificates | None = None


class Server:
    """Serves the models of the given repositories.

    A model that cannot be loaded is logged and reported as not ready; it does not affect other models.
    """

    def __init__(
        self,
        repositories: list[Repository],
        transport: Transport,
        options: ServerOptions | None = None,
        *,
        authority: Authority | None = None,
        logs: LogControl | None = None,
        traces: TraceSettings | None = None,
        exporters: Sequence[Exporter] = (),
    ) -> None:
        """`exporters`: receive the outcome of each request; `traces`: settings of the request traces."""
        self._repositories = repositories
        self._transport = transport
        self._options = options = options or ServerOptions()
        self._catalog: Catalog[ServedVersion] = Catalog()
        self._history = History(repositories[0].path / HISTORY_FILE)
        self.manager = ModelManager(
            repositories,
            transport,
            self._catalog,
            mode=options.mode,
            limits=options.limits,
            load_threads=options.load_threads,
            max_models=options.max_models,
            promoted=promoted_before(self._history),
        )
        self._authority = authority or Authority()
        self._logs = logs or LogControl()
        self._traces = traces or TraceSettings()
        self._observatory = ExporterPipeline(transport, (*exporters, TraceFiles(self._traces)))
        self._http: HttpServer | None = None
        self._gateway: Gateway | None = None
        seconds = options.poll_seconds if options.mode == "poll" else 0.0
        self._poller = Poller(self._refresh, seconds or None)
        self._health = health.HealthServicer()
        # The services whose health is reported; empty until they are added.
        self._services: tuple[str, ...] = ()
        self._loaded = False
        self.stopping = threading.Event()

    def listen(self, ports: Ports) -> tuple[int, int | None]:
        """Start listening, without any model yet; return the ports of gRPC and of HTTP."""
        self._authority.follow(self._publish_tokens)
        self._authority.watch(self.stopping)
        self._gateway = Gateway(self._transport, self.stopping)
        self._host_services(self._gateway)
        if self._options.mode != "explicit":
            self.manager.announce()
        grpc_port = self._listen_grpc(ports)
        http_port = (
            None if ports.http_port is None else self._listen_http(ports, ports.http_port, self._gateway)
        )
        self._observatory.start()
        self._transport.start()
        if self._http is not None:
            self._http.start()
        return grpc_port, http_port

    def load(self) -> dict[str, list[int]]:
        """Load and serve the initial models; return the ready versions by model.

        Returns early once `stopping` is set. Raises ArtifactError if no model can be served and none can be
        loaded later.
        """
        self._load_at_start()
        served: dict[str, list[int]] = {}
        for each in self.manager.served():
            served.setdefault(each.name, []).append(each.version)
        if not served and self._options.mode == "none" and not self.stopping.is_set():
            paths = ", ".join(str(repository.path) for repository in self._repositories)
            raise ArtifactError(
                f"no model of {paths} can be served; "
                "expected <model>/<version>/model.onnx, with a number as the version"
            )
        if not self.stopping.is_set():
            self._loaded = True
            self._poller.start()
            self._update_health()
        return served

    def reload(self, over: Callable[[], None]) -> None:
        """Rescan the repositories in another thread, which then calls `over`; safe in a signal handler."""
        self._poller.wake(over)

    def drain(self, timeout: float) -> bool:
        """Refuse new requests, finish accepted ones within `timeout` seconds, then close every connection.

        Returns whether all were finished; the rest is answered with UNAVAILABLE, if it can be interrupted.
        """
        end = time.monotonic() + timeout
        self.stopping.set()
        self._poller.stop()
        self.manager.close()  # before it is announced: clients that see the drain must already be refused
        self._health.enter_graceful_shutdown()
        finished = self.manager.stop(end)
        self._transport.stop(max(LAST_WORDS, end - time.monotonic())).wait()
        if self._http is not None:
            self._http.close()
        if self._gateway is not None:
            self._gateway.close()
        self._observatory.close()
        return finished

    @property
    def ready(self) -> bool:
        """Whether requests should be sent here."""
        if not self._loaded or self.stopping.is_set():
            return False
        if not self._options.strict_readiness:
            return True
        lines = self.manager.index()
        asked = {line.name for line in lines if line.reason not in UNASKED}
        return asked <= {line.name for line in lines if line.state is State.READY}

    def _listen_grpc(self, ports: Ports) -> int:
        address = (
            f"[{ports.host}]:{ports.grpc_port}" if ":" in ports.host else f"{ports.host}:{ports.grpc_port}"
        )
        try:
            if ports.certificates is not None:
                return self._transport.add_secure_port(address, ports.certificates)
            return self._transport.add_insecure_port(address)
        except RuntimeError as error:
            raise UnavailableError(
                f"cannot listen on {address}; choose another port if it is taken, "
                "or an address that this machine has"
            ) from error

    def _listen_http(self, ports: Ports, port: int, gateway: Gateway) -> int:
        # Imported only if needed: it takes time and memory.
        from kerve.runtime.http.server import HttpServer

        self._http = HttpServer(
            self.manager,
            self._catalog,
            gateway,
            self._authority,
            self._transport,
            host=ports.host,
            port=port,
            max_body=self._options.max_message_bytes,
            # There is no TLS on this port: what requires a client certificate must not be available here.
            inference=ports.certificates is None or ports.certificates.client_roots is None,
        )
        return self._http.port

    def _publish_tokens(self, tokens: Tokens) -> None:
        self._transport.set_tokens(
            {token: Permission.INFER in permissions for token, permissions in tokens.items()}
        )

    def _load_at_start(self) -> None:
        if self.stopping.is_set():
            return
        explicit = self._options.mode == "explicit"
        names = list(self._options.load_models) if explicit else self.manager.announce()
        if "*" in names:
            names = self.manager.announce()
        loading = threading.Thread(target=self.manager.load_all, args=(names,), name="load", daemon=True)
        loading.start()
        while loading.is_alive() and not self.stopping.is_set():
            loading.join(0.01)

    def _refresh(self) -> None:
        self.manager.refresh()
        self._update_health()

    def _evaluator(self) -> EvaluationServicer:
        threads = self._options.limits.threads
        return EvaluationServicer(Served(self._catalog), self._history, self.manager, threads=threads)

    def _host_services(self, gateway: Gateway) -> None:
        regions = Regions()
        cold = ColdInferServicer(regions, gateway, self._catalog, lambda: not self.stopping.is_set())
        self._transport.add_cold(cold)
        services: dict[ServiceDescriptor, tuple[object, ...]] = {
            oip.SERVICE: (
                OipServicer(
                    self._catalog,
                    devices=self._options.limits.devices.show(),
                    ready=lambda: self.ready,
                    accepting=lambda: not self.stopping.is_set(),
                ),
                RepositoryServicer(self.manager),
                StatisticsServicer(self.manager),
                SettingsServicer(self._logs, self._traces, self._observatory, self._catalog.find),
                SharedMemoryServicer(regions),
            ),
            evaluation.SERVICE: (self._evaluator(),),
            tfs.PREDICTION_SERVICE: (PredictionServicer(self._catalog, gateway),),
            tfs.MODEL_SERVICE: (ModelServicer(self.manager),),
            HEALTH: (self._health,),
        }
        pools: dict[str, ThreadPoolExecutor] = {}
        for names, threads in POOLS.items():
            pools |= dict.fromkeys(names, ThreadPoolExecutor(threads, names[0]))
        for service, servicers in services.items():
            methods = ChainMap(*(rpc.methods_of(service, servicer) for servicer in servicers))
            hosted = {
                name: rpc.in_pool(method, pools[name]) if name in pools else method
                for name, method in methods.items()
            }
            rpc.add_service(self._transport, service, hosted)
        self._services = tuple(service.full_name for service in services if service is not HEALTH)
        rpc.add_reflection(self._transport, [*self._services, health.SERVICE_NAME])
        self._update_health()

    def _update_health(self) -> None:
        status = HealthCheckResponse.SERVING if self.ready else HealthCheckResponse.NOT_SERVING
        for service in (health.OVERALL_HEALTH, *self._services):
            self._health.set(service, status)


def promoted_before(history: History) -> dict[str, dict[str, int]]:
    """Return the versions that labels were moved to; an unreadable history does not prevent the start."""
    try:
        return history.promoted()
    except OSError as error:
        log.warning("labels that were promoted are not known: %s", error)
        return {}


class Served:
    """The served versions, as evaluations access them."""

    def __init__(self, catalog: Catalog[ServedVersion]) -> None:
        self._catalog = catalog

    def find(self, name: str, version: str) -> Evaluable:
        """Return a version; raises NotFoundError or UnavailableError if it is not ready."""
        served = self._catalog.find(name, version)
        if served.model is None:
            raise InvalidArgumentError(
                f"model {name!r} is an ensemble, which has no loss or metrics; evaluate its "
                f"members: {', '.join(member.name for member in served.members)}"
            )
        rows = min(MOST_EVALUATED, served.config.max_batch_size or MOST_EVALUATED)
        return Evaluable(served.model, served.queue.defer, rows)
