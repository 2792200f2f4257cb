"""Operations on each element: arithmetic, comparison, logic, bits, rounding, transcendental functions."""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np
import onnx_ir as ir
from keras import ops

from kerve.compiler.lowering import dtypes
from kerve.compiler.lowering.lowering import Lowering
from kerve.compiler.lowering.ops.operands import composite, operand, strong_type, write
from kerve.compiler.lowering.registry import Handler, Handlers

HANDLERS = Handlers()

#: Operators of ONNX that compute one of Keras in the type that Keras infers for the result.
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
    "numpy.Power": "Pow",
    "numpy.Subtract": "Sub",
    "numpy.TrueDivide": "Div",
}

#: Operators whose result is boolean and whose operands meet in their common type.
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
    """Return the type in which Keras compares operands, Python numbers having a type of their own."""
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


@HANDLERS.register("numpy.Reciprocal", typed=True)  # Keras takes its result for float32
def reciprocal(g: Lowering, _: Any, x: ir.Value) -> ir.Value:
    """One over `x`."""
    return g.op.Reciprocal(x)


@HANDLERS.register("math.Rsqrt")
def rsqrt(g: Lowering, _: Any, x: ir.Value) -> ir.Value:
    """One over the square root."""
    return g.op.Reciprocal(g.op.Sqrt(g.cast(x, g.output_dtype)))


@HANDLERS.register("numpy.FloorDivide")
def floor_divide(g: Lowering, _: Any, x1: Any, x2: Any) -> ir.Value:
    """Division rounded down; ONNX divides integers towards zero, but `Mod` follows the divisor's sign."""
    dtype = g.output_dtype
    x1, x2 = operand(g, x1, dtype), operand(g, x2, dtype)
    if dtypes.is_float(dtype):
        return g.op.Floor(g.op.Div(x1, x2))
    if dtype.is_signed():
        x1 = g.op.Sub(x1, g.op.Mod(x1, x2))
    return g.op.Div(x1, x2)


@HANDLERS.register("numpy.Mod", typed=True)
def mod(g: Lowering, _: Any, x1: Any, x2: Any) -> ir.Value:
    """The remainder with the sign of the divisor."""
    dtype = common_type(x1, x2)
    dtype = ir.DataType.INT32 if dtype == ir.DataType.BOOL else dtype
    x1, x2 = operand(g, x1, dtype), operand(g, x2, dtype)
    if not dtypes.is_float(dtype):
        return g.op.Mod(x1, x2)
    truncated = g.op.Mod(x1, x2, fmod=1)
    opposed = g.op.Less(g.op.Mul(g.op.Sign(truncated), g.op.Sign(x2)), 0.0)
    return g.op.Where(opposed, g.op.Add(truncated, x2), truncated)


@HANDLERS.register("numpy.Fmod")
def fmod(g: Lowering, _: Any, x1: Any, x2: Any) -> ir.Value:
    """The remainder with the sign of the dividend."""
    return g.op.Mod(operand(g, x1, g.output_dtype), operand(g, x2, g.output_dtype), fmod=1)


def _shift(direction: str) -> Handler:
    def handler(g: Lowering, _: Any, x: ir.Value, y: Any) -> ir.Value:
        dtype = g.output_dtype
        if direction == "RIGHT" and dtype.is_signed():  # ONNX shifts unsigned numbers only: divide instead
            wide = ir.DataType.INT64
            divisor = g.op.Pow(g.constant(np.int64(2), "two"), operand(g, y, wide))
            x = operand(g, x, wide)
            return g.op.Div(g.op.Sub(x, g.op.Mod(x, divisor)), divisor)
        unsigned = dtype if not dtype.is_signed() else ir.DataType.UINT64
        return g.op.BitShift(operand(g, x, unsigned), operand(g, y, unsigned), direction=direction)

    return handler


for _name, _direction in (("Left", "LEFT"), ("Right", "RIGHT")):
    HANDLERS.add(f"numpy.{_name}Shift", _shift(_direction))
    HANDLERS.add(f"numpy.Bitwise{_name}Shift", _shift(_direction))


@HANDLERS.register("numpy.Clip")
def clip(g: Lowering, operation: Any, x: ir.Value) -> ir.Value:
    """Bounds that are numbers become one Clip; of those that cross, TensorFlow lets the lower one win."""
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
    """To the nearest even number, at a decimal place."""
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
    if not dtypes.is_float(g.output_dtype):
        return x
    return g.op.Where(g.op.Less(x, 0.0), g.op.Ceil(x), g.op.Floor(x))


def _float_test(write: Any) -> Handler:
    """Tests that are false of every integer."""

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
    """Whether the sign is negative, that of -0.0 included: its reciprocal is -inf."""
    assert x.dtype is not None
    if not dtypes.is_float(x.dtype):
        return g.op.Less(g.cast(x, "int64"), 0)
    return g.op.Or(g.op.Less(x, 0.0), g.op.Less(g.op.Reciprocal(x), 0.0))


@HANDLERS.register("numpy.Where", typed=True)
def where(g: Lowering, _: Any, condition: Any, x1: Any = None, x2: Any = None) -> Any:
    """Element by element from one or the other; with one argument, the places that are true."""
    condition = operand(g, condition, ir.DataType.BOOL)
    if x1 is None:
        return nonzero(g, None, condition)
    known = [strong_type(x) if isinstance(x, ir.Value) else type(x) for x in (x1, x2)]
    dtype = dtypes.to_onnx(keras.backend.result_type(*known))
    return g.op.Where(condition, operand(g, x1, dtype), operand(g, x2, dtype))


@HANDLERS.register("numpy.Nonzero", typed=True)
def nonzero(g: Lowering, _: Any, x: ir.Value) -> tuple[ir.Value, ...]:
    """The places that are not zero, one vector for each dimension."""
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


def _log_base(base: float) -> Any:
    return lambda _, x: ops.log(x) * (1.0 / math.log(base))


def _log1p(_: Any, x: Any) -> Any:
    """Exact near zero: log(u) * x / (u - 1) where u = 1 + x is rounded (W. Kahan)."""
    x = _as_float(x)
    u = x + 1.0
    near = ops.equal(u, 1.0)
    far = ops.equal(u - 1.0, x)
    corrected = ops.log(u) * (x / ops.where(near, ops.ones_like(u), u - 1.0))
    return ops.where(near, x, ops.where(far, ops.log(u), corrected))


def _expm1(_: Any, x: Any) -> Any:
    """Exact near zero: exp(x) - 1 = 2 sinh(x/2) exp(x/2) = tanh(x/2) (exp(x) + 1)."""
    x = _as_float(x)
    return ops.where(ops.abs(x) < 1.0, ops.tanh(x * 0.5) * (ops.exp(x) + 1.0), ops.exp(x) - 1.0)


def _as_float(x: Any) -> Any:
    return x if keras.backend.is_float_dtype(x.dtype) else ops.cast(x, keras.config.floatx())


def _wide_float(*xs: Any) -> tuple[Any, ...]:
    """Cast integers to floatx, 64-bit ones to float64, as Keras does for a few functions."""
    dtype = keras.backend.result_type(*(getattr(x, "dtype", type(x)) for x in xs))
    if dtype == "int64":
        dtype = "float64"
    elif not keras.backend.is_float_dtype(dtype):
        dtype = keras.config.floatx()
    return tuple(ops.cast(x, dtype) for x in xs)


def _logaddexp(base: float) -> Any:
    def fn(_: Any, x1: Any, x2: Any) -> Any:
        scale = math.log(base)
        delta = ops.subtract(x1, x2)
        total = ops.maximum(x1, x2) + ops.log1p(ops.exp(-ops.abs(delta) * scale)) * (1.0 / scale)
        return ops.where(ops.isnan(delta), ops.add(x1, x2), total)

    return fn


def _hypot(_: Any, x1: Any, x2: Any) -> Any:
    x1, x2 = _wide_float(x1, x2)
    return ops.sqrt(ops.square(x1) + ops.square(x2))


def _heaviside(_: Any, x1: Any, x2: Any) -> Any:
    x1, x2 = _wide_float(x1, x2)
    return ops.where(x1 < 0, ops.zeros_like(x1), ops.where(x1 > 0, ops.ones_like(x1), x2))


def _typed(*xs: Any) -> list[Any]:
    """Return numbers as arrays of the type that they have for TensorFlow."""
    return [x if hasattr(x, "dtype") else np.asarray(x, strong_type(x)) for x in xs]


def _arctan2(_: Any, y: Any, x: Any) -> Any:
    y, x = _typed(y, x)
    dtype = keras.backend.result_type(y.dtype, x.dtype, float)
    y, x = ops.cast(y, dtype), ops.cast(x, dtype)
    steep = ops.abs(y) > ops.abs(x)
    zero = ops.zeros_like(x)
    flat = ops.where(ops.equal(x, 0), ops.ones_like(x), x)
    tall = ops.where(ops.equal(y, 0), ops.ones_like(y), y)
    half_turn = ops.where(y < 0, zero - math.pi, zero + math.pi)
    near_x = ops.arctan(y / flat) + ops.where(x < 0, half_turn, zero)
    near_y = half_turn * 0.5 - ops.arctan(x / tall)
    return ops.where(
        steep, near_y, ops.where(ops.logical_and(ops.equal(x, 0), ops.equal(y, 0)), zero, near_x)
    )


def _isclose(operation: Any, x1: Any, x2: Any, rtol: float = 1e-5, atol: float = 1e-8) -> Any:
    x1, x2 = _typed(x1, x2)
    dtype = keras.backend.result_type(x1.dtype, x2.dtype)
    if not keras.backend.is_float_dtype(dtype):
        return ops.equal(x1, x2)
    x1, x2 = ops.cast(x1, dtype), ops.cast(x2, dtype)
    close = ops.abs(x1 - x2) <= atol + rtol * ops.abs(x2)
    if operation.equal_nan:
        close = ops.logical_or(close, ops.logical_and(ops.isnan(x1), ops.isnan(x2)))
    return close


def _allclose(operation: Any, x1: Any, x2: Any) -> Any:
    x1, x2 = _typed(x1, x2)
    dtype = keras.backend.result_type(x1.dtype, x2.dtype)
    if not keras.backend.is_float_dtype(dtype):
        return ops.all(ops.equal(x1, x2))
    x1, x2 = ops.cast(x1, dtype), ops.cast(x2, dtype)
    finite = ops.logical_and(ops.isfinite(x1), ops.isfinite(x2))
    near = ops.abs(x1 - x2) <= operation.atol + operation.rtol * ops.abs(x2)
    close = ops.logical_or(ops.logical_and(finite, near), ops.equal(x1, x2))
    if operation.equal_nan:
        close = ops.logical_or(close, ops.logical_and(ops.isnan(x1), ops.isnan(x2)))
    return ops.all(close)


def _nan_to_num(operation: Any, x: Any) -> Any:
    if not keras.backend.is_float_dtype(x.dtype):
        return x
    limits = ir_limits(x.dtype)
    high = limits[1] if operation.posinf is None else operation.posinf
    low = limits[0] if operation.neginf is None else operation.neginf
    x = ops.where(ops.isnan(x), ops.full_like(x, operation.nan), x)
    x = ops.where(ops.isposinf(x), ops.full_like(x, high), x)
    return ops.where(ops.isneginf(x), ops.full_like(x, low), x)


def ir_limits(dtype: str) -> tuple[float, float]:
    """Return the least and the greatest finite number of a Keras dtype."""
    onnx_dtype = dtypes.to_onnx(dtype)
    return float(onnx_dtype.min), float(onnx_dtype.max)


def _skipping_nan(choose: Any) -> Any:
    def fn(_: Any, x1: Any, x2: Any) -> Any:
        dtype = keras.backend.result_type(*(getattr(x, "dtype", type(x)) for x in (x1, x2)))
        if not keras.backend.is_float_dtype(dtype):
            return choose(x1, x2)
        x1, x2 = ops.cast(x1, dtype), ops.cast(x2, dtype)
        return ops.where(ops.isnan(x1), x2, ops.where(ops.isnan(x2), x1, choose(x1, x2)))

    return fn


def _sinc(_: Any, x: Any) -> Any:
    x = _as_float(x)
    at_zero = ops.equal(x, 0)
    angle = ops.where(at_zero, ops.ones_like(x), x * math.pi)
    return ops.where(at_zero, ops.ones_like(x), ops.sin(angle) / angle)


def _ldexp(_: Any, x1: Any, x2: Any) -> Any:
    x1, x2 = _typed(x1, x2)
    dtype = keras.backend.result_type(x1.dtype, x2.dtype, float)
    x1 = ops.cast(x1, dtype)
    scaled = x1 * ops.power(ops.full_like(x1, 2.0), ops.cast(x2, dtype))
    return ops.where(ops.logical_or(ops.isinf(x1), ops.equal(x1, 0)), x1, scaled)


def _divide_no_nan(_: Any, x1: Any, x2: Any) -> Any:
    quotient = ops.divide(x1, x2)
    return ops.where(ops.equal(x2, 0), ops.zeros_like(quotient), quotient)


_COMPOSITES = {
    "math.Erfc": lambda _, x: 1.0 - ops.erf(x),
    "numpy.AllClose": _allclose,
    "numpy.Angle": lambda _, x: ops.where(_as_float(x) < 0, ops.full_like(_as_float(x), math.pi), 0.0),
    "numpy.Arctan2": _arctan2,
    "numpy.Cbrt": lambda _, x: ops.sign(x) * ops.power(ops.abs(_wide_float(x)[0]), 1.0 / 3.0),
    "numpy.Deg2rad": lambda _, x: _wide_float(x)[0] * (math.pi / 180.0),
    "numpy.DivideNoNan": _divide_no_nan,
    "numpy.Exp2": lambda _, x: ops.exp(_as_float(x) * math.log(2.0)),
    "numpy.Expm1": _expm1,
    "numpy.Fmax": _skipping_nan(ops.maximum),
    "numpy.Fmin": _skipping_nan(ops.minimum),
    "numpy.Heaviside": _heaviside,
    "numpy.Hypot": _hypot,
    "numpy.Imag": lambda _, x: ops.zeros_like(x),
    "numpy.Isclose": _isclose,
    "numpy.Isreal": lambda _, x: ops.ones_like(x, dtype="bool"),
    "numpy.Ldexp": _ldexp,
    "numpy.Log10": _log_base(10.0),
    "numpy.Log1p": _log1p,
    "numpy.Log2": _log_base(2.0),
    "numpy.Logaddexp": _logaddexp(math.e),
    "numpy.Logaddexp2": _logaddexp(2.0),
    "numpy.NanToNum": _nan_to_num,
    "numpy.Rad2deg": lambda _, x: _wide_float(x)[0] * (180.0 / math.pi),
    "numpy.Sinc": _sinc,
}

for _keras_op, _fn in _COMPOSITES.items():
    HANDLERS.add(_keras_op, composite(_fn))
