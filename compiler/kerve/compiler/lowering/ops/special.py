"""Functions without an ONNX operator: approximations, and algorithms on integers."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from kerve.compiler.lowering.ops.operands import composite
from kerve.compiler.lowering.registry import Handlers

HANDLERS = Handlers()

#: erfinv in single precision (M. Giles, GPU Computing Gems, 2012): the central region and the tails.
_ERFINV_MIDDLE = (
    2.81022636e-08, 3.43273939e-07, -3.5233877e-06, -4.39150654e-06, 0.00021858087,
    -0.00125372503, -0.00417768164, 0.246640727, 1.50140941,
)  # fmt: skip
_ERFINV_ENDS = (
    -0.000200214257, 0.000100950558, 0.00134934322, -0.00367342844, 0.00573950773,
    -0.0076224613, 0.00943887047, 1.00167406, 2.83297682,
)  # fmt: skip

#: exp(x²) erfc(x) / t from 0.5 on, where t = 2 / (2 + x): our own fit, with an error of at most 1e-8.
_ERFC_TAIL = (
    -0.0629627249, 0.302805107, -0.522536283, 0.31515408, -0.0496670195,
    0.211351689, 0.241181124, 0.282605107, 0.282075097,
)  # fmt: skip

#: The modified Bessel function I0 (Abramowitz & Stegun, 9.8.1 and 9.8.2), below and above 3.75.
_I0_SMALL = (0.0045813, 0.0360768, 0.2659732, 1.2067492, 3.0899424, 3.5156229, 1.0)
_I0_LARGE = (
    0.00392377, -0.01647633, 0.02635537, -0.02057706, 0.00916281,
    -0.00157565, 0.00225319, 0.01328592, 0.39894228,
)  # fmt: skip


def _polynomial(coefficients: Sequence[float], x: Any) -> Any:
    """Evaluate by Horner's rule; the highest power comes first."""
    return functools.reduce(
        lambda total, c: total * x + c, coefficients[1:], ops.full_like(x, coefficients[0])
    )


def _erfinv(_: Any, x: Any) -> Any:
    wide = ops.cast(x, keras.backend.result_type(x.dtype, "float32"))
    w = -ops.log((1.0 - wide) * (1.0 + wide))
    middle = _polynomial(_ERFINV_MIDDLE, w - 2.5)
    ends = _polynomial(_ERFINV_ENDS, ops.sqrt(ops.maximum(w, 0.0)) - 3.0)
    inside = ops.where(w < 5.0, middle, ends) * wide
    return ops.cast(ops.where(ops.equal(ops.abs(wide), 1.0), wide * math.inf, inside), x.dtype)


def erfc(_: Any, x: Any) -> Any:
    """Compute erfc, accurate in the tail: it factors exp(-x²) so that one square is exact in float32."""
    wide = ops.cast(x, keras.backend.result_type(x.dtype, "float32"))
    distance = ops.minimum(ops.abs(wide), 30.0)
    coarse = ops.round(distance * 16.0) / 16.0
    decay = ops.exp(-ops.square(coarse)) * ops.exp((coarse - distance) * (coarse + distance))
    t = 2.0 / (2.0 + distance)
    tail = decay * t * _polynomial(_ERFC_TAIL, t)
    beyond = ops.where(wide < 0, 2.0 - tail, tail)
    return ops.cast(ops.where(distance < 0.5, 1.0 - ops.erf(wide), beyond), x.dtype)


def _i0(_: Any, x: Any) -> Any:
    wide = x if keras.backend.is_float_dtype(x.dtype) else ops.cast(x, _float_of(x))
    magnitude = ops.abs(wide)
    ratio = magnitude / 3.75
    small = _polynomial(_I0_SMALL, ops.square(ops.minimum(ratio, 1.0)))
    beyond = ops.maximum(magnitude, 3.75)
    large = ops.exp(beyond) / ops.sqrt(beyond) * _polynomial(_I0_LARGE, 3.75 / beyond)
    return ops.where(ratio < 1.0, small, large)


def _float_of(x: Any) -> str:
    return "float64" if x.dtype == "int64" else str(keras.config.floatx())


def _gcd(_: Any, x1: Any, x2: Any) -> Any:
    """Run Euclid's algorithm on all elements until all are done."""
    dtype = keras.backend.result_type(x1.dtype, x2.dtype)
    a, b = ops.abs(ops.cast(x1, dtype)), ops.abs(ops.cast(x2, dtype))
    a, b = a + ops.zeros_like(b), b + ops.zeros_like(a)

    def step(a: Any, b: Any) -> tuple[Any, Any]:
        going = ops.not_equal(b, 0)
        remainder = ops.mod(a, ops.where(going, b, ops.ones_like(b)))
        return ops.where(going, b, a), ops.where(going, remainder, b)

    return ops.while_loop(lambda _, b: ops.any(ops.not_equal(b, 0)), step, (a, b))[0]


def _lcm(_: Any, x1: Any, x2: Any) -> Any:
    dtype = keras.backend.result_type(x1.dtype, x2.dtype)
    a, b = ops.abs(ops.cast(x1, dtype)), ops.abs(ops.cast(x2, dtype))
    divisor = ops.gcd(a, b)
    return a * (b // ops.maximum(divisor, 1))


def _select(_: Any, condlist: Any, choicelist: Any, default: Any = 0) -> Any:
    chosen = default
    for condition, choice in zip(reversed(condlist), reversed(choicelist), strict=True):
        chosen = ops.where(condition, choice, chosen)
    return chosen


_COMPOSITES = {
    "math.Erfc": erfc,
    "math.Erfinv": _erfinv,
    "numpy.Gcd": _gcd,
    "numpy.I0": _i0,
    "numpy.Lcm": _lcm,
    "numpy.Select": _select,
}

for _keras_op, _fn in _COMPOSITES.items():
    HANDLERS.add(_keras_op, composite(_fn))
