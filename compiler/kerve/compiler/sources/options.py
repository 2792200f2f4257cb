"""Options for loading a source, each defined once."""

from __future__ import annotations

from dataclasses import dataclass

import click

from kerve.cli.options import option

__all__ = ["LoadOptions"]


@dataclass(frozen=True, kw_only=True)
class LoadOptions:
    """How a source is loaded."""

    architecture: str | None = option(
        None,
        type=click.Path(exists=True, dir_okay=False),
        help="Architecture (JSON or YAML, from to_json or to_yaml) of a source that holds weights only.",
    )
    import_: tuple[str, ...] = option(
        (), help="Module, or .py file, that defines the model's own layers and functions; it is executed."
    )
    trust: bool = option(False, help="Run code that the source contains, such as Lambda layers.")
    signature: str | None = option(None, help="Signature of a SavedModel; the serving one by default.")
    tag: str | None = option(None, help="Tag of the graph in a SavedModel; 'serve' by default.")
