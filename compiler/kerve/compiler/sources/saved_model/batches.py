"""The batch sizes that a signature accepts, which can be determined only by calling it.

Keras exports a stateful layer with a dynamic batch, but the state has a fixed number of rows: the signature
accepts no other. And inputs that may have different numbers of rows (questions, and documents to be searched)
are not a batch, though their first dimensions are dynamic like a batch's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import tensorflow as tf

from kerve.compiler.lowering import variables
from kerve.compiler.lowering.signature import InputSpec
from kerve.compiler.sources.saved_model.graphs import Function

__all__ = ["fixed_batch_warning", "rows_apart", "with_rows_of_state"]


def with_rows_of_state(
    signature: Any, inputs: Mapping[str, tf.TensorSpec], call: Function
) -> Mapping[str, tf.TensorSpec]:
    """Return the inputs, with the state's number of rows if the signature accepts no other."""
    try:
        state = variables.changed(signature.graph)
    except variables.ImpureError:  # rejected by the lowering
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


def fixed_batch_warning(inputs: Mapping[str, tf.TensorSpec], outputs: Mapping[str, Any]) -> Sequence[str]:
    """Return a warning if a signature accepts only one batch size, often that which the model was built on.

    `tf.saved_model.save` keeps that batch size for a subclassed model of Keras 3.
    """
    shapes = [each.shape for each in (*inputs.values(), *outputs.values())]
    first = {shape[0] if (shape.rank or 0) > 1 else None for shape in shapes}
    if len(first) != 1 or first <= {None, 1}:
        return ()
    return (
        f"its signature takes exactly {first.pop()} rows at a time; if that is only the batch size that the "
        "model was built with, save it with model.export()",
    )


def rows_apart(
    inputs: Mapping[str, tf.TensorSpec], call: Function, original: Function
) -> dict[str, InputSpec] | None:
    """Return the inputs with separate names for their rows if their numbers of rows may differ, or None."""
    is_open = [key for key, spec in inputs.items() if spec.shape.rank and spec.shape[0] is None]
    if len(is_open) < 2 or _changes_state(call, inputs):
        return None
    counts = {key: 2 + index for index, key in enumerate(is_open)}
    if not _takes(original, {key: _of_rows(spec, counts.get(key, 1)) for key, spec in inputs.items()}):
        return None
    return {key: InputSpec(key, spec.dtype.name, tuple(_names(key, spec))) for key, spec in inputs.items()}


def _changes_state(call: Function, inputs: Mapping[str, tf.TensorSpec]) -> bool:
    graph = tf.function(call, autograph=False).get_concrete_function(dict(inputs)).graph
    try:
        return bool(variables.changed(graph))
    except variables.ImpureError:
        return True


def _names(key: str, spec: tf.TensorSpec) -> Iterator[int | str]:
    return (f"{key}_{axis}" if size is None else size for axis, size in enumerate(spec.shape))


def _accepts(call: Function, inputs: Mapping[str, tf.TensorSpec], rows: int) -> bool:
    return _takes(call, {key: _of_rows(spec, rows) for key, spec in inputs.items()})


def _takes(call: Function, inputs: Mapping[str, tf.TensorSpec]) -> bool:
    """Return whether a function can be called with such inputs, dynamic dimensions having size 1."""
    shapes = {key: [size or 1 for size in spec.shape] for key, spec in inputs.items()}
    try:
        call({key: tf.zeros(shapes[key], spec.dtype) for key, spec in inputs.items()})
    except (tf.errors.OpError, ValueError):
        return False
    return True


def _of_rows(spec: tf.TensorSpec, rows: int) -> tf.TensorSpec:
    shape = spec.shape.as_list()
    return tf.TensorSpec([rows, *shape[1:]] if shape and shape[0] is None else shape, spec.dtype, spec.name)
