"""Reductions: sums, means, extremes, norms, and cumulative sums."""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np
import onnx_ir as ir
from keras import ops

from kerve.compiler.lowering import dtypes
from kerve.compiler.lowering.lowering import Lowering
from kerve.compiler.lowering.ops.operands import composite, operand, rank, reduce
from kerve.compiler.lowering.registry import Handler, Handlers

HANDLERS = Handlers()

_REDUCTIONS = {
    "numpy.Prod": "ReduceProd",
    "numpy.Sum": "ReduceSum",
}

#: Extremes, also of booleans, of which "any" is the maximum and "all" the minimum.
_EXTREMES = {
    "numpy.All": "ReduceMin",
    "numpy.Amax": "ReduceMax",
    "numpy.Amin": "ReduceMin",
    "numpy.Any": "ReduceMax",
    "numpy.Max": "ReduceMax",
    "numpy.Min": "ReduceMin",
}


def _reduction(onnx_op: str) -> Handler:
    def handler(g: Lowering, operation: Any, x: ir.Value) -> ir.Value:
        return reduce(g, onnx_op, g.cast(x, g.output_dtype), operation.axis, operation.keepdims)

    return handler


@HANDLERS.register("math.Logsumexp", typed=True)
def logsumexp(g: Lowering, operation: Any, x: ir.Value) -> ir.Value:
    """ReduceLogSumExp in the type of `x`, which Keras does not infer."""
    return reduce(g, "ReduceLogSumExp", x, operation.axis, operation.keepdims)


def _extreme(onnx_op: str) -> Handler:
    def handler(g: Lowering, operation: Any, x: ir.Value) -> ir.Value:
        x = reduce(g, onnx_op, g.cast(x, g.output_dtype), operation.axis, operation.keepdims)
        initial = getattr(operation, "initial", None)
        if initial is None:
            return x
        combine = g.op.Max if onnx_op == "ReduceMax" else g.op.Min
        return combine(x, operand(g, initial, g.output_dtype))

    return handler


for _table, _form in ((_REDUCTIONS, _reduction), (_EXTREMES, _extreme)):
    for _keras_op, _onnx_op in _table.items():
        HANDLERS.add(_keras_op, _form(_onnx_op))


@HANDLERS.register("numpy.Mean")
def mean(g: Lowering, operation: Any, x: ir.Value) -> ir.Value:
    """The mean, computed at least in float32, as in Keras."""
    return reduce(g, "ReduceMean", _at_least_float32(g, x), operation.axis, operation.keepdims)


def _at_least_float32(g: Lowering, x: ir.Value) -> ir.Value:
    assert x.dtype is not None
    return g.cast(x, keras.backend.result_type(dtypes.from_onnx(x.dtype), "float32"))


def variance(g: Lowering, x: ir.Value, axis: Any, keepdims: bool) -> ir.Value:
    """Return the mean squared distance to the mean."""
    centered = g.op.Sub(x, reduce(g, "ReduceMean", x, axis, keepdims=True))
    return reduce(g, "ReduceMean", g.op.Mul(centered, centered), axis, keepdims)


@HANDLERS.register("numpy.Var")
def var(g: Lowering, operation: Any, x: ir.Value) -> ir.Value:
    """The variance."""
    return variance(g, _at_least_float32(g, x), operation.axis, operation.keepdims)


@HANDLERS.register("numpy.Std")
def std(g: Lowering, operation: Any, x: ir.Value) -> ir.Value:
    """The standard deviation."""
    return g.op.Sqrt(variance(g, g.cast(x, g.output_dtype), operation.axis, operation.keepdims))


@HANDLERS.register("nn.Moments")
def moments(g: Lowering, operation: Any, x: ir.Value) -> tuple[ir.Value, ir.Value]:
    """Mean and variance; those of 16-bit types are clipped to float16's range, as in TensorFlow."""
    wide = _at_least_float32(g, x)
    statistics = (
        reduce(g, "ReduceMean", wide, operation.axes, operation.keepdims),
        variance(g, wide, operation.axes, operation.keepdims),
    )
    if x.dtype not in (ir.DataType.FLOAT16, ir.DataType.BFLOAT16):
        return statistics
    limits = np.finfo(np.float16)
    mean, spread = (g.op.Clip(each, float(limits.min), float(limits.max)) for each in statistics)
    return mean, spread


@HANDLERS.register("numpy.CountNonzero")
def count_nonzero(g: Lowering, operation: Any, x: ir.Value) -> ir.Value:
    """The number of elements that are not zero."""
    return reduce(g, "ReduceSum", g.cast(g.cast(x, "bool"), "int32"), operation.axis, keepdims=False)


@HANDLERS.register("numpy.Cumsum")
def cumsum(g: Lowering, operation: Any, x: ir.Value) -> ir.Value:
    """Cumulative sums."""
    x = g.cast(x, g.output_dtype)
    axis = operation.axis
    if axis is None:
        x, axis = g.op.Reshape(x, [-1]), 0
    return g.op.CumSum(x, g.constant(np.int64(axis % rank(x)), "axis"))


@HANDLERS.register("numpy.Cumprod")
def cumprod(g: Lowering, operation: Any, x: ir.Value) -> ir.Value:
    """Cumulative products, by a Scan: ONNX has no operator for it before opset 26."""
    x = g.cast(x, g.output_dtype)
    axis = operation.axis
    if axis is None:
        x, axis = g.op.Reshape(x, [-1]), 0
    assert x.shape is not None
    axis %= rank(x)
    rest = [size for index, size in enumerate(x.shape) if index != axis]
    product = ir.Value(name="product", type=x.type, shape=ir.Shape(rest))
    factor = ir.Value(name="factor", type=x.type, shape=ir.Shape(rest))
    body = ir.Graph([product, factor], [], nodes=[], opset_imports={"": g.opset}, name="cumprod")
    with g.subgraph(body):
        grown = g.op.Mul(product, factor)
        body.outputs.extend([grown, g.op.Identity(grown)])
    first = g.op.Gather(x, g.constant(np.int64(0), "first"), axis=axis)
    ones = g.op.Expand(operand(g, 1, g.output_dtype), g.op.Shape(first))
    _, running = g.ops.Scan(
        ones, x, body=body, num_scan_inputs=1, scan_input_axes=[axis], scan_output_axes=[axis], _outputs=2
    )
    running.type, running.shape = x.type, x.shape
    return running


def _average(operation: Any, x: Any, weights: Any = None) -> Any:
    axis = operation.axis
    if weights is None:
        return ops.mean(ops.cast(x, keras.backend.result_type(x.dtype, float)), axis=axis)
    dtype = keras.backend.result_type(x.dtype, weights.dtype, float)
    x, weights = ops.cast(x, dtype), ops.cast(weights, dtype)
    if axis is not None and len(x.shape) != len(weights.shape):
        return ops.tensordot(x, weights, axes=[[axis], [0]]) / ops.sum(weights)
    return ops.sum(x * weights, axis=axis) / ops.sum(weights, axis=axis)


def _nan_as(value: float, reduction: Any) -> Any:
    """Reduce with every NaN replaced by the reduction's neutral value."""

    def fn(operation: Any, x: Any, **kwargs: Any) -> Any:
        if keras.backend.is_float_dtype(x.dtype):
            x = ops.where(ops.isnan(x), ops.full_like(x, value), x)
        options = {
            name: getattr(operation, name) for name in ("axis", "keepdims") if hasattr(operation, name)
        }
        return reduction(x, **options, **kwargs)

    return fn


def _nan_extreme(value: float, reduction: Any) -> Any:
    """Like `_nan_as`, but NaN where all elements are NaN."""
    replaced = _nan_as(value, reduction)

    def fn(operation: Any, x: Any) -> Any:
        result = replaced(operation, x)
        if not keras.backend.is_float_dtype(x.dtype):
            return result
        nothing = ops.all(ops.isnan(x), axis=operation.axis, keepdims=operation.keepdims)
        return ops.where(nothing, ops.full_like(result, math.nan), result)

    return fn


def _nan_arg(value: float, reduction: Any) -> Any:
    """Like `_nan_as`, but -1 where all elements are NaN."""
    replaced = _nan_as(value, reduction)

    def fn(operation: Any, x: Any) -> Any:
        result = replaced(operation, x)
        if not keras.backend.is_float_dtype(x.dtype):
            return result
        nothing = ops.all(ops.isnan(x), axis=operation.axis, keepdims=operation.keepdims)
        return ops.where(nothing, ops.full_like(result, -1), result)

    return fn


def _counted(x: Any, operation: Any, keepdims: bool | None = None) -> Any:
    keep = operation.keepdims if keepdims is None else keepdims
    return ops.sum(ops.cast(ops.logical_not(ops.isnan(x)), x.dtype), axis=operation.axis, keepdims=keep)


def _nanmean(operation: Any, x: Any) -> Any:
    if not keras.backend.is_float_dtype(x.dtype):
        return ops.mean(x, axis=operation.axis, keepdims=operation.keepdims)
    total = ops.nansum(x, axis=operation.axis, keepdims=operation.keepdims)
    return total / _counted(x, operation)


def _nanvar(operation: Any, x: Any) -> Any:
    x = ops.cast(x, keras.backend.result_type(x.dtype, float))
    center = ops.nansum(x, axis=operation.axis, keepdims=True) / _counted(x, operation, keepdims=True)
    squares = ops.where(ops.isnan(x), ops.zeros_like(x), ops.square(x - center))
    return ops.sum(squares, axis=operation.axis, keepdims=operation.keepdims) / _counted(x, operation)


def _nancum(value: float, reduction: Any) -> Any:
    def fn(operation: Any, x: Any) -> Any:
        return reduction(ops.nan_to_num(x, nan=value), axis=operation.axis, dtype=operation.dtype)

    return fn


def _ptp(operation: Any, x: Any) -> Any:
    options = {"axis": operation.axis, "keepdims": operation.keepdims}
    return ops.max(x, **options) - ops.min(x, **options)


def _trapezoid(operation: Any, y: Any, x: Any = None) -> Any:
    x = operation.x if x is None else x
    y = ops.moveaxis(ops.cast(y, keras.backend.result_type(y.dtype, float)), operation.axis, -1)
    width = operation.dx
    if x is not None:
        x = ops.cast(x, y.dtype)
        width = ops.diff(x, axis=operation.axis)
        width = ops.moveaxis(width, operation.axis, -1) if len(x.shape) > 1 else width
    return ops.sum(0.5 * (y[..., 1:] + y[..., :-1]) * width, axis=-1)


_COMPOSITES = {
    "numpy.Average": _average,
    "numpy.Nanargmax": _nan_arg(-math.inf, ops.argmax),
    "numpy.Nanargmin": _nan_arg(math.inf, ops.argmin),
    "numpy.Nancumprod": _nancum(1.0, ops.cumprod),
    "numpy.Nancumsum": _nancum(0.0, ops.cumsum),
    "numpy.Nanmax": _nan_extreme(-math.inf, ops.max),
    "numpy.Nanmean": _nanmean,
    "numpy.Nanmin": _nan_extreme(math.inf, ops.min),
    "numpy.Nanprod": _nan_as(1.0, ops.prod),
    "numpy.Nanstd": lambda operation, x: ops.sqrt(_nanvar(operation, x)),
    "numpy.Nansum": _nan_as(0.0, ops.sum),
    "numpy.Nanvar": _nanvar,
    "numpy.Ptp": _ptp,
    "numpy.Trapezoid": _trapezoid,
}

for _keras_op, _fn in _COMPOSITES.items():
    HANDLERS.add(_keras_op, composite(_fn))
