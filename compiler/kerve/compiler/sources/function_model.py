"""Wrap a TensorFlow function as a Keras 3 model with one operation, which tf2onnx converts as a whole."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

from kerve.compiler.errors import ConversionError
from kerve.compiler.lowering.signature import unique_names
from kerve.compiler.sources.keras2.bridges import OldFunction
from kerve.compiler.sources.keras2.layers import clean_name

__all__ = ["as_model"]


def as_model(
    function: Callable[..., Any], inputs: Any, name: str, output_names: Sequence[str] | None = None
) -> keras.Model:
    """Return a model that calls `function(inputs)`.

    `inputs` is a structure of `tf.TensorSpec`, each with a name. `output_names` are the names of the
    function's results, unless it returns a dictionary, whose keys are the names.
    """
    if not inputs:
        return _ModelWithoutInputs(function, name=clean_name(name))
    arguments = keras.tree.map_structure(_input, inputs)
    results = OldFunction(function, clean_name(name))(arguments)
    if output_names is not None:
        taken = [argument.name for argument in keras.tree.flatten(arguments)]  # an input may be an output
        names = unique_names(map(clean_name, output_names), taken)
        named = [
            keras.layers.Identity(name=output)(result)
            for output, result in zip(names, keras.tree.flatten(results), strict=True)
        ]
        results = keras.tree.pack_sequence_as(results, named)
    return keras.Model(arguments, results, name=clean_name(name))


class _ModelWithoutInputs(keras.Model):
    """A function without tensor arguments, which cannot be a functional model."""

    def __init__(self, function: Callable[..., Any], name: str) -> None:
        super().__init__(name=name)
        self._function = function
        self.built = True

    def call(self, inputs: Any) -> Any:
        """Call the function."""
        return self._function(inputs)


def _input(spec: tf.TensorSpec) -> Any:
    if spec.shape.rank is None:
        raise ConversionError(
            f"the model does not give the rank of the input '{spec.name}', which ONNX requires; "
            "save it with a shape, with None for dynamic dimensions (tf.TensorSpec([None, 5]))"
        )
    return keras.Input(batch_shape=tuple(spec.shape), dtype=spec.dtype.name, name=clean_name(spec.name))
