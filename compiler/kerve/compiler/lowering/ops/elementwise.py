"""Elementwise operations: arithmetic, comparison, logic, bits, rounding, transcendental functions."""

from __future__ import annotations

import functools
from typing import Any

import keras
import numpy as np
import onnx_ir as ir

from kerve.compiler.lowering import dtypes
from kerve.compiler.lowering.constants import constant_value
from kerve.compiler.lowering.lowering import Lowering
from kerve.compiler.lowering.ops.operands import operand, strong_type, write
from kerve.compiler.lowering.registry import Handler, Handlers
from kerve.compiler.lowering.symbol import is_symbol

HANDLERS = Handlers()

#: Types for which ONNX Runtime has a BitShift kernel.
_SHIFTED = (ir.DataType.UINT8, ir.DataType.UINT32, ir.DataType.UINT64)

#: Keras operations that one ONNX operator computes, in the type that Keras infers for the result.
_UNARY = {
    "math.Erf": "Erf",
    "numpy.Abs": "Abs",
    "numpy.Absolute": "Abs",
    "numpy.Arccos": "Acos",
    "numpy.Arccosh": "Acosh",
    "numpy.Arcsin": "Asin",
    "numpy.Arcsinh": "Asinh",
    "numpy.Arctan": "Atan",
    "numpy.Arctanh": "Atanh",
    "numpy.BitwiseInvert": "BitwiseNot",
    "numpy.BitwiseNot": "BitwiseNot",
    "numpy.Ceil": "Ceil",
    "numpy.Cos": "Cos",
    "numpy.Cosh": "Cosh",
    "numpy.Exp": "Exp",
    "numpy.Fabs": "Abs",
    "numpy.Floor": "Floor",
    "numpy.Log": "Log",
    "numpy.LogicalNot": "Not",
    "numpy.Negative": "Neg",
    "numpy.Sign": "Sign",
    "numpy.Sin": "Sin",
    "numpy.Sinh": "Sinh",
    "numpy.Sqrt": "Sqrt",
    "numpy.Tan": "Tan",
    "numpy.Tanh": "Tanh",
}

_BINARY = {
    "numpy.BitwiseAnd": "BitwiseAnd",
    "numpy.BitwiseOr": "BitwiseOr",
    "numpy.BitwiseXor": "BitwiseXor",
    "numpy.Divide": "Div",
    "numpy.LogicalAnd": "And",
    "numpy.LogicalOr": "Or",
    "numpy.LogicalXor": "Xor",
    "numpy.Maximum": "Max",
    "numpy.Minimum": "Min",
    "numpy.Multiply": "Mul",
    "numpy.Subtract": "Sub",
    "numpy.TrueDivide": "Div",
}

#: Operators with a boolean result, whose operands are cast to their common type.
_COMPARISON = {
    "numpy.Equal": "Equal",
    "numpy.Greater": "Greater",
    "numpy.GreaterEqual": "GreaterOrEqual",
    "numpy.Less": "Less",
    "numpy.LessEqual": "LessOrEqual",
}


def _unary(onnx_op: str) -> Handler:
    def handler(g: Lowering, _: Any, x: Any) -> ir.Value:
        return write(g, onnx_op, operand(g, x, g.output_dtype))

    return handler


def _binary(onnx_op: str) -> Handler:
    def handler(g: Lowering, _: Any, x1: Any, x2: Any) -> ir.Value:
        return write(g, onnx_op, operand(g, x1, g.output_dtype), operand(g, x2, g.output_dtype))

    return handler


def common_type(*operands: Any) -> ir.DataType:
    """Return the type in which Keras compares operands; Python numbers are not weakly typed."""
    return dtypes.to_onnx(keras.backend.result_type(*map(strong_type, operands)))


def _comparison(onnx_op: str) -> Handler:
    def handler(g: Lowering, _: Any, x1: Any, x2: Any) -> ir.Value:
        dtype = common_type(x1, x2)
        return write(g, onnx_op, operand(g, x1, dtype), operand(g, x2, dtype))

    return handler


for _table, _form in ((_UNARY, _unary), (_BINARY, _binary), (_COMPARISON, _comparison)):
    for _keras_op, _onnx_op in _table.items():
        HANDLERS.add(_keras_op, _form(_onnx_op))


@HANDLERS.register("numpy.NotEqual")
def not_equal(g: Lowering, _: Any, x1: Any, x2: Any) -> ir.Value:
    """The opposite of Equal."""
    dtype = common_type(x1, x2)
    return g.op.Not(g.op.Equal(operand(g, x1, dtype), operand(g, x2, dtype)))


@HANDLERS.register("numpy.Square")
def square(g: Lowering, _: Any, x: ir.Value) -> ir.Value:
    """The product of `x` with itself."""
    x = g.cast(x, g.output_dtype)
    return g.op.Mul(x, x)


@HANDLERS.register("numpy.Reciprocal", typed=True)  # Keras infers float32
def reciprocal(g: Lowering, _: Any, x: ir.Value) -> ir.Value:
    """One over `x`."""
    return g.op.Reciprocal(x)


@HANDLERS.register("math.Rsqrt")
def rsqrt(g: Lowering, _: Any, x: ir.Value) -> ir.Value:
    """One over the square root."""
    return g.op.Reciprocal(g.op.Sqrt(g.cast(x, g.output_dtype)))


@HANDLERS.register("numpy.Power")
def power(g: Lowering, _: Any, x1: Any, x2: Any) -> ir.Value:
    """Compute integer powers in 64 bits and truncate, so that overflow wraps around."""
    dtype = ir.DataType.INT64 if g.output_dtype.is_integer() else g.output_dtype
    exponent = constant_value(x2) if isinstance(x2, ir.Value) else None if is_symbol(x2) else x2
    if dtype == ir.DataType.INT64 and exponent is not None and np.ndim(exponent) == 0 and exponent > 0:
        return g.cast(_raised(g, operand(g, x1, dtype), int(exponent)), g.output_dtype)
    return g.cast(g.op.Pow(operand(g, x1, dtype), operand(g, x2, dtype)), g.output_dtype)


def _raised(g: Lowering, x: ir.Value, exponent: int) -> ir.Value:
    """Exponentiate by squaring: ONNX Runtime computes powers in float64."""
    factors = []
    while exponent:
        factors += [x] if exponent % 2 else []
        exponent //= 2
        x = g.op.Mul(x, x) if exponent else x
    return functools.reduce(g.op.Mul, factors)


@HANDLERS.register("numpy.FloorDivide")
def floor_divide(g: Lowering, _: Any, x1: Any, x2: Any) -> ir.Value:
    """Division rounded down."""
    return quotient(g, operand(g, x1, g.output_dtype), operand(g, x2, g.output_dtype))


def quotient(g: Lowering, x1: ir.Value, x2: ir.Value) -> ir.Value:
    """Divide and round down. ONNX's integer division truncates: one too high where remainders differ."""
    assert x1.dtype is not None
    divided = g.op.Div(x1, x2)
    if dtypes.is_float(x1.dtype):
        return g.op.Floor(divided)
    if not x1.dtype.is_signed():
        return divided
    is_exact = g.op.Equal(g.op.Mod(x1, x2), g.op.Mod(x1, x2, fmod=1))
    return g.op.Sub(divided, g.cast(g.op.Not(is_exact), x1.dtype))


@HANDLERS.register("numpy.Mod", typed=True)
def mod(g: Lowering, _: Any, x1: Any, x2: Any) -> ir.Value:
    """The remainder with the sign of the divisor."""
    dtype = common_type(x1, x2)
    dtype = ir.DataType.INT32 if dtype == ir.DataType.BOOL else dtype
    return remainder(g, operand(g, x1, dtype), operand(g, x2, dtype))


def remainder(g: Lowering, x1: ir.Value, x2: ir.Value) -> ir.Value:
    """Return the remainder of `quotient`."""
    assert x1.dtype is not None
    if not dtypes.is_float(x1.dtype):
        return g.op.Mod(x1, x2)
    truncated = g.op.Mod(x1, x2, fmod=1)
    opposed = g.op.Less(g.op.Mul(g.op.Sign(truncated), g.op.Sign(x2)), 0.0)
    return g.op.Where(opposed, g.op.Add(truncated, x2), truncated)


@HANDLERS.register("numpy.Fmod")
def fmod(g: Lowering, _: Any, x1: Any, x2: Any) -> ir.Value:
    """The remainder with the sign of the dividend."""
    return g.op.Mod(operand(g, x1, g.output_dtype), operand(g, x2, g.output_dtype), fmod=1)


def _shift(direction: str) -> Handler:
    """Clip the count to 0 ... bits - 1, as TensorFlow does."""

    def handler(g: Lowering, _: Any, x: ir.Value, y: Any) -> ir.Value:
        dtype = g.output_dtype
        x = operand(g, x, dtype)
        none, most, minus_one = (
            g.constant(np.int64(each), name)
            for each, name in ((0, "none"), (dtype.bitwidth - 1, "most"), (-1, "minus_one"))
        )
        unsigned = dtype if dtype in _SHIFTED else ir.DataType.UINT64
        count = g.cast(g.op.Clip(operand(g, y, ir.DataType.INT64), none, most), unsigned)
        if direction == "LEFT" or not dtype.is_signed():
            return g.cast(g.op.BitShift(g.cast(x, unsigned), count, direction=direction), dtype)
        # A negative number is shifted as its complement, -1 - x, since ones are shifted in from the left.
        wide = g.cast(x, ir.DataType.INT64)
        negative = g.op.Less(wide, none)
        given = g.op.Where(negative, g.op.Sub(minus_one, wide), wide)
        shifted = g.cast(
            g.op.BitShift(g.cast(given, unsigned), count, direction=direction), ir.DataType.INT64
        )
        return g.op.Where(negative, g.op.Sub(minus_one, shifted), shifted)

    return handler


for _name, _direction in (("Left", "LEFT"), ("Right", "RIGHT")):
    HANDLERS.add(f"numpy.{_name}Shift", _shift(_direction))
    HANDLERS.add(f"numpy.Bitwise{_name}Shift", _shift(_direction))


@HANDLERS.register("numpy.Clip")
def clip(g: Lowering, operation: Any, x: ir.Value) -> ir.Value:
    """One Clip for constant bounds; if bounds cross, the lower one wins in TensorFlow."""
    dtype = g.output_dtype
    bounds = [g.unwrap(bound) for bound in (operation.x_min, operation.x_max)]
    low, high = (None if bound is None else operand(g, bound, dtype) for bound in bounds)
    x = g.cast(x, dtype)
    known = [bound.const_value.numpy() for bound in (low, high) if bound is not None and bound.const_value]
    numbers = len(known) == 2 - bounds.count(None) and all(bound.ndim == 0 for bound in known)
    if numbers and (len(known) < 2 or known[0] <= known[1]):
        return g.op.Clip(x, low, high)
    x = x if high is None else g.op.Min(x, high)
    return x if low is None else g.op.Max(x, low)


@HANDLERS.register("numpy.Round")
def round_(g: Lowering, operation: Any, x: ir.Value) -> ir.Value:
    """Round half to even, at a decimal place."""
    assert x.dtype is not None
    if dtypes.is_float(x.dtype):
        if operation.decimals == 0:
            return g.op.Round(x)
        factor = 10.0**operation.decimals
        return g.op.Div(g.op.Round(g.op.Mul(x, factor)), factor)
    if operation.decimals >= 0:
        return x
    factor = 10.0**operation.decimals
    return g.op.Div(g.op.Round(g.op.Mul(g.cast(x, keras.config.floatx()), factor)), factor)


@HANDLERS.register("numpy.Trunc")
def trunc(g: Lowering, _: Any, x: ir.Value) -> ir.Value:
    """Towards zero."""
    return truncated(g, x) if dtypes.is_float(g.output_dtype) else x


def truncated(g: Lowering, x: ir.Value) -> ir.Value:
    """Round towards zero."""
    return g.op.Where(g.op.Less(x, 0.0), g.op.Ceil(x), g.op.Floor(x))


def _float_test(write: Any) -> Handler:
    """Make a handler of a test of floats; integers are cast to float32."""

    def handler(g: Lowering, _: Any, x: ir.Value) -> ir.Value:
        assert x.dtype is not None
        if not dtypes.is_float(x.dtype):
            x = g.cast(x, "float32")
        return write(g, x)

    return handler


HANDLERS.add("numpy.Isnan", _float_test(lambda g, x: g.op.IsNaN(x)))
HANDLERS.add("numpy.Isinf", _float_test(lambda g, x: g.op.IsInf(x)))
HANDLERS.add("numpy.Isposinf", _float_test(lambda g, x: g.op.IsInf(x, detect_negative=0)))
HANDLERS.add("numpy.Isneginf", _float_test(lambda g, x: g.op.IsInf(x, detect_positive=0)))
HANDLERS.add("numpy.Isfinite", _float_test(lambda g, x: g.op.Not(g.op.Or(g.op.IsNaN(x), g.op.IsInf(x)))))


@HANDLERS.register("numpy.Signbit")
def signbit(g: Lowering, _: Any, x: ir.Value) -> ir.Value:
    """Whether the sign bit is set, also for -0.0, whose reciprocal is -inf."""
    assert x.dtype is not None
    if not dtypes.is_float(x.dtype):
        return g.op.Less(g.cast(x, "int64"), 0)
    return g.op.Or(g.op.Less(x, 0.0), g.op.Less(g.op.Reciprocal(x), 0.0))


@HANDLERS.register("numpy.Where", typed=True)
def where(g: Lowering, _: Any, condition: Any, x1: Any = None, x2: Any = None) -> Any:
    """Choose elementwise; with one argument, return the indices of true elements."""
    condition = operand(g, condition, ir.DataType.BOOL)
    if x1 is None:
        return nonzero(g, None, condition)
    known = [strong_type(x) if isinstance(x, ir.Value) else type(x) for x in (x1, x2)]
    dtype = dtypes.to_onnx(keras.backend.result_type(*known))
    return g.op.Where(condition, operand(g, x1, dtype), operand(g, x2, dtype))


@HANDLERS.register("numpy.Nonzero", typed=True)
def nonzero(g: Lowering, _: Any, x: ir.Value) -> tuple[ir.Value, ...]:
    """The indices of nonzero elements, one vector for each dimension."""
    assert x.shape is not None
    places = g.op.NonZero(g.cast(x, "bool"))
    rows = (g.op.Gather(places, g.constant(np.int64(axis), "axis"), axis=0) for axis in range(len(x.shape)))
    vectors = tuple(g.cast(row, "int32") for row in rows)
    for vector in vectors:
        vector.shape = ir.Shape([None])
    return vectors


def _no_change(_g: Lowering, _: Any, x: ir.Value) -> ir.Value:
    return x


for _name in ("numpy.Conj", "numpy.Conjugate", "numpy.Copy", "numpy.Real", "core.StopGradient"):
    HANDLERS.add(_name, _no_change)
