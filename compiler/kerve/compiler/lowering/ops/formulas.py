"""Elementwise operations without an ONNX operator, as formulas in `keras.ops`."""

from __future__ import annotations

import math
from typing import Any

import keras
import numpy as np
from keras import ops

from kerve.compiler.lowering import dtypes
from kerve.compiler.lowering.ops.operands import composite, strong_type
from kerve.compiler.lowering.registry import Handlers

HANDLERS = Handlers()


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
        x1, x2 = _wide_float(x1, x2)
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
    """Return numbers as arrays of the type that they have in TensorFlow."""
    return [x if hasattr(x, "dtype") else np.asarray(x, strong_type(x)) for x in xs]


def _arctan2(_: Any, y: Any, x: Any) -> Any:
    y, x = _typed(y, x)
    dtype = keras.backend.result_type(y.dtype, x.dtype, float)
    y, x = ops.cast(y, dtype), ops.cast(x, dtype)
    steep = ops.abs(y) > ops.abs(x)
    zero = ops.zeros_like(x)
    flat = ops.where(ops.equal(x, 0), ops.ones_like(x), x)
    tall = ops.where(ops.equal(y, 0), ops.ones_like(y), y)
    half_turn = ops.where(ops.signbit(y), zero - math.pi, zero + math.pi)
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
    """Return the smallest and the largest finite number of a Keras dtype."""
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
    "numpy.AllClose": _allclose,
    "numpy.Angle": lambda _, x: ops.where(_as_float(x) < 0, ops.full_like(_as_float(x), math.pi), 0.0),
    "numpy.Arctan2": _arctan2,
    "numpy.Cbrt": lambda _, x: ops.sign(x) * ops.power(ops.abs(_wide_float(x)[0]), 1.0 / 3.0),
    "numpy.Deg2rad": lambda _, x: _wide_float(x)[0] * (math.pi / 180.0),
    "numpy.DivideNoNan": _divide_no_nan,
    "numpy.Exp2": lambda _, x: ops.power(ops.full_like(_as_float(x), 2.0), _as_float(x)),
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
