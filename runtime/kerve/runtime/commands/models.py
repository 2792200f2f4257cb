"""`kerve models`."""

from dataclasses import dataclass

from kerve.cli import options as cli
from kerve.cli.tables import print_table
from kerve.runtime.commands.connection import Connection

__all__ = ["command"]


@dataclass(frozen=True, kw_only=True)
class Options(Connection):
    """The options of `kerve models`."""

    ready: bool = cli.option(False, help="List only ready models.")


@cli.command(example="kerve models --address 127.0.0.1:8001")
def command(options: Options) -> None:
    """List the models of a server: versions, states, and why one is not ready."""
    with options.connect() as client:
        states = client.index(ready=options.ready)
    print_table(
        f"models of {options.address}",
        ("model", "version", "state", "reason"),
        [(each.name, each.version, each.state, each.reason) for each in states],
    )
