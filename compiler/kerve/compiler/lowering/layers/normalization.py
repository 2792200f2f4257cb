"""Normalization layers for which ONNX has one operator."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import onnx_ir as ir

from kerve.compiler.lowering import dtypes
from kerve.compiler.lowering.lowering import Lowering
from kerve.compiler.lowering.ops.normalization import batch_normalize
from kerve.compiler.lowering.ops.operands import rank
from kerve.compiler.lowering.registry import Handlers
from kerve.compiler.lowering.symbol import static_shape
from kerve.compiler.lowering.windows import transposed

HANDLERS = Handlers()


@HANDLERS.register("layers.BatchNormalization")
def batch_normalization(
    g: Lowering, layer: Any, inputs: ir.Value, mask: ir.Value | None = None, training: bool = False
) -> ir.Value:
    """BatchNormalization with the moving statistics, or with the batch's own if called with training=True."""
    wide = _wide(inputs)
    x = g.cast(inputs, wide)
    gamma = g.weight(layer.gamma, dtype=wide) if layer.scale else None
    beta = g.weight(layer.beta, dtype=wide) if layer.center else None
    if training and layer.trainable:
        mean, variance = _statistics_of_batch(g, layer, x, mask)
    else:
        mean, variance = (g.weight(v, dtype=wide) for v in (layer.moving_mean, layer.moving_variance))
    return batch_normalize(g, x, gamma, beta, mean, variance, axis=layer.axis, epsilon=layer.epsilon)


@HANDLERS.register("layers.GroupNormalization")
def group_normalization(g: Lowering, layer: Any, inputs: ir.Value) -> ir.Value:
    """InstanceNormalization of groups of channels (the fastest form on CPU), then scale and offset."""
    wide = _wide(inputs)
    channels, ndim = layer.axis % rank(inputs), rank(inputs)
    order = [0, channels, *(axis for axis in range(1, ndim) if axis != channels)]
    x = transposed(g, g.cast(inputs, wide), order)
    count = static_shape(x)[1]
    if layer.groups == count and ndim > 2:
        scale, offset = (
            g.constant(np.full(count, fill, wide), "group")
            if weight is None
            else g.weight(weight, dtype=wide)
            for weight, fill in ((layer.gamma, 1), (layer.beta, 0))
        )
        y = g.op.InstanceNormalization(x, scale, offset, epsilon=layer.epsilon)
        return transposed(g, y, np.argsort(order).tolist())
    y = _normalize_groups(g, x, layer.groups, layer.epsilon)
    column = [-1, *[1] * (ndim - 2)]
    for weight, write in ((layer.gamma, g.op.Mul), (layer.beta, g.op.Add)):
        if weight is not None:
            y = write(y, g.weight(weight, lambda w: w.reshape(column), role="column", dtype=wide))
    return transposed(g, y, np.argsort(order).tolist())


def _normalize_groups(g: Lowering, x: ir.Value, groups: int, epsilon: float) -> ir.Value:
    """Normalize each group of channels (axis 1) of each row."""
    assert x.dtype is not None
    ones, zeros = (g.constant(np.full(groups, fill, x.dtype.numpy()), "group") for fill in (1, 0))
    y = g.op.InstanceNormalization(g.op.Reshape(x, [0, groups, -1]), ones, zeros, epsilon=epsilon)
    sizes = [-1 if size is None else size for size in static_shape(x)]
    return g.op.Reshape(y, sizes if sizes.count(-1) == 1 else g.op.Shape(x))


def _statistics_of_batch(
    g: Lowering, layer: Any, x: ir.Value, mask: ir.Value | None
) -> tuple[ir.Value, ir.Value]:
    """Return mean and variance of the batch; that Keras also stores them does not affect outputs."""
    if layer.renorm:
        raise g.refuse(
            "it is called with training=True and renorm, and its outputs depend on statistics that it keeps",
            "call it without training=True",
        )
    g.warnings.append(
        f"layer '{g.layer_path}' is called with training=True: it normalizes by the statistics of the batch, "
        "as in Keras, so that rows of one request influence each other"
    )
    mean, variance = g.call(layer._moments, x, mask)
    return mean, variance


def _wide(inputs: ir.Value) -> str:
    """Return the type in which Keras normalizes: float32, or the input's if wider."""
    assert inputs.dtype is not None
    return str(keras.backend.result_type(dtypes.from_onnx(inputs.dtype), "float32"))
