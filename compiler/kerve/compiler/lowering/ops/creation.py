"""Operations that create tensors: filled, ranges, spaced."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import onnx_ir as ir
from keras import ops

from kerve.compiler.lowering import dtypes
from kerve.compiler.lowering.lowering import Lowering
from kerve.compiler.lowering.ops.operands import composite, operand, strong_type
from kerve.compiler.lowering.ops.shaping import expand
from kerve.compiler.lowering.registry import Handler, Handlers

HANDLERS = Handlers()


def _like(number: int) -> Handler:
    def handler(g: Lowering, _: Any, x: ir.Value) -> ir.Value:
        return _fill(g, x, operand(g, number, g.output_dtype))

    return handler


def _fill(g: Lowering, x: ir.Value, value: ir.Value) -> ir.Value:
    assert x.shape is not None
    if all(isinstance(dim, int) for dim in x.shape):
        return expand(g, value, list(x.shape))
    return g.op.Expand(value, g.op.Shape(x))


HANDLERS.add("numpy.EmptyLike", _like(0))
HANDLERS.add("numpy.OnesLike", _like(1))
HANDLERS.add("numpy.ZerosLike", _like(0))


@HANDLERS.register("numpy.FullLike")
def full_like(g: Lowering, _: Any, x: ir.Value, fill_value: Any) -> ir.Value:
    """One value in the shape of another tensor."""
    return _fill(g, x, operand(g, fill_value, g.output_dtype))


@HANDLERS.register("numpy.Full", typed=True)
def full(g: Lowering, operation: Any, fill_value: Any) -> ir.Value:
    """One value in a given shape."""
    dtype = dtypes.to_onnx(operation.dtype or keras.config.floatx())
    dims = operation.shape
    return expand(g, operand(g, fill_value, dtype), [dims] if isinstance(dims, int) else dims)


@HANDLERS.register("numpy.Arange", typed=True)
def arange(g: Lowering, operation: Any, start: Any, stop: Any = None, step: Any = None) -> ir.Value:
    """Range, whose bounds and step may be tensors."""
    given = [bound for bound in (start, stop, step) if bound is not None]
    wanted = operation.dtype or keras.backend.result_type(*map(strong_type, given))
    dtype = dtypes.to_onnx(wanted)
    if stop is None:
        start, stop = 0, start
    bounds = [operand(g, bound, dtype) for bound in (start, stop, 1 if step is None else step)]
    result = g.op.Range(*bounds)
    result.shape = ir.Shape([None])
    return result


def _linspace(operation: Any, start: Any, stop: Any) -> Any:
    count = operation.num
    dtype = operation.dtype or keras.backend.result_type(
        getattr(start, "dtype", type(start)), getattr(stop, "dtype", type(stop)), float
    )
    compute = dtype if keras.backend.is_float_dtype(dtype) else keras.config.floatx()
    start, stop = ops.cast(ops.cast(start, dtype), compute), ops.cast(ops.cast(stop, dtype), compute)
    intervals = count - 1 if operation.endpoint else count
    shape = [-1] + [1] * len(ops.add(start, stop).shape)
    share = ops.cast(ops.reshape(np.arange(count) / max(intervals, 1), shape), compute)
    result = ops.expand_dims(start, 0) * (1 - share) + ops.expand_dims(stop, 0) * share
    result = ops.moveaxis(result, 0, operation.axis)
    if not keras.backend.is_float_dtype(dtype):
        result = ops.cast(ops.floor(result), dtype)
    if not operation.retstep:
        return result
    return result, (stop - start) / max(intervals, 1)


def _logspace(operation: Any, start: Any, stop: Any) -> Any:
    exponents = ops.linspace(
        start, stop, operation.num, operation.endpoint, dtype=operation.dtype, axis=operation.axis
    )
    return ops.power(ops.full_like(exponents, operation.base), exponents)


def _geomspace(operation: Any, start: Any, stop: Any) -> Any:
    dtype = operation.dtype or keras.config.floatx()
    logs = [ops.log10(ops.cast(ops.abs(bound), dtype)) for bound in (start, stop)]
    options = {"dtype": operation.dtype, "axis": operation.axis}
    powers = ops.logspace(*logs, operation.num, operation.endpoint, **options)
    return powers * ops.cast(ops.sign(ops.cast(start, dtype)), powers.dtype)


@HANDLERS.register("numpy.Ndim")
def ndim(g: Lowering, _: Any, x: ir.Value) -> ir.Value:
    """The number of dimensions, which is always known."""
    assert x.shape is not None
    return g.constant(np.int32(len(x.shape)), "ndim")


@HANDLERS.register("numpy.Size")
def size(g: Lowering, _: Any, x: ir.Value) -> ir.Value:
    """The number of elements."""
    return g.op.Size(x)


_COMPOSITES = {
    "numpy.Array": lambda operation, x: ops.convert_to_tensor(x, operation.dtype),
    "numpy.Linspace": _linspace,
    "numpy.Logspace": _logspace,
}

for _keras_op, _fn in _COMPOSITES.items():
    HANDLERS.add(_keras_op, composite(_fn))

HANDLERS.add("numpy.Geomspace", composite(_geomspace), typed=True)  # Keras infers a wrong type
