"""`kerve serve`."""

import logging
import os
import signal
import threading
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Literal

import click

from kerve.cli import options as cli
from kerve.runtime.cpus import available_cpus
from kerve.runtime.repository import Repository
from kerve.runtime.server import Server
from kerve.runtime.transport import create_transport

__all__ = ["command"]


@dataclass(frozen=True, kw_only=True)
class Options:
    """What `kerve serve` takes."""

    repository: Path = cli.option(help="Folder of <model>/<version>/model.onnx.", type=cli.EXISTING_FOLDER)
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


@cli.command(example="kerve serve --repository models --grpc-port 8001")
def command(options: Options) -> None:
    """Serve the newest version of every model of a repository over gRPC.

    Prints one line when it is ready, with the address and the models. SIGTERM and SIGINT refuse new work,
    finish what was accepted and end with exit code 0, or 1 when --drain-timeout was too short for it; a
    second signal ends at once. A model that cannot be loaded is logged and left out; exit code 3 when that
    leaves none.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    transport = create_transport(options.transport)
    server = Server(
        Repository(options.repository),
        transport,
        threads=options.threads or available_cpus(),
        max_queue_size=options.max_queue_size,
    )
    stop_on_signals(server.stopping)
    host = f"[{options.host}]" if ":" in options.host else options.host
    port = server.listen(f"{host}:{options.grpc_port}")
    try:
        models = server.load()
        if not server.stopping.is_set():
            names = ", ".join(f"{name} (version {version})" for name, version in models)
            click.echo(f"ready: gRPC on {host}:{port} ({transport.name}), serving {names}")
            server.stopping.wait()
    finally:
        finished = server.drain(options.drain_timeout)
    if not finished:
        click.echo(f"error: not all work was finished within {options.drain_timeout} s", err=True)
        # A model that is still computing would bring the interpreter down in the middle of its exit.
        os._exit(1)


def stop_on_signals(stopping: threading.Event) -> None:
    """Set the event on the first SIGTERM or SIGINT; leave the second to end the process."""

    def stop(number: int, _: FrameType | None) -> None:
        signal.signal(number, signal.SIG_DFL)
        stopping.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
