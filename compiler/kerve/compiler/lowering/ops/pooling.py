"""The pools of `keras.ops.nn`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import keras
import numpy as np
import onnx_ir as ir

from kerve.compiler.lowering import dtypes
from kerve.compiler.lowering.lowering import Lowering
from kerve.compiler.lowering.ops.operands import rank
from kerve.compiler.lowering.registry import Handlers
from kerve.compiler.lowering.symbol import static_shape
from kerve.compiler.lowering.windows import (
    Windows,
    each,
    from_channels_first,
    padded,
    spatial_sizes,
    to_channels_first,
)

HANDLERS = Handlers()


@HANDLERS.register("nn.MaxPool")
def max_pool(g: Lowering, operation: Any, inputs: ir.Value) -> ir.Value:
    """MaxPool."""

    def pad(x: ir.Value, windows: Windows, pool: Callable[[ir.Value], ir.Value]) -> ir.Value:
        assert x.dtype is not None
        floating = dtypes.is_float(x.dtype)
        lowest = -np.inf if floating else np.iinfo(x.dtype.numpy()).min
        return pool(padded(g, x, windows, g.constant(np.array(lowest, x.dtype.numpy()), "lowest")))

    return _pool(g, operation, inputs, g.op.MaxPool, pad)


@HANDLERS.register("nn.AveragePool")
def average_pool(g: Lowering, operation: Any, inputs: ir.Value) -> ir.Value:
    """AveragePool; what was padded does not count, in Keras as by default in ONNX."""

    def pad(x: ir.Value, windows: Windows, pool: Callable[[ir.Value], ir.Value]) -> ir.Value:
        assert x.dtype is not None
        one = g.constant(np.ones((), x.dtype.numpy()))
        ones = g.op.Expand(one, g.op.Concat([1, 1], g.op.Shape(x, start=2), axis=0))
        share = pool(padded(g, ones, windows))  # of each window that is not padding
        return g.op.Div(pool(padded(g, x, windows)), share)

    return _pool(g, operation, inputs, g.op.AveragePool, pad)


@HANDLERS.register("nn.AdaptiveMaxPool")
def adaptive_max_pool(g: Lowering, operation: Any, inputs: ir.Value) -> ir.Value:
    """The largest of each window, one axis after the other."""

    def reduce(windows: ir.Value, _counts: np.ndarray[Any, Any], axis: int) -> ir.Value:
        return g.op.ReduceMax(windows, [axis], keepdims=0)

    return _adaptive_pool(g, operation, inputs, g.op.MaxPool, reduce)


@HANDLERS.register("nn.AdaptiveAveragePool")
def adaptive_average_pool(g: Lowering, operation: Any, inputs: ir.Value) -> ir.Value:
    """The mean of each window, one axis after the other."""
    ndim = rank(inputs)

    def reduce(windows: ir.Value, counts: np.ndarray[Any, Any], axis: int) -> ir.Value:
        reach = counts.max()
        weights = (np.arange(reach) < counts[:, None]) / counts[:, None]
        weights = weights.astype(np.float32).reshape(*weights.shape, *[1] * (ndim - axis))
        weighted = g.op.Mul(windows, g.cast(g.constant(weights, "weights"), g.output_dtype))
        return g.op.ReduceSum(weighted, [axis], keepdims=0)

    return _adaptive_pool(g, operation, inputs, g.op.AveragePool, reduce)


def _pool(
    g: Lowering,
    operation: Any,
    inputs: ir.Value,
    write: Callable[..., ir.Value],
    pad: Callable[[ir.Value, Windows, Callable[[ir.Value], ir.Value]], ir.Value],
) -> ir.Value:
    """Pool; `pad` pools what must be padded in the graph."""
    sizes = each(operation.pool_size, rank(inputs) - 2)
    windows = Windows.of(sizes, operation.strides or sizes, operation.padding)
    data_format = operation.data_format or keras.config.image_data_format()
    x = to_channels_first(g, inputs, data_format)
    if windows.pads_in_graph(spatial_sizes(x)):
        bare = replace(windows, padding="valid").attributes(spatial_sizes(x))
        y = pad(x, windows, lambda padded_x: write(padded_x, **bare))
    else:
        y = write(x, **windows.attributes(spatial_sizes(x)))
    return from_channels_first(g, y, data_format)


def _adaptive_pool(
    g: Lowering,
    operation: Any,
    inputs: ir.Value,
    pool: Callable[..., ir.Value],
    reduce: Callable[[ir.Value, np.ndarray[Any, Any], int], ir.Value],
) -> ir.Value:
    """Pool to a given size: with one pool where it divides the input's, else window by window.

    Along one axis, window i of n reaches from floor(i * size / n) to ceil((i + 1) * size / n).
    """
    data_format = operation.data_format or keras.config.image_data_format()
    first = 1 if data_format == "channels_last" else 2
    shape = static_shape(inputs)
    axes = range(first, first + len(shape) - 2)
    sizes = [size for size in shape[first : axes.stop] if size is not None]
    if len(sizes) < len(axes):
        raise g.refuse(
            f"adaptive pooling of open spatial sizes {shape}, which Keras cannot compute either",
            "give the model's Input its spatial sizes",
        )
    known = list(zip(sizes, each(operation.output_size, len(axes)), strict=True))
    if all(size % count == 0 for size, count in known):
        steps = [size // count for size, count in known]
        x = to_channels_first(g, inputs, data_format)
        return from_channels_first(g, pool(x, kernel_shape=steps, strides=steps), data_format)
    x = inputs
    for axis, (size, count) in zip(axes, known, strict=True):
        starts = np.arange(count) * size // count
        counts = -(-np.arange(1, count + 1) * size // count) - starts
        reach = np.minimum(np.arange(counts.max()), counts[:, None] - 1)  # short windows repeat their end
        windows = g.op.Gather(x, g.constant(starts[:, None] + reach, "windows"), axis=axis)
        x = reduce(windows, counts, axis + 1)
    return x
