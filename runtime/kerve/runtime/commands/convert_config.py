"""`kerve convert-config`."""

import shlex
from dataclasses import dataclass
from pathlib import Path

import click

from kerve.cli import options as cli
from kerve.runtime.conversion import convert
from kerve.runtime.conversion.toml import write
from kerve.runtime.errors import InvalidArgumentError

__all__ = ["command"]


@dataclass(frozen=True, kw_only=True)
class Options:
    """The options of `kerve convert-config`."""

    file: Path = cli.argument(
        help="Triton's config.pbtxt, or TensorFlow Serving's models.config, batching or monitoring file.",
        type=cli.EXISTING_FILE,
    )


@cli.command(example="kerve convert-config models/digits/config.pbtxt > models/digits/config.toml")
def command(options: Options) -> None:
    """Convert a configuration of Triton or TensorFlow Serving to kerve's.

    Prints config.toml, with options for kerve serve as comments. Fields without an equivalent are reported on
    standard error.
    """
    try:
        converted = convert(options.file.read_text("utf-8"))
    except UnicodeDecodeError as error:
        raise InvalidArgumentError(f"{options.file}: expected text in UTF-8: {error}") from error
    parts = []
    for name, table in converted.models.items():
        header = f"# {name}/config.toml\n" if name else ""
        parts.append(header + (write(table) or "# no settings: the defaults apply"))
    parts += [f"# kerve serve {shlex.join(flag)}" for flag in converted.flags]
    click.echo("\n\n".join(parts) or "# no settings: the defaults apply")
    for each in converted.left_out:
        click.echo(f"not converted: {each}", err=True)
