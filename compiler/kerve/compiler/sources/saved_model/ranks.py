"""The ranks of results that TensorFlow does not know before it computes them.

An axis that is itself computed (`tf.expand_dims(x, axis)`) leaves a result without a rank in a graph; a
call tells it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import numpy as np
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
    ranks = _ranks(call, inputs, unknown)

    def ranked(arguments: Mapping[str, Any]) -> dict[str, Any]:
        results = call(arguments)
        for name, rank in ranks.items():
            results[name].set_shape([None] * rank)
        return results

    return ranked


def _ranks(call: Function, inputs: Mapping[str, tf.TensorSpec], unknown: list[str]) -> dict[str, int]:
    """Return the ranks that all calls agree upon which the function takes."""
    found: dict[str, set[int]] = {name: set() for name in unknown}
    for first, step, size in itertools.product((0, 1, -1), (0, 1), (2, 1)):  # an axis, a size, ... that fits
        with suppress(tf.errors.OpError, ValueError):
            answers = call({name: _filled(spec, first, step, size) for name, spec in inputs.items()})
            for name in unknown:
                found[name].add(answers[name].shape.rank)
    for name, ranks in found.items():
        if len(ranks) != 1:
            why = (
                "it depends on what the inputs hold"
                if ranks
                else "the signature takes none of the numbers tried"
            )
            raise ConversionError(
                f"the output {name!r} has no known rank: {why}; "
                "give its shape in the signature (tf.ensure_shape)"
            )
    return {name: ranks.pop() for name, ranks in found.items()}


def _filled(spec: tf.TensorSpec, first: int, step: int, size: int) -> Any:
    """Return a tensor that counts from a number in steps, its open axes of such a size."""
    if spec.shape.rank is None:
        raise ConversionError(
            f"the input '{spec.name}' has no known rank; give its shape in the signature (tf.TensorSpec)"
        )
    shape = [size if known is None else known for known in spec.shape]
    if spec.dtype == tf.string:
        return tf.fill(shape, "")
    numbers = first + step * np.arange(math.prod(shape)).reshape(shape)
    return tf.cast(numbers, spec.dtype)
