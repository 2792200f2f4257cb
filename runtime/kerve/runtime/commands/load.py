"""`kerve load`."""

from dataclasses import dataclass
from pathlib import Path

import click

from kerve.cli import options as cli
from kerve.runtime.commands.connection import Connection

__all__ = ["command"]


@dataclass(frozen=True, kw_only=True)
class Options(Connection):
    """The options of `kerve load`."""

    name: str = cli.argument(help="Name of the model.")
    model_config: Path | None = cli.option(
        None, help="JSON file to use instead of the model's own configuration.", type=cli.EXISTING_FILE
    )


@cli.command(example="kerve load digits")
def command(options: Options) -> None:
    """Load or reload a model on a server with --model-control-mode explicit."""
    config = options.model_config.read_text("utf-8") if options.model_config else None
    with options.connect() as client:
        client.load(options.name, config=config)
        versions = ", ".join(client.metadata(options.name).versions)
    click.echo(f"{options.name} is loaded (version {versions})")
