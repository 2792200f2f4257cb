"""Python's operators on tensors, where TensorFlow's are not the functions of `keras.ops`.

TensorFlow takes a number in the type of the tensor beside it, divides integers of 32 bits and more in
float64, and applies `&`, `|`, `^` and `~` to the bits of integers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from kerve.compiler.lowering import dtypes

__all__ = ["Operators"]

#: In which type TensorFlow divides integers (`_TRUEDIV_TABLE` of its `math_ops`); others in their own.
_QUOTIENTS = {
    **dict.fromkeys(("int8", "int16", "uint8", "uint16"), "float32"),
    **dict.fromkeys(("int32", "int64", "uint32", "uint64"), "float64"),
}


class Operators:
    """What a symbol has before the operators of Keras's tensors."""

    dtype: str

    def __truediv__(self, other: Any) -> Any:
        return _divide(self, _like(self, other))

    def __rtruediv__(self, other: Any) -> Any:
        return _divide(_like(self, other), self)

    def __mod__(self, other: Any) -> Any:
        return keras.ops.mod(self, _like(self, other))

    def __rmod__(self, other: Any) -> Any:
        return keras.ops.mod(_like(self, other), self)

    def __and__(self, other: Any) -> Any:
        return _choose(self, keras.ops.bitwise_and, keras.ops.logical_and)(self, _like(self, other))

    def __rand__(self, other: Any) -> Any:
        return _choose(self, keras.ops.bitwise_and, keras.ops.logical_and)(_like(self, other), self)

    def __or__(self, other: Any) -> Any:
        return _choose(self, keras.ops.bitwise_or, keras.ops.logical_or)(self, _like(self, other))

    def __ror__(self, other: Any) -> Any:
        return _choose(self, keras.ops.bitwise_or, keras.ops.logical_or)(_like(self, other), self)

    def __xor__(self, other: Any) -> Any:
        return _choose(self, keras.ops.bitwise_xor, keras.ops.logical_xor)(self, _like(self, other))

    def __rxor__(self, other: Any) -> Any:
        return _choose(self, keras.ops.bitwise_xor, keras.ops.logical_xor)(_like(self, other), self)

    def __invert__(self) -> Any:
        return _choose(self, keras.ops.bitwise_not, keras.ops.logical_not)(self)


def _choose(x: Operators, bits: Callable[..., Any], truths: Callable[..., Any]) -> Callable[..., Any]:
    return bits if dtypes.is_integer(dtypes.to_onnx(x.dtype)) else truths


def _divide(x: Any, y: Any) -> Any:
    common = _type(x)
    if common == _type(y) and common in _QUOTIENTS and (x.shape or y.shape):
        x, y = (keras.ops.cast(each, _QUOTIENTS[common]) for each in (x, y))
    # Two scalars are most often sizes, Python numbers to Keras, whose quotient must not widen what it meets.
    return keras.ops.true_divide(x, y)


def _type(x: Any) -> str:
    """Return the type of a tensor or an array, "" for anything else."""
    return str(keras.backend.standardize_dtype(x.dtype)) if hasattr(x, "dtype") else ""


def _like(x: Operators, other: Any) -> Any:
    """Return a number or an array in the type of the tensor beside it, if that can hold its kind."""
    if not isinstance(other, bool | int | float | np.ndarray | np.generic):
        return other
    array, dtype = np.asarray(other), dtypes.to_onnx(x.dtype)
    kinds = "iubf" if dtypes.is_float(dtype) else "iub" if dtypes.is_integer(dtype) else ""
    if array.dtype.kind in kinds:
        with np.errstate(over="ignore"):
            return array.astype(dtype.numpy())
    return other
