"""`kerve serve`."""

import os
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Literal

import click

from kerve.cli import options as cli
from kerve.runtime.cpus import available_cpus
from kerve.runtime.lifecycle.manager import ControlMode
from kerve.runtime.lifecycle.served import Limits
from kerve.runtime.logs import LogControl, LogFormat
from kerve.runtime.repository import Repository
from kerve.runtime.server import Server, ServerOptions
from kerve.runtime.transport import create_transport

__all__ = ["command"]


@dataclass(frozen=True, kw_only=True)
class Options:
    """What `kerve serve` takes; what Triton has too has its name there."""

    repository: tuple[Path, ...] = cli.option(
        help="Folder of <model>/<version>/model.onnx; may be given several times.", type=cli.EXISTING_FOLDER
    )
    model_control_mode: ControlMode = cli.option(
        "none", help="none: load all models once; poll: follow the folders; explicit: load on request."
    )
    repository_poll_secs: float = cli.option(
        15.0, help="Seconds between two looks at the folders, with poll.", type=click.FloatRange(min=0.01)
    )
    load_model: tuple[str, ...] = cli.option(
        (), help="With explicit: a model to load at the start, * for all; may be given several times."
    )
    model_load_thread_count: int = cli.option(
        4, help="Models that are loaded at the same time.", type=click.IntRange(min=1)
    )
    strict_readiness: bool = cli.option(False, help="Be ready only while every model that is to serve does.")
    host: str = cli.option("127.0.0.1", help="Address to listen on; 0.0.0.0 or :: for every network.")
    grpc_port: int = cli.option(8001, help="Port for gRPC; 0 takes a free one.", type=cli.PORT)
    transport: Literal["auto", "wire", "grpcio"] = cli.option(
        "auto", help="What carries requests; auto takes the wire where kerve-wire is installed."
    )
    threads: int = cli.option(
        0, help="CPU threads per model; 0 for one per available CPU.", type=click.IntRange(min=0)
    )
    max_queue_size: int = cli.option(
        256, help="Requests that may wait for a model; more are refused.", type=click.IntRange(min=1)
    )
    drain_timeout: float = cli.option(
        30.0, help="Seconds to finish accepted work after SIGTERM.", type=click.FloatRange(min=0)
    )
    log_format: LogFormat = cli.option("human", help="How the log is written, to standard error.")


@cli.command(example="kerve serve --repository models --grpc-port 8001")
def command(options: Options) -> None:
    """Serve the models of one or more repositories over gRPC.

    Prints one line when it is ready, with the address and the models. SIGTERM and SIGINT refuse new work,
    finish what was accepted and end with exit code 0, or 1 when --drain-timeout was too short for it; a
    second signal ends at once. SIGHUP looks at the repositories again. A model that cannot be loaded is
    logged and left out; exit code 3 when that leaves none, and none can come later.
    """
    logs = LogControl(options.log_format)
    logs.install()
    transport = create_transport(options.transport)
    server = Server(
        [Repository(path) for path in options.repository], transport, server_options(options), logs=logs
    )
    handle_signals(server)
    host = f"[{options.host}]" if ":" in options.host else options.host
    port = server.listen(f"{host}:{options.grpc_port}")
    try:
        models = server.load()
        if not server.stopping.is_set():
            click.echo(f"ready: gRPC on {host}:{port} ({transport.name}), serving {show_models(models)}")
            server.stopping.wait()
    finally:
        finished = server.drain(options.drain_timeout)
    if not finished:
        click.echo(f"error: not all work was finished within {options.drain_timeout} s", err=True)
        # A model that is still computing would bring the interpreter down in the middle of its exit.
        os._exit(1)


def server_options(options: Options) -> ServerOptions:
    """Return what the server is told of its models."""
    return ServerOptions(
        mode=options.model_control_mode,
        load_models=options.load_model,
        poll_seconds=options.repository_poll_secs,
        strict_readiness=options.strict_readiness,
        load_threads=options.model_load_thread_count,
        limits=Limits(
            threads=options.threads or available_cpus(),
            max_queue_size=options.max_queue_size,
            retire_timeout=options.drain_timeout,
        ),
    )


def show_models(models: Mapping[str, Sequence[int]]) -> str:
    """Return models and versions as they stand in the ready line."""
    parts = [
        f"{name} (version{'s' if len(versions) > 1 else ''} {', '.join(map(str, versions))})"
        for name, versions in models.items()
    ]
    return ", ".join(parts) or "no model yet"


def handle_signals(server: Server) -> None:
    """Stop on the first SIGTERM or SIGINT, leave the second to end the process; reload on SIGHUP."""

    def stop(number: int, _: FrameType | None) -> None:
        signal.signal(number, signal.SIG_DFL)
        server.stopping.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    signal.signal(signal.SIGHUP, lambda *_: server.reload())
