"""Handlers of `keras.ops` operations, one file per kind."""

from __future__ import annotations

from kerve.compiler.lowering.ops import (
    activations,
    convolution,
    core,
    creation,
    elementwise,
    indexing,
    normalization,
    pooling,
    products,
    reduction,
    shaping,
    sorting,
)
from kerve.compiler.lowering.registry import Handlers

__all__ = ["HANDLERS"]

HANDLERS = Handlers(
    [
        activations.HANDLERS,
        convolution.HANDLERS,
        core.HANDLERS,
        creation.HANDLERS,
        elementwise.HANDLERS,
        indexing.HANDLERS,
        normalization.HANDLERS,
        pooling.HANDLERS,
        products.HANDLERS,
        reduction.HANDLERS,
        shaping.HANDLERS,
        sorting.HANDLERS,
    ]
)
