"""Python operators on tensors, where TensorFlow differs from the functions of `keras.ops`.

TensorFlow converts a non-tensor operand to the type of the tensor operand, wrapping values out of range,
divides integers of 32 bits and more in float64, returns booleans for products with booleans, and applies `&`,
`|`, `^` and `~` to the bits of integers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import onnx_ir as ir
from keras.src.ops import numpy as operations

from kerve.compiler.lowering import dtypes

__all__ = ["Operators", "Plus", "plus"]

#: Type in which TensorFlow divides integers (`_TRUEDIV_TABLE` of its `math_ops`); others keep theirs.
_QUOTIENTS = {
    **dict.fromkeys(("int8", "int16", "uint8", "uint16"), "float32"),
    **dict.fromkeys(("int32", "int64", "uint32", "uint64"), "float64"),
}


class Operators:
    """Operators of a symbol that override those of Keras's tensors: these, and those of the tables below."""

    dtype: str

    def __invert__(self) -> Any:
        return _choose(self, keras.ops.bitwise_not, keras.ops.logical_not)(self)

    def __eq__(self, other: object) -> Any:
        return keras.ops.equal(self, _like(self, other)) if _compares(other) else NotImplemented

    def __ne__(self, other: object) -> Any:
        return keras.ops.not_equal(self, _like(self, other)) if _compares(other) else NotImplemented

    __hash__ = object.__hash__


class Plus(operations.Add):
    """`x + y` of tensors: TensorFlow's own addition, from which `ops.add` may differ (ops/addition.py)."""


def plus(x: Any, y: Any) -> Any:
    """Add as TensorFlow does."""
    return Plus()(x, y)


def _choose(x: Any, bits: Callable[..., Any], truths: Callable[..., Any]) -> Callable[..., Any]:
    return bits if dtypes.is_integer(dtypes.to_onnx(_type(x))) else truths


def _bitwise(bits: Callable[..., Any], truths: Callable[..., Any]) -> Callable[..., Any]:
    return lambda x, y: _choose(x if _type(x) else y, bits, truths)(x, y)


def _divide(x: Any, y: Any) -> Any:
    common = _type(x)
    if common == _type(y) and common in _QUOTIENTS and (x.shape or y.shape):
        x, y = (keras.ops.cast(each, _QUOTIENTS[common]) for each in (x, y))
    # Two scalars are mostly sizes, which are Python numbers in Keras: their quotient must not widen types.
    return keras.ops.true_divide(x, y)


def _multiply(x: Any, y: Any) -> Any:
    if "bool" not in (_type(x), _type(y)):
        return keras.ops.multiply(x, y)
    x, y = (keras.ops.cast(each, "int32") for each in (x, y))
    return keras.ops.cast(keras.ops.multiply(x, y), "bool")


_BINARY: dict[str, Callable[..., Any]] = {
    "add": plus,
    "sub": keras.ops.subtract,
    "mul": _multiply,
    "truediv": _divide,
    "floordiv": keras.ops.floor_divide,
    "mod": keras.ops.mod,
    "pow": keras.ops.power,
    "matmul": keras.ops.matmul,
    "and": _bitwise(keras.ops.bitwise_and, keras.ops.logical_and),
    "or": _bitwise(keras.ops.bitwise_or, keras.ops.logical_or),
    "xor": _bitwise(keras.ops.bitwise_xor, keras.ops.logical_xor),
}

_COMPARISONS: dict[str, Callable[..., Any]] = {
    "lt": keras.ops.less,
    "le": keras.ops.less_equal,
    "gt": keras.ops.greater,
    "ge": keras.ops.greater_equal,
}


def _left(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda self, other: function(self, _like(self, other))


def _right(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda self, other: function(_like(self, other), self)


for _name, _function in (_BINARY | _COMPARISONS).items():
    setattr(Operators, f"__{_name}__", _left(_function))
for _name, _function in _BINARY.items():
    setattr(Operators, f"__r{_name}__", _right(_function))


def _type(x: Any) -> str:
    """Return the type of a tensor or an array, "" for anything else."""
    return str(keras.backend.standardize_dtype(x.dtype)) if hasattr(x, "dtype") else ""


def _compares(x: object) -> bool:
    """Whether TensorFlow compares a tensor with `x` elementwise."""
    tensor = isinstance(x, keras.KerasTensor | keras.Variable | np.ndarray | np.generic)
    return tensor or isinstance(x, int | float | list | tuple) or keras.ops.is_tensor(x)


def _like(x: Operators, other: Any) -> Any:
    """Convert a non-tensor operand to the type of the tensor operand, if that type can hold its kind."""
    arrays = isinstance(other, np.ndarray | np.generic)  # np.float64 is a float of Python, too
    if not (arrays or _is_plain(other)):
        return other
    array, dtype = np.asarray(other), dtypes.to_onnx(x.dtype)
    if dtypes.is_float(dtype) or (arrays and dtype != ir.DataType.STRING):
        kinds = "iubfV"  # bfloat16 is of kind V
    else:  # TensorFlow casts fractions to integers and booleans for NumPy, not for Python
        kinds = "iub" if dtypes.is_integer(dtype) else "b"
    if array.dtype.kind in kinds:
        with np.errstate(over="ignore", invalid="ignore"):
            return array.astype(dtype.numpy())
    return other


def _is_plain(x: Any) -> bool:
    """Whether something is a Python number or a list of numbers."""
    if isinstance(x, list | tuple):
        return all(map(_is_plain, x))
    return isinstance(x, bool | int | float)
