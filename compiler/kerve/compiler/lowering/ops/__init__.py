"""Handlers of `keras.ops` operations, one file per kind."""

from __future__ import annotations

from kerve.compiler.lowering.ops import (
    activations,
    addition,
    attention,
    control,
    convolution,
    core,
    creation,
    decompositions,
    einops,
    elementwise,
    formulas,
    image,
    indexing,
    linalg,
    losses,
    normalization,
    patches,
    pooling,
    products,
    reduction,
    refusals,
    resampling,
    shaping,
    sorting,
    special,
    spectral,
    tensorflow,
    tensorflow_images,
    tensorflow_lists,
    tensorflow_strings,
)
from kerve.compiler.lowering.registry import Handlers

__all__ = ["HANDLERS"]

HANDLERS = Handlers(
    [
        activations.HANDLERS,
        addition.HANDLERS,
        attention.HANDLERS,
        control.HANDLERS,
        convolution.HANDLERS,
        core.HANDLERS,
        creation.HANDLERS,
        decompositions.HANDLERS,
        einops.HANDLERS,
        elementwise.HANDLERS,
        formulas.HANDLERS,
        image.HANDLERS,
        indexing.HANDLERS,
        linalg.HANDLERS,
        losses.HANDLERS,
        normalization.HANDLERS,
        patches.HANDLERS,
        pooling.HANDLERS,
        products.HANDLERS,
        reduction.HANDLERS,
        refusals.HANDLERS,
        resampling.HANDLERS,
        shaping.HANDLERS,
        sorting.HANDLERS,
        special.HANDLERS,
        spectral.HANDLERS,
        tensorflow.HANDLERS,
        tensorflow_images.HANDLERS,
        tensorflow_lists.HANDLERS,
        tensorflow_strings.HANDLERS,
    ]
)
