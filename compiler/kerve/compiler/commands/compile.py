"""`kerve compile`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import click

from kerve.cli import options as cli
from kerve.compiler.compile import compile_model
from kerve.compiler.options import CompileOptions
from kerve.compiler.repository import check_name
from kerve.compiler.terminal import terminal

__all__ = ["command"]


@dataclass(frozen=True, kw_only=True)
class Options(CompileOptions):
    """What `kerve compile` takes."""

    source: Path = cli.argument(
        help="Keras model: a .keras or .h5 file, a SavedModel folder, or weights with --architecture."
    )
    repository: Path = cli.option(help="Folder in which models are published.")
    name: str = cli.option(help="Name under which the model is served.")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_name(self.name)


@cli.command(example="kerve compile digits.keras --repository models --name digits")
def command(options: Options) -> None:
    """Compile a Keras model to a verified ONNX artifact, REPOSITORY/NAME/VERSION/.

    Exit codes: 0 done, 2 wrong usage, 3 the source cannot be loaded, 4 something in it has no ONNX form,
    5 the result differs from the source, 6 a reduced precision loses more than its budget, 7 the model
    cannot be compiled for the target.
    """
    with terminal() as listener:
        artifact = compile_model(
            options.source,
            repository=options.repository,
            name=options.name,
            options=CompileOptions.of(options),
            listener=listener,
        )
    for warning in artifact.manifest.warnings:
        click.echo(f"warning: {warning}", err=True)
    click.echo(artifact.path)
