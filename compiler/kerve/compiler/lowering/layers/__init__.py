"""Handlers of Keras layers, one file per family."""

from __future__ import annotations

from kerve.compiler.lowering.layers import convolution, core, normalization, pooling, recurrent, wrappers
from kerve.compiler.lowering.registry import Handlers

__all__ = ["HANDLERS"]

HANDLERS = Handlers(
    [
        convolution.HANDLERS,
        core.HANDLERS,
        normalization.HANDLERS,
        pooling.HANDLERS,
        recurrent.HANDLERS,
        wrappers.HANDLERS,
    ]
)
