"""TensorFlow functions that create tensors or rearrange their elements."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from kerve.compiler.lowering.lowering import Lowering
from kerve.compiler.lowering.tensorflow_functions.arguments import (
    Function,
    Sizes,
    as_shape,
    dtype_of,
    known_axes,
    known_value,
)

__all__ = ["FUNCTIONS"]


def _shape(g: Lowering, input: Any, out_type: Any = tf.int32) -> Any:
    if None not in input.shape:
        return tf.constant(list(input.shape), out_type)
    return Sizes(g, input, dtype_of(out_type))


def _split(g: Lowering, value: Any, num_or_size_splits: Any, axis: Any = 0, num: Any = None) -> Any:
    sizes = known_value(num_or_size_splits)
    if isinstance(sizes, int):
        return ops.split(value, sizes, axis=known_value(axis))
    if -1 in sizes:
        return NotImplemented
    return ops.split(value, np.cumsum(sizes)[:-1].tolist(), axis=known_value(axis))


def _tensors(values: Sequence[Any]) -> list[Any]:
    return [value if hasattr(value, "shape") else tf.convert_to_tensor(value) for value in values]


def _squeeze(g: Lowering, input: Any, axis: Any = None) -> Any:
    axis = known_value(axis)
    axes = [axis] if isinstance(axis, int) else axis
    if axes is None and None in input.shape:
        return NotImplemented
    if axes and any(input.shape[each] is None for each in axes):
        keep = [
            place for place in range(len(input.shape)) if place not in {a % len(input.shape) for a in axes}
        ]
        return ops.reshape(input, [ops.shape(input)[place] for place in keep])
    return ops.squeeze(input, axes)


def _gather(
    g: Lowering, params: Any, indices: Any, validate_indices: Any = None, axis: Any = None, batch_dims: int = 0,
) -> Any:  # fmt: skip
    return NotImplemented if batch_dims else ops.take(params, indices, axis=known_value(axis) or 0)


def _pad(g: Lowering, tensor: Any, paddings: Any, mode: str = "CONSTANT", constant_values: Any = 0) -> Any:
    widths = paddings if isinstance(paddings, list | tuple) else known_value(paddings)
    if mode.upper() != "CONSTANT":
        return ops.pad(tensor, widths, mode=mode.lower())
    return ops.pad(tensor, widths, constant_values=constant_values)


def _full(value: Any) -> Function:
    def full(g: Lowering, shape: Any, dtype: Any = tf.float32, **_: Any) -> Any:
        return ops.full(as_shape(shape), value, dtype=dtype_of(dtype))

    return full


def _like(value: Any) -> Function:
    def like(g: Lowering, dtype: Any = None, **tensor: Any) -> Any:
        template = tensor.get("input", tensor.get("tensor"))
        return ops.full_like(template, value, dtype=None if dtype is None else dtype_of(dtype))

    return like


def _fill(g: Lowering, dims: Any, value: Any, **_: Any) -> Any:
    dtype = getattr(value, "dtype", None) or tf.convert_to_tensor(value).dtype
    return ops.full(as_shape(dims), value, dtype=keras.backend.standardize_dtype(dtype))


def _range(g: Lowering, start: Any, limit: Any = None, delta: Any = 1, dtype: Any = None) -> Any:
    return ops.arange(start, limit, delta, dtype=None if dtype is None else dtype_of(dtype))


def _one_hot(
    g: Lowering, indices: Any, depth: Any, on_value: Any = None, off_value: Any = None, axis: Any = None,
    dtype: Any = None,
) -> Any:  # fmt: skip
    if on_value is not None or off_value is not None:
        return NotImplemented
    axis = -1 if axis is None else axis
    return ops.one_hot(indices, known_value(depth), axis=axis, dtype=dtype_of(dtype or tf.float32))


FUNCTIONS: dict[str, Function] = {
    "broadcast_to": lambda g, input, shape: ops.broadcast_to(input, as_shape(shape)),
    "concat": lambda g, values, axis: ops.concatenate(_tensors(values), axis=known_value(axis)),
    "ensure_shape": lambda g, x, shape: x,
    "expand_dims": lambda g, input, axis: ops.expand_dims(input, known_value(axis)),
    "eye": lambda g, num_rows, num_columns=None, batch_shape=None, dtype=tf.float32: (
        ops.eye(num_rows, num_columns, dtype=dtype_of(dtype)) if batch_shape is None else NotImplemented
    ),
    "fill": _fill,
    "gather": _gather,
    "one_hot": _one_hot,
    "ones": _full(1),
    "ones_like": _like(1),
    "pad": _pad,
    "range": _range,
    "rank": lambda g, input: tf.constant(len(input.shape), tf.int32),
    "repeat": lambda g, input, repeats, axis=None: ops.repeat(input, repeats, axis=known_value(axis)),
    "reshape": lambda g, tensor, shape: ops.reshape(tensor, as_shape(shape)),
    "reverse": lambda g, tensor, axis: ops.flip(tensor, known_axes(axis)),
    "shape": _shape,
    "slice": lambda g, input_, begin, size: ops.slice(input_, as_shape(begin), as_shape(size)),
    "split": _split,
    "squeeze": _squeeze,
    "stack": lambda g, values, axis=0: ops.stack(_tensors(values), axis=known_value(axis)),
    "tile": lambda g, input, multiples: ops.tile(input, as_shape(multiples)),
    "transpose": lambda g, a, perm=None, conjugate=False: ops.transpose(a, known_axes(perm)),
    "unstack": lambda g, value, num=None, axis=0: ops.unstack(value, num, known_value(axis)),
    "zeros": _full(0),
    "zeros_like": _like(0),
}
