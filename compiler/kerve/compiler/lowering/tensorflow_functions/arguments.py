"""Conversion of the arguments of TensorFlow functions to those of Keras."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from kerve.compiler.lowering.lowering import Lowering
from kerve.compiler.lowering.symbol import Symbol, is_symbol

__all__ = [
    "ComputedArgumentError",
    "Function",
    "Sizes",
    "as_shape",
    "dtype_of",
    "is_float",
    "known_axes",
    "known_value",
    "of_floats",
]

Function = Callable[..., Any]


class ComputedArgumentError(Exception):
    """An axis or a size that Keras requires as a Python number is computed by the model."""


def is_float(x: Any) -> bool:
    """Whether a tensor or a number has a floating-point type."""
    return bool(keras.backend.is_float_dtype(keras.backend.standardize_dtype(getattr(x, "dtype", "float32"))))


def of_floats(function: Function) -> Function:
    """Restrict a function to floats: for integers, TensorFlow and Keras differ."""

    @functools.wraps(function)
    def checked(g: Lowering, **named: Any) -> Any:
        return function(g, **named) if is_float(next(iter(named.values()))) else NotImplemented

    return checked


def dtype_of(dtype: Any) -> str:
    """Return the name of a TensorFlow dtype."""
    return str(tf.as_dtype(dtype).name)


def known_value(x: Any) -> Any:
    """Return an argument such as an axis or sizes as plain Python; None if it is not given.

    Raises `ComputedArgumentError` if it depends on the model's inputs.
    """
    if x is None or isinstance(x, int):
        return x
    if isinstance(x, list | tuple):
        return [known_value(part) for part in x]
    static = None if is_symbol(x) else tf.get_static_value(x)
    if static is None:
        raise ComputedArgumentError
    return np.asarray(static).tolist()


def known_axes(axis: Any) -> Any:
    """Return axes as `known_value` does, with lists as the tuples that Keras expects."""
    known = known_value(axis)
    return tuple(known) if isinstance(known, list) else known


def as_shape(x: Any) -> Any:
    """Return a shape for Keras: a tuple, or a symbol."""
    if isinstance(x, Sizes):
        return tuple(x)
    if isinstance(x, tf.TensorShape):
        return tuple(x.as_list())
    if is_symbol(x):
        return x
    if isinstance(x, list | tuple):
        return tuple(size if is_symbol(size) else int(size) for size in x)
    return tuple(int(size) for size in np.atleast_1d(np.asarray(x)))


class Sizes(Symbol):
    """The result of `tf.shape`: a vector, of which single elements may be static."""

    def __init__(self, g: Lowering, x: Symbol, dtype: str) -> None:
        super().__init__(g.cast(g.op.Shape(x.value), dtype))
        self._of = x

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, int):
            return ops.shape(self._of)[key]
        return super().__getitem__(key)

    def __iter__(self) -> Iterator[Any]:
        return iter(ops.shape(self._of))
