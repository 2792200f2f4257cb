"""`kerve unload`."""

from dataclasses import dataclass

import click

from kerve.cli import options as cli
from kerve.runtime.commands.connection import Connection

__all__ = ["command"]


@dataclass(frozen=True, kw_only=True)
class Options(Connection):
    """The options of `kerve unload`."""

    name: str = cli.argument(help="Name of the model.")


@cli.command(example="kerve unload digits")
def command(options: Options) -> None:
    """Unload a model on a server with --model-control-mode explicit; accepted requests are finished."""
    with options.connect() as client:
        client.unload(options.name)
    click.echo(f"{options.name} is unloaded")
