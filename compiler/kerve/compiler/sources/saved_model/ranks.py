"""The ranks of results that TensorFlow does not know before it computes them.

An axis that is itself computed (`tf.expand_dims(x, axis)`) leaves a result without a rank in a graph; a
call tells it.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from kerve.compiler.errors import ConversionError
from kerve.compiler.lowering import variables
from kerve.compiler.sources.saved_model.graphs import Function

__all__ = ["with_ranks"]


def with_ranks(call: Function, inputs: Mapping[str, tf.TensorSpec]) -> Function:
    """Return the function, every result with a rank; raises `ConversionError` if none is found."""
    graph = tf.function(call, autograph=False).get_concrete_function(dict(inputs)).graph
    outputs = graph.structured_outputs
    unknown = [name for name, result in outputs.items() if result.shape.rank is None]
    if not unknown or variables.changed(graph):
        return call
    answers = _answers(call, inputs, unknown)
    shapes = {name: [None] * answers[name].shape.rank for name in unknown}

    def ranked(arguments: Mapping[str, Any]) -> dict[str, Any]:
        results = call(arguments)
        for name, shape in shapes.items():
            results[name].set_shape(shape)
        return results

    return ranked


def _answers(call: Function, inputs: Mapping[str, tf.TensorSpec], unknown: list[str]) -> dict[str, Any]:
    failure: Exception | None = None
    for number, size in itertools.product(
        (0, 1, -1), (2, 1)
    ):  # one of them is an axis, a size, ... that fits
        try:
            return call({name: _filled(spec, number, size) for name, spec in inputs.items()})
        except (tf.errors.OpError, ValueError) as error:
            failure = error
    raise ConversionError(
        f"the output '{unknown[0]}' has no known rank, and the signature takes neither zeros nor ones that "
        "would show it; give its shape in the signature (tf.ensure_shape)"
    ) from failure


def _filled(spec: tf.TensorSpec, number: int, size: int) -> Any:
    """Return a tensor of the same number, its open axes of such a size."""
    if spec.shape.rank is None:
        raise ConversionError(
            f"the input '{spec.name}' has no known rank; give its shape in the signature (tf.TensorSpec)"
        )
    shape = [size if known is None else known for known in spec.shape]
    return tf.fill(shape, "" if spec.dtype == tf.string else tf.cast(number, spec.dtype))
