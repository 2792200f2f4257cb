"""What a compile and a verification can be told, each option written once."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Self

import click

from kerve.cli.options import EXISTING_FILE, option
from kerve.compiler.sources.options import LoadOptions

__all__ = ["DEFAULT_OPSET", "CompileOptions", "VerifyOptions"]

DEFAULT_OPSET = 21

_OLDEST_OPSET = 17  # the first with LayerNormalization


@dataclass(frozen=True, kw_only=True)
class VerifyOptions(LoadOptions):
    """How a source is read, and what it is compared on."""

    data: Path | None = option(
        None,
        type=EXISTING_FILE,
        help="Inputs (.npz, arrays named as the inputs) to verify on, beside the seeded ones.",
    )

    @classmethod
    def of(cls, options: VerifyOptions) -> Self:
        """Take these options out of a command's larger set."""
        return cls(**{field.name: getattr(options, field.name) for field in fields(cls)})


@dataclass(frozen=True, kw_only=True)
class CompileOptions(VerifyOptions):
    """How a source becomes an artifact; the same source and options give the same bytes."""

    opset: int = option(
        DEFAULT_OPSET, type=click.IntRange(min=_OLDEST_OPSET), help="Version of the ONNX operator set."
    )
