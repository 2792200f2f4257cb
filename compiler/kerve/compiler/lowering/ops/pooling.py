"""The pooling operations of `keras.ops.nn`."""

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
    """AveragePool; padding is not counted, in Keras as by default in ONNX."""

    def pad(x: ir.Value, windows: Windows, pool: Callable[[ir.Value], ir.Value]) -> ir.Value:
        assert x.dtype is not None
        one = g.constant(np.ones((), x.dtype.numpy()))
        ones = g.op.Expand(one, g.op.Concat([1, 1], g.op.Shape(x, start=2), axis=0))
        share = pool(padded(g, ones, windows))  # of each window that is not padding
        return g.op.Div(pool(padded(g, x, windows)), share)

    return _pool(g, operation, inputs, g.op.AveragePool, pad)


@HANDLERS.register("nn.AdaptiveMaxPool")
def adaptive_max_pool(g: Lowering, operation: Any, inputs: ir.Value) -> ir.Value:
    """The maximum of each window, one axis after the other."""

    def reduce(windows: ir.Value, _shares: Callable[[], ir.Value], axis: int) -> ir.Value:
        return g.op.ReduceMax(windows, [axis], keepdims=0)

    return _adaptive_pool(g, operation, inputs, g.op.MaxPool, reduce)


@HANDLERS.register("nn.AdaptiveAveragePool")
def adaptive_average_pool(g: Lowering, operation: Any, inputs: ir.Value) -> ir.Value:
    """The mean of each window, one axis after the other."""
    ndim = rank(inputs)

    def reduce(windows: ir.Value, shares: Callable[[], ir.Value], axis: int) -> ir.Value:
        weights = g.cast(shares(), g.output_dtype)
        if axis < ndim:
            weights = g.op.Unsqueeze(weights, list(range(2, ndim - axis + 2)))
        return g.op.ReduceSum(g.op.Mul(windows, weights), [axis], keepdims=0)

    return _adaptive_pool(g, operation, inputs, g.op.AveragePool, reduce)


def _pool(
    g: Lowering,
    operation: Any,
    inputs: ir.Value,
    write: Callable[..., ir.Value],
    pad: Callable[[ir.Value, Windows, Callable[[ir.Value], ir.Value]], ir.Value],
) -> ir.Value:
    """Apply a pooling operator; `pad` applies it if the input must be padded in the graph."""
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
    reduce: Callable[[ir.Value, Callable[[], ir.Value], int], ir.Value],
) -> ir.Value:
    """Pool to a given size: with one operator if it divides the input's, otherwise with gathered windows.

    Along one axis, window i of n reaches from floor(i * size / n) to ceil((i + 1) * size / n).
    """
    data_format = operation.data_format or keras.config.image_data_format()
    first = 1 if data_format == "channels_last" else 2
    shape = static_shape(inputs)
    axes = range(first, first + len(shape) - 2)
    counts = each(operation.output_size, len(axes))
    sizes = shape[first : axes.stop]
    steps = [
        size // count
        for size, count in zip(sizes, counts, strict=True)
        if size is not None and size % count == 0
    ]
    if len(steps) == len(axes):
        x = to_channels_first(g, inputs, data_format)
        return from_channels_first(g, pool(x, kernel_shape=steps, strides=steps), data_format)
    x = inputs
    for axis, size, count in zip(axes, sizes, counts, strict=True):
        index, shares = (
            _known_windows(g, size, count) if size is not None else _open_windows(g, x, axis, count)
        )
        x = reduce(g.op.Gather(x, index, axis=axis), shares, axis + 1)
    return x


def _known_windows(g: Lowering, size: int, count: int) -> tuple[ir.Value, Callable[[], ir.Value]]:
    """Return the indices in each window, padded by repeating the last one, and the weight of each."""
    starts = np.arange(count) * size // count
    lengths = -(-np.arange(1, count + 1) * size // count) - starts
    reach = np.arange(lengths.max())
    index = starts[:, None] + np.minimum(reach, lengths[:, None] - 1)
    shares = ((reach < lengths[:, None]) / lengths[:, None]).astype(np.float32)
    return g.constant(index, "windows"), lambda: g.constant(shares, "shares")


def _open_windows(g: Lowering, x: ir.Value, axis: int, count: int) -> tuple[ir.Value, Callable[[], ir.Value]]:
    """Return the same for a dynamic size."""
    size = g.op.Shape(x, start=axis, end=axis + 1)
    number = np.arange(count, dtype=np.int64)
    starts = g.op.Div(g.op.Mul(g.constant(number, "window"), size), count)
    ends = g.op.Div(g.op.Add(g.op.Mul(g.constant(number + 1, "window"), size), count - 1), count)
    lengths = g.op.Unsqueeze(g.op.Sub(ends, starts), [1])
    reach = g.op.Range(0, g.op.ReduceMax(lengths, [0, 1], keepdims=0), 1)
    index = g.op.Add(g.op.Unsqueeze(starts, [1]), g.op.Min(reach, g.op.Sub(lengths, 1)))

    def shares() -> ir.Value:
        own = g.cast(g.op.Less(reach, lengths), ir.DataType.FLOAT)
        return g.op.Div(own, g.cast(lengths, ir.DataType.FLOAT))

    return index, shares
