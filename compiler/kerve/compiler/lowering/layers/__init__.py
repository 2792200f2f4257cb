"""Handlers of Keras layers, one file per family."""

from __future__ import annotations

from kerve.compiler.lowering.layers import (
    activation,
    augmentation,
    categorical,
    convolution,
    convolutional_recurrent,
    core,
    cropping,
    einsum_dense,
    hashing,
    normalization,
    pooling,
    recurrent,
    reshaping,
    text,
    wrappers,
)
from kerve.compiler.lowering.registry import Handlers

__all__ = ["HANDLERS"]

HANDLERS = Handlers(
    [
        activation.HANDLERS,
        augmentation.HANDLERS,
        categorical.HANDLERS,
        convolution.HANDLERS,
        convolutional_recurrent.HANDLERS,
        core.HANDLERS,
        cropping.HANDLERS,
        einsum_dense.HANDLERS,
        hashing.HANDLERS,
        normalization.HANDLERS,
        pooling.HANDLERS,
        recurrent.HANDLERS,
        reshaping.HANDLERS,
        text.HANDLERS,
        wrappers.HANDLERS,
    ]
)
