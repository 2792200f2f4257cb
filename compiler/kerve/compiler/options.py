"""What a compile can be told, each option written once."""

from __future__ import annotations

from dataclasses import dataclass

import click

from kerve.cli.options import option
from kerve.compiler.sources.options import LoadOptions

__all__ = ["DEFAULT_OPSET", "CompileOptions"]

DEFAULT_OPSET = 21

_OLDEST_OPSET = 17  # the first with LayerNormalization


@dataclass(frozen=True, kw_only=True)
class CompileOptions(LoadOptions):
    """How a source becomes an artifact; the same source and options give the same bytes."""

    opset: int = option(
        DEFAULT_OPSET, type=click.IntRange(min=_OLDEST_OPSET), help="Version of the ONNX operator set."
    )
