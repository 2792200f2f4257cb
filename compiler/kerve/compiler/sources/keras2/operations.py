"""Functions of TensorFlow that were called on tensors of a functional model of Keras 2.

Keras 2 records `x * 2.0` or `tf.concat([x, y], -1)` as a layer (TFOpLambda) that calls a function of
TensorFlow. It is replaced by the same function of `keras.ops` if there is one; any other is called through an
`OldFunction` and converted by tf2onnx.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tf_keras
from keras import ops

from kerve.compiler.sources.keras2.bridges import OldFunction
from kerve.compiler.sources.keras2.layers import clean_name

__all__ = ["operation"]

_X, _X_Y = ("x",), ("x", "y")
_REDUCTION = ("input_tensor", "axis", "keepdims")

#: For a symbol of TensorFlow's API, the same function of Keras, and which of TensorFlow's arguments it takes.
#: Keras promotes types, TensorFlow does not: they are equivalent on floating-point tensors of one type.
_SAME: dict[str, tuple[Callable[..., Any], tuple[str, ...]]] = {
    "__operators__.add": (ops.add, _X_Y),
    "concat": (ops.concatenate, ("values", "axis")),
    "expand_dims": (ops.expand_dims, ("input", "axis")),
    "math.abs": (ops.absolute, _X),
    "math.add": (ops.add, _X_Y),
    "math.divide": (ops.divide, _X_Y),
    "math.exp": (ops.exp, _X),
    "math.log": (ops.log, _X),
    "math.maximum": (ops.maximum, _X_Y),
    "math.minimum": (ops.minimum, _X_Y),
    "math.multiply": (ops.multiply, _X_Y),
    "math.negative": (ops.negative, _X),
    "math.pow": (ops.power, _X_Y),
    "math.reduce_max": (ops.max, _REDUCTION),
    "math.reduce_mean": (ops.mean, _REDUCTION),
    "math.reduce_min": (ops.min, _REDUCTION),
    "math.reduce_sum": (ops.sum, _REDUCTION),
    "math.sigmoid": (ops.sigmoid, _X),
    "math.sqrt": (ops.sqrt, _X),
    "math.square": (ops.square, _X),
    "math.subtract": (ops.subtract, _X_Y),
    "math.tanh": (ops.tanh, _X),
    "math.truediv": (ops.divide, _X_Y),
    "nn.relu": (ops.relu, ("features",)),
    "stack": (ops.stack, ("values", "axis")),
}


def operation(layer: Any, args: Any, kwargs: Any) -> Any:
    """Call the function of a TFOpLambda on tensors of Keras 3."""
    if isinstance(layer, tf_keras.src.layers.core.tf_op_layer.SlicingOpLambda):
        return _slice(layer, args, kwargs)
    same = _SAME.get(layer.symbol or "")
    dtype = _one_float_type((args, kwargs))
    if same is not None and dtype is not None:
        function, names = same
        bound = inspect.signature(layer.function).bind(*args, **kwargs)
        bound.apply_defaults()
        return function(*(_constant(bound.arguments[name], name, dtype) for name in names))
    function = OldFunction(layer.function, clean_name(layer.name), takes_symbols=True)
    return function(*args, **_without_name(kwargs))


def _constant(argument: Any, name: str, dtype: str) -> Any:
    """Convert a list to one tensor: files of Keras 2 contain constant tensors as lists of numbers."""
    if name == "values":
        return [_constant(each, "", dtype) for each in argument]
    if not isinstance(argument, list | tuple) or name == "axis":
        return argument
    if any(isinstance(leaf, keras.KerasTensor) for leaf in keras.tree.flatten(argument)):
        return ops.stack([_constant(each, "", dtype) for each in argument])  # as TensorFlow packs them
    return np.asarray(argument, dtype)


def _one_float_type(structure: Any) -> str | None:
    """Return the type of the tensors in a structure if all have the same floating-point type, or None."""
    tensors = [leaf for leaf in keras.tree.flatten(structure) if isinstance(leaf, keras.KerasTensor)]
    types = {tensor.dtype for tensor in tensors}
    dtype = types.pop() if len(types) == 1 else None
    return dtype if dtype is not None and keras.backend.is_float_dtype(dtype) else None


def _slice(layer: Any, args: Any, kwargs: Any) -> Any:
    """Call a slice such as `x[1:, ::2]`, whose parts Keras 2 records as dictionaries."""
    if layer.symbol == "__operators__.getitem" and not kwargs:
        tensor, where = args
        spec = tuple(map(_to_slice, where if isinstance(where, list | tuple) else [where]))
        return tensor[spec]
    return OldFunction(layer.call, clean_name(layer.name))(*args, **_without_name(kwargs))


def _to_slice(item: Any) -> Any:
    return slice(item["start"], item["stop"], item["step"]) if isinstance(item, dict) else item


def _without_name(kwargs: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in kwargs.items() if key != "name"}
