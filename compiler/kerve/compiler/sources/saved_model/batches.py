"""The number of rows that a signature with state takes.

Keras exports a stateful layer with an open batch, but the state has rows of its own: the signature can be
called with so many rows only, which nothing but a call tells.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from kerve.compiler.lowering import variables
from kerve.compiler.sources.saved_model.graphs import Function

__all__ = ["with_rows_of_state"]


def with_rows_of_state(
    signature: Any, inputs: Mapping[str, tf.TensorSpec], call: Function
) -> Mapping[str, tf.TensorSpec]:
    """Return the inputs, with the state's number of rows where the signature takes no other."""
    try:
        state = variables.changed(signature.graph)
    except variables.ImpureError:  # the lowering will refuse it
        return inputs
    sizes = sorted({each.shape[0] for each in state if each.shape.rank})
    values = [each.numpy() for each in state]
    try:
        if not sizes or _accepts(call, inputs, max(sizes) + 1):
            return inputs
        fitting = [size for size in sizes if _accepts(call, inputs, size)]
    finally:
        for each, value in zip(state, values, strict=True):
            each.assign(value)
    return {key: _of_rows(spec, fitting[0]) for key, spec in inputs.items()} if fitting else inputs


def _accepts(call: Function, inputs: Mapping[str, tf.TensorSpec], rows: int) -> bool:
    shapes = {key: [size or 1 for size in _of_rows(spec, rows).shape] for key, spec in inputs.items()}
    try:
        call({key: tf.zeros(shapes[key], spec.dtype) for key, spec in inputs.items()})
    except (tf.errors.OpError, ValueError):
        return False
    return True


def _of_rows(spec: tf.TensorSpec, rows: int) -> tf.TensorSpec:
    shape = spec.shape.as_list()
    return tf.TensorSpec([rows, *shape[1:]] if shape and shape[0] is None else shape, spec.dtype, spec.name)
