"""Ranks that a signature does not specify: of inputs from the given data, of outputs from calls.

A computed axis (`tf.expand_dims(x, axis)`) leaves a result of unknown rank in the graph.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from kerve.compiler.errors import ConversionError
from kerve.compiler.lowering import variables
from kerve.compiler.sources.saved_model.graphs import Function
from kerve.compiler.verification.data import arrays_in, by_name

__all__ = ["with_ranks", "with_shapes"]


def with_shapes(inputs: Mapping[str, tf.TensorSpec], data: Path | None) -> dict[str, tf.TensorSpec]:
    """Return the inputs; those of unknown rank get the shape of their array in `data`, except for the batch.

    Raises `ConversionError` for an input without an array.
    """
    unknown = [key for key, spec in inputs.items() if spec.shape.rank is None]
    arrays = by_name(arrays_in(data), sorted(inputs)) if unknown and data is not None else {}
    if missing := [key for key in unknown if key not in arrays]:
        held = f"; {data} holds {', '.join(sorted(arrays)) or 'no arrays'}" if data is not None else ""
        raise ConversionError(
            f"the signature does not give the rank of the input '{missing[0]}', which ONNX requires; give "
            "inputs of that rank with --data FILE.npz, or save the model with a shape, with None for dynamic "
            f"dimensions (tf.TensorSpec([None, 5]), tf.compat.v1.placeholder){held}"
        )
    shaped = {
        key: tf.TensorSpec([None, *arrays[key].shape[1:]] if arrays[key].ndim else [], inputs[key].dtype, key)
        for key in unknown
    }
    return dict(inputs) | shaped


def with_ranks(call: Function, inputs: Mapping[str, tf.TensorSpec]) -> Function:
    """Return the function with known ranks for every result; raises `ConversionError` if one is not found."""
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
    """Return the ranks on which all successful calls agree."""
    found: dict[str, set[int]] = {name: set() for name in unknown}
    for first, step, size in itertools.product((0, 1, -1), (0, 1), (2, 1)):  # an axis, a size, ... that fits
        with suppress(tf.errors.OpError, ValueError):
            answers = call({name: _filled(spec, first, step, size) for name, spec in inputs.items()})
            for name in unknown:
                found[name].add(answers[name].shape.rank)
    for name, ranks in found.items():
        if len(ranks) != 1:
            why = (
                "it depends on the values of the inputs"
                if ranks
                else "the signature accepts none of the values tried"
            )
            raise ConversionError(
                f"the output {name!r} has no known rank: {why}; "
                "give its shape in the signature (tf.ensure_shape)"
            )
    return {name: ranks.pop() for name, ranks in found.items()}


def _filled(spec: tf.TensorSpec, first: int, step: int, size: int) -> Any:
    """Return a tensor of numbers from `first` in steps of `step`; dynamic axes have the given size."""
    shape = [size if known is None else known for known in spec.shape]
    if spec.dtype == tf.string:
        return tf.fill(shape, "")
    numbers = first + step * np.arange(math.prod(shape)).reshape(shape)
    return tf.cast(numbers, spec.dtype)
