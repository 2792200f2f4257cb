"""Handlers of `keras.ops` operations, one file per module of Keras."""

from __future__ import annotations

from kerve.compiler.lowering.ops import convolution, core, nn, normalization, numpy, pooling
from kerve.compiler.lowering.registry import Handlers

__all__ = ["HANDLERS"]

HANDLERS = Handlers(
    [
        convolution.HANDLERS,
        core.HANDLERS,
        nn.HANDLERS,
        normalization.HANDLERS,
        numpy.HANDLERS,
        pooling.HANDLERS,
    ]
)
