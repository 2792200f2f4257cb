"""Elementwise TensorFlow functions: arithmetic, comparison, logic."""

from __future__ import annotations

from typing import Any

from keras import ops

from kerve.compiler.lowering.lowering import Lowering
from kerve.compiler.lowering.operators import plus
from kerve.compiler.lowering.tensorflow_functions.arguments import Function, dtype_of, of_floats

__all__ = ["FUNCTIONS"]


def _unary(function: Function) -> Function:
    return lambda g, x: function(x)


def _binary(function: Function) -> Function:
    return lambda g, x, y: function(x, y)


def _where(g: Lowering, condition: Any, x: Any = None, y: Any = None) -> Any:
    return NotImplemented if x is None else ops.where(condition, x, y)


FUNCTIONS: dict[str, Function] = {
    "abs": _unary(ops.abs),
    "add": _binary(plus),
    "cast": lambda g, x, dtype: ops.cast(x, dtype_of(dtype)),
    "clip_by_value": lambda g, t, clip_value_min, clip_value_max: ops.clip(t, clip_value_min, clip_value_max),
    "divide": of_floats(_binary(ops.divide)),
    "equal": _binary(ops.equal),
    "exp": of_floats(_unary(ops.exp)),
    "floor": of_floats(_unary(ops.floor)),
    "greater": _binary(ops.greater),
    "greater_equal": _binary(ops.greater_equal),
    "less": _binary(ops.less),
    "less_equal": _binary(ops.less_equal),
    "logical_and": _binary(ops.logical_and),
    "logical_not": _unary(ops.logical_not),
    "logical_or": _binary(ops.logical_or),
    "math.ceil": of_floats(_unary(ops.ceil)),
    "math.cos": of_floats(_unary(ops.cos)),
    "math.divide_no_nan": of_floats(_binary(ops.divide_no_nan)),
    "math.erf": _unary(ops.erf),
    # in Keras since 3.15; for older versions, tf2onnx converts TensorFlow's own
    **({"math.erfc": _unary(ops.erfc)} if hasattr(ops, "erfc") else {}),
    "math.erfinv": _unary(ops.erfinv),
    "math.expm1": of_floats(_unary(ops.expm1)),
    "math.floordiv": _binary(ops.floor_divide),
    "math.floormod": _binary(ops.mod),
    "math.is_finite": _unary(ops.isfinite),
    "math.is_inf": _unary(ops.isinf),
    "math.is_nan": _unary(ops.isnan),
    "math.log": of_floats(_unary(ops.log)),
    "math.log1p": of_floats(_unary(ops.log1p)),
    "math.multiply_no_nan": lambda g, x, y: ops.where(ops.equal(y, 0), ops.zeros_like(x * y), x * y),
    "math.rsqrt": _unary(ops.rsqrt),
    "math.sin": of_floats(_unary(ops.sin)),
    "math.squared_difference": _binary(lambda x, y: ops.square(ops.subtract(x, y))),
    "maximum": _binary(ops.maximum),
    "minimum": _binary(ops.minimum),
    "multiply": _binary(ops.multiply),
    "negative": _unary(ops.negative),
    "not_equal": _binary(ops.not_equal),
    "pow": of_floats(_binary(ops.power)),
    "round": of_floats(_unary(ops.round)),
    "sigmoid": _unary(ops.sigmoid),
    "sign": _unary(ops.sign),
    "sqrt": _unary(ops.sqrt),
    "square": _unary(ops.square),
    "subtract": _binary(ops.subtract),
    "tanh": _unary(ops.tanh),
    "truediv": of_floats(_binary(ops.true_divide)),
    "where": _where,
}
