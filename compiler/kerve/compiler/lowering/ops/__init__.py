"""Handlers of `keras.ops` operations, one file per module of Keras."""

from __future__ import annotations

from kerve.compiler.lowering.ops import core, nn, numpy
from kerve.compiler.lowering.registry import Handlers

__all__ = ["HANDLERS"]

HANDLERS = Handlers(
    [
        core.HANDLERS,
        nn.HANDLERS,
        numpy.HANDLERS,
    ]
)
