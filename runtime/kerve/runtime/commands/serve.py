"""`kerve serve`."""

import logging
import math
import os
import signal
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import click

from kerve.cli import options as cli
from kerve.runtime import supervisor
from kerve.runtime.cache import ResponseCache
from kerve.runtime.cpus import MOST_THREADS, available_cpus
from kerve.runtime.devices.choice import Devices, choose_devices
from kerve.runtime.devices.device import parse_device
from kerve.runtime.lifecycle.manager import ControlMode
from kerve.runtime.lifecycle.served import Limits
from kerve.runtime.logs import LogControl, LogFormat
from kerve.runtime.observation.access import AccessLog
from kerve.runtime.observation.export import Exporter
from kerve.runtime.observation.settings import TraceSettings, initial_settings
from kerve.runtime.observation.spans import Spans
from kerve.runtime.operators import load_libraries
from kerve.runtime.repository import Repository
from kerve.runtime.security.interceptor import AuthorityInterceptor
from kerve.runtime.security.tls import Certificates
from kerve.runtime.security.tokens import Authority
from kerve.runtime.server import Ports, Server, ServerOptions
from kerve.runtime.transport import create_transport
from kerve.runtime.transport.base import TransportOptions
from kerve.runtime.transport.rates import RateLimit

__all__ = ["command"]

log = logging.getLogger(__name__)

# The upper limit keeps timeouts within what can be waited for.
SECONDS = click.FloatRange(min=0, max=1e9)

# Signals that stop the server.
ENDING = (signal.SIGTERM, signal.SIGINT)


@dataclass(frozen=True, kw_only=True)
class Options:
    """The options of `kerve serve`; those that Triton also has have the same names."""

    repository: tuple[Path, ...] = cli.option(
        help="Folder of <model>/<version>/model.onnx; may be given several times.", type=cli.EXISTING_FOLDER
    )
    model_control_mode: ControlMode = cli.option(
        "none",
        help="none: load all models once; poll: watch the folders for changes; explicit: load on request.",
    )
    repository_poll_secs: float = cli.option(
        15.0,
        help="Seconds between scans of the folders with poll; 0 scans only on SIGHUP.",
        type=SECONDS,
    )
    load_model: tuple[str, ...] = cli.option(
        (), help="With explicit: a model to load at startup, * for all; may be given several times."
    )
    model_load_thread_count: int = cli.option(
        4, help="Models loaded concurrently.", type=click.IntRange(min=1)
    )
    max_models: int = cli.option(
        0, help="Largest number of loaded models; 0 for no limit.", type=click.IntRange(min=0)
    )
    strict_readiness: bool = cli.option(
        False, help="Report ready only while every configured model is ready."
    )
    host: str = cli.option("127.0.0.1", help="Address to listen on; 0.0.0.0 or :: for every network.")
    grpc_port: int = cli.option(8001, help="Port for gRPC; 0 takes a free one.", type=cli.PORT)
    http_port: int = cli.option(
        8000,
        help="Port for HTTP: /v2, /v1/models, /metrics and the status page; -1 takes a free one, 0 for none.",
        type=click.IntRange(-1, 65535),
    )
    transport: Literal["auto", "wire", "grpcio"] = cli.option(
        "auto", help="Implementation of gRPC; auto uses the wire if kerve-wire is installed."
    )
    device: str = cli.option(
        "auto",
        help="Device for inference: auto, cpu, cuda[:N] or tensorrt[:N]; without N, every GPU. "
        "auto uses CUDA if ONNX Runtime supports it and a GPU is available, else the CPU.",
    )
    threads: int = cli.option(
        0,
        help="CPU threads per model; 0 for one per available CPU.",
        type=click.IntRange(0, MOST_THREADS),
    )
    max_queue_size: int = cli.option(
        256, help="Largest number of requests queued per model; more are refused.", type=click.IntRange(min=1)
    )
    max_sequences: int = cli.option(
        1024,
        help="Open sequences per model, unless the model sets a limit; more wait for one to end.",
        type=click.IntRange(min=1),
    )
    drain_timeout: float = cli.option(
        30.0, help="Seconds to finish accepted requests after SIGTERM.", type=SECONDS
    )
    status_codes: Literal["honest", "triton"] = cli.option(
        "honest",
        help="Status codes for overload: RESOURCE_EXHAUSTED and DEADLINE_EXCEEDED, or Triton's UNAVAILABLE.",
    )
    max_message_bytes: int = cli.option(
        2**31 - 1, help="Largest size of a request, in bytes.", type=click.IntRange(1, 2**31 - 1)
    )
    max_connections: int = cli.option(
        0,
        help="Largest number of open gRPC connections; more are closed; 0 for no limit. Needs the wire.",
        type=click.IntRange(min=0),
    )
    rate_limit: float | None = cli.option(
        None,
        help="Inference requests per second allowed per client, identified by its token or address.",
        type=click.FloatRange(min=0.001),
    )
    rate_burst: int = cli.option(
        0,
        help="Requests of a client allowed in a burst; 0 for one second's worth.",
        type=click.IntRange(min=0),
    )
    cache_size: int = cli.option(
        0,
        help="Size in bytes of the response cache, for models that enable it; 0 for none.",
        type=click.IntRange(min=0),
    )
    custom_op_library: tuple[Path, ...] = cli.option(
        (),
        help="Library of custom operators for ONNX Runtime, native code; may be given several times.",
        type=cli.EXISTING_FILE,
    )
    tokens: Path | None = cli.option(
        None, help="File of accepted bearer tokens, as SHA-256 hashes.", type=cli.EXISTING_FILE
    )
    grpc_use_ssl: bool = cli.option(False, help="Encrypt gRPC; needs certificate and key.")
    grpc_use_ssl_mutual: bool = cli.option(
        False,
        help="Encrypt gRPC and require client certificates; needs the root certificate too.",
    )
    grpc_server_cert: Path | None = cli.option(None, help="PEM certificate chain.", type=cli.EXISTING_FILE)
    grpc_server_key: Path | None = cli.option(None, help="PEM private key.", type=cli.EXISTING_FILE)
    grpc_root_cert: Path | None = cli.option(
        None,
        help="PEM root certificates that client certificates are checked against.",
        type=cli.EXISTING_FILE,
    )
    log_format: LogFormat = cli.option("human", help="Format of the log on standard error.")
    trace_ratio: float | None = cli.option(
        None,
        help="Export OpenTelemetry traces of requests that callers trace, and of this share of the others.",
        type=click.FloatRange(0, 1),
    )
    trace_endpoint: str | None = cli.option(
        None, help="OTLP collector, http://HOST:4317; defaults to OTEL_EXPORTER_OTLP_ENDPOINT."
    )
    trace_config: tuple[str, ...] = cli.option(
        (),
        help="Triton's traces: triton,file=PATH, level=TIMESTAMPS, rate=N; may be given several times.",
    )
    access_log: bool = cli.option(False, help="Log one line per request, with its id and times.")

    def __post_init__(self) -> None:
        """Raise ValueError if options contradict each other."""
        encrypted = self.grpc_use_ssl or self.grpc_use_ssl_mutual
        if encrypted and not (self.grpc_server_cert and self.grpc_server_key):
            raise ValueError("TLS needs --grpc-server-cert and --grpc-server-key")
        if self.grpc_use_ssl_mutual and not self.grpc_root_cert:
            raise ValueError("--grpc-use-ssl-mutual needs --grpc-root-cert")
        if not encrypted and (self.grpc_server_cert or self.grpc_server_key):
            raise ValueError(
                "--grpc-server-cert and --grpc-server-key need --grpc-use-ssl or --grpc-use-ssl-mutual"
            )
        if self.grpc_root_cert and not self.grpc_use_ssl_mutual:
            raise ValueError(
                "--grpc-root-cert needs --grpc-use-ssl-mutual, which requires client certificates"
            )
        if self.trace_endpoint is not None and self.trace_ratio is None:
            raise ValueError(
                "--trace-endpoint needs --trace-ratio; with 0, only requests that callers trace are exported"
            )
        initial_settings(self.trace_config)
        parse_device(self.device)

    @property
    def rate(self) -> RateLimit | None:
        """The rate limit of each client."""
        if self.rate_limit is None:
            return None
        return RateLimit(self.rate_limit, self.rate_burst or max(1, math.ceil(self.rate_limit)))

    @property
    def certificates(self) -> Certificates | None:
        """The certificates of the gRPC port, if it is encrypted."""
        if not (self.grpc_use_ssl or self.grpc_use_ssl_mutual):
            return None
        assert self.grpc_server_key is not None
        assert self.grpc_server_cert is not None
        roots = self.grpc_root_cert if self.grpc_use_ssl_mutual else None
        return Certificates(self.grpc_server_key, self.grpc_server_cert, roots)


@cli.command(example="kerve serve --repository models --grpc-port 8001")
def command(options: Options) -> None:
    """Serve the models of one or more repositories over gRPC.

    Prints one line when it is ready, with the address and the models. On SIGTERM or SIGINT it refuses new
    requests, finishes accepted ones and exits with code 0, or 1 if --drain-timeout was too short; a second
    signal ends it at once. On SIGHUP it scans the repositories again. A model that cannot be loaded is logged
    and skipped; exit code 3 if none is left and none can be added later.
    """
    logs = LogControl(options.log_format)
    logs.install()
    load_libraries(options.custom_op_library)
    devices = choose_devices(parse_device(options.device))
    log.info("models compute on %s: %s", devices.show(), devices.why)
    authority = Authority(options.tokens)
    interceptors = (AuthorityInterceptor(authority),) if options.tokens else ()
    transport = create_transport(
        options.transport,
        TransportOptions(
            interceptors=interceptors,
            max_message_bytes=options.max_message_bytes,
            max_connections=options.max_connections or None,
            shared_memory=True,
            rate=options.rate,
        ),
    )
    server = Server(
        [Repository(path) for path in options.repository],
        transport,
        server_options(options, devices),
        authority=authority,
        logs=logs,
        traces=TraceSettings(initial_settings(options.trace_config)),
        exporters=exporters(options),
    )
    signals = handle_signals(server)
    http_port = {0: None, -1: 0}.get(options.http_port, options.http_port)
    grpc_port, http_port = server.listen(
        Ports(
            host=options.host,
            grpc_port=options.grpc_port,
            http_port=http_port,
            certificates=options.certificates,
        )
    )
    try:
        models = server.load()
        if not server.stopping.is_set():
            host = f"[{options.host}]" if ":" in options.host else options.host
            http = f", HTTP on {host}:{http_port}" if http_port else ""
            click.echo(
                f"ready: gRPC on {host}:{grpc_port} ({transport.name}){http}, "
                f"serving {show_models(models)} on {devices}"
            )
            supervisor.ready()
            while not server.stopping.is_set():
                signals.recv(64)
    finally:
        supervisor.stopping()
        finished = server.drain(options.drain_timeout)
    if not finished:
        click.echo(f"error: requests were still running after {options.drain_timeout} s", err=True)
    if not finished or server.manager.loading:
        # A model that is still computing could crash the interpreter during its exit, and one that is still
        # loading would delay it.
        os._exit(0 if finished else 1)


def exporters(options: Options) -> list[Exporter]:
    """Return the exporters of request observations."""
    found: list[Exporter] = []
    if options.access_log:
        found.append(AccessLog())
    if options.trace_ratio is not None:
        found.append(Spans(options.trace_ratio, options.trace_endpoint))
    return found


def server_options(options: Options, devices: Devices) -> ServerOptions:
    """Return the options of the server."""
    return ServerOptions(
        mode=options.model_control_mode,
        load_models=options.load_model,
        poll_seconds=options.repository_poll_secs,
        strict_readiness=options.strict_readiness,
        load_threads=options.model_load_thread_count,
        max_models=options.max_models,
        max_message_bytes=options.max_message_bytes,
        limits=Limits(
            threads=options.threads or available_cpus(),
            max_queue_size=options.max_queue_size,
            max_sequences=options.max_sequences,
            triton_codes=options.status_codes == "triton",
            cache=ResponseCache(options.cache_size) if options.cache_size else None,
            retire_timeout=options.drain_timeout,
            devices=devices,
        ),
    )


def show_models(models: Mapping[str, Sequence[int]]) -> str:
    """Format models and versions for the ready line."""
    parts = [
        f"{name} (version{'s' if len(versions) > 1 else ''} {', '.join(map(str, versions))})"
        for name, versions in models.items()
    ]
    return ", ".join(parts) or "no model yet"


def handle_signals(server: Server) -> socket.socket:
    """Stop on the first SIGTERM or SIGINT, let the second one end the process; reload on SIGHUP.

    Returns a socket that becomes readable after each signal. Waiting for an event instead could miss a signal
    that is delivered to another thread or just before the wait.
    """
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    signal.set_wakeup_fd(writer.detach(), warn_on_full_buffer=False)

    def stop(*_: object) -> None:
        for number in ENDING:
            signal.signal(number, signal.SIG_DFL)
        server.stopping.set()

    def reload(*_: object) -> None:
        supervisor.reloading()
        server.reload(supervisor.ready)

    for number in ENDING:
        signal.signal(number, stop)
    signal.signal(signal.SIGHUP, reload)
    return reader
