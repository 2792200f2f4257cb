"""The tensor that flows through a Keras model while it is lowered."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, TypeGuard

import keras
import onnx_ir as ir
import tensorflow as tf

from kerve.compiler.lowering import dtypes
from kerve.compiler.lowering.operators import Operators

__all__ = ["Symbol", "is_symbol", "static_shape", "symbols_in", "symbols_of"]


class _Shape(tuple[int | None, ...]):
    """The shape of a symbol, with the methods of TensorFlow's shapes."""

    __slots__ = ()

    @property
    def rank(self) -> int:
        """The number of dimensions."""
        return len(self)

    @property
    def ndims(self) -> int:
        """The number of dimensions."""
        return len(self)

    def as_list(self) -> list[int | None]:
        """Return the dimensions as a list."""
        return list(self)

    def is_fully_defined(self) -> bool:
        """Whether all dimensions are known."""
        return None not in self

    def num_elements(self) -> int | None:
        """Return the number of elements, None if it is not known."""
        return None if None in self else math.prod(size for size in self if size is not None)

    def assert_is_compatible_with(self, other: Any) -> None:
        """Raise ValueError if no tensor can have both shapes."""
        tf.TensorShape(self).assert_is_compatible_with(other)


class _DType(str):
    """The name of a symbol's type, with the attributes of TensorFlow's types."""

    __slots__ = ()

    def __getattr__(self, name: str) -> Any:
        return getattr(tf.as_dtype(str(self)), name)


class Symbol(Operators, keras.KerasTensor):
    """A Keras tensor that stands for an ONNX value.

    Keras's own code handles it like any symbolic tensor: it carries masks, policies cast it, Python operators
    apply to it. Each operation on it adds nodes to the ONNX graph. Where user code treats a tensor as a
    Python object (`x == 0`, `a, b = x`, `x.shape.rank`), it behaves like a TensorFlow tensor.
    """

    def __init__(self, value: ir.Value) -> None:
        assert value.dtype is not None
        dtype = _DType(dtypes.from_onnx(value.dtype))
        super().__init__(static_shape(value), dtype=dtype, record_history=False)
        self._dtype = dtype
        self.value = value

    @property
    def shape(self) -> _Shape:
        """The dimensions, None where they are known only when the graph runs."""
        return _Shape(self._shape)

    def get_shape(self) -> _Shape:
        """Return the dimensions."""
        return self.shape

    #: A NumPy array on the left of an operator defers to the symbol.
    __array_priority__ = 100

    def __iter__(self) -> Iterator[Any]:
        if not self.shape or self.shape[0] is None:
            raise TypeError(f"the number of parts of {self} is not known before the graph runs")
        return (self[index] for index in range(self.shape[0]))


def is_symbol(x: object) -> TypeGuard[Symbol]:
    """Whether `x` stands for an ONNX value."""
    return isinstance(x, Symbol)


def static_shape(value: ir.Value) -> tuple[int | None, ...]:
    """Return the dimensions of a value, None where they are known only when the graph runs."""
    assert value.shape is not None, f"the rank of {value} is not known"
    return tuple(dim if isinstance(dim, int) else None for dim in value.shape)


def symbols_in(structure: Any) -> list[Symbol]:
    """Return the symbols in a nested structure, in order."""
    return [leaf for leaf in keras.tree.flatten(structure) if is_symbol(leaf)]


def symbols_of(operation: keras.Operation) -> list[Symbol]:
    """Return the symbols among an operation's attributes, such as sizes and bounds; a layer has none."""
    if isinstance(operation, keras.Layer):
        return []
    return symbols_in(
        [value for value in vars(operation).values() if isinstance(value, Symbol | tuple | list)]
    )
