"""The tensor that flows through a Keras model while it is lowered."""

from __future__ import annotations

from typing import Any, TypeGuard

import keras
import onnx_ir as ir

from kerve.compiler.lowering import dtypes

__all__ = ["Symbol", "is_symbol", "static_shape", "symbols_in", "symbols_of"]


class Symbol(keras.KerasTensor):  # type: ignore[misc]  # keras has no type information
    """A Keras tensor that stands for an ONNX value.

    Keras's own code computes with it as with any symbolic tensor: masks travel on it, policies cast it,
    operators of Python apply to it. Each operation on it adds nodes to the ONNX graph.
    """

    def __init__(self, value: ir.Value) -> None:
        assert value.dtype is not None
        super().__init__(static_shape(value), dtype=dtypes.from_onnx(value.dtype), record_history=False)
        self.value = value


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
    """Return the symbols that an operation of `keras.ops` keeps: sizes, bounds; a layer keeps none."""
    if isinstance(operation, keras.Layer):
        return []
    return symbols_in([value for value in vars(operation).values() if isinstance(value, Symbol | tuple | list)])
