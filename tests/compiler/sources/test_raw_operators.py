"""Operators of TensorFlow between layers, as files of TensorFlow 2.0 to 2.3 hold them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from kerve.compiler import sources
from kerve.compiler.sources import function_model
from kerve.compiler.sources.keras2.raw_operators import TensorFlowOpLayer

_INPUT = tf.TensorSpec((2, 3, 4), tf.float32)
_FUNCTIONS: dict[str, Callable[[Any], Any]] = {
    "whole numbers of 64 bits": lambda x: tf.transpose(x, tf.constant([0, 2, 1], tf.int64)),
    "indices of 64 bits": lambda x: tf.gather(x, tf.constant([1, 0], tf.int64), axis=1),
    "whole numbers for a float": lambda x: tf.maximum(x, 0.0),
    "a type that is left out": lambda x: tf.raw_ops.Sum(input=x, axis=1),
}


def _as_layer(function: Callable[[Any], Any], spec: tf.TensorSpec = _INPUT) -> TensorFlowOpLayer:
    """Return the operator that a function ends with as a layer of what it takes."""
    with tf.Graph().as_default():
        operator = function(tf.compat.v1.placeholder(spec.dtype, spec.shape)).op
        definition = operator.node_def
        definition.attr.pop("Tidx", None)  # which older versions do not write
    values = enumerate(map(tf.get_static_value, operator.inputs))
    constants = {index: value for index, value in values if value is not None}
    return TensorFlowOpLayer(definition.SerializeToString(), operator.name, constants)


@pytest.mark.parametrize("what", list(_FUNCTIONS))
def test_constants_have_the_types_that_their_operator_takes(
    what: str, tmp_path: Path, equal_to_original: Callable[..., Any]
) -> None:
    inputs = tf_keras.Input(batch_shape=(2, 3, 4), name="x")
    tf_keras.Model(inputs, _as_layer(_FUNCTIONS[what])(inputs)).save(tmp_path / "model.h5")
    source: Any = sources.load(tmp_path / "model.h5")
    x = np.random.default_rng(0).standard_normal((2, 3, 4)).astype(np.float32)
    np.testing.assert_allclose(source.original(x), _FUNCTIONS[what](x))
    equal_to_original(source, {"x": x})


def _normal(shape: Any) -> Any:
    return tf.raw_ops.RandomStandardNormal(shape=shape, dtype=tf.float32)


def test_a_random_operator_is_not_compared_number_by_number(tmp_path: Path) -> None:
    """As in a variational autoencoder: `mean + tf.random.normal(tf.shape(mean))`."""
    inputs = tf_keras.Input(batch_shape=(2, 3, 4), name="x")
    mean = tf_keras.layers.Dense(4)(inputs)
    size = _as_layer(lambda x: tf.raw_ops.Shape(input=x))(mean)
    noise = _as_layer(_normal, tf.TensorSpec((3,), tf.int32))(size)
    tf_keras.Model(inputs, tf_keras.layers.Add()([mean, noise])).save(tmp_path / "model.h5")
    source: Any = sources.load(tmp_path / "model.h5")
    assert source.warnings == []
    assert "add" in {layer.name.rpartition("/")[2] for layer in source.model.layers}


def test_an_input_that_is_an_output_of_a_function_has_another_name_there() -> None:
    spec = tf.TensorSpec((None, 2), tf.float32, "x")
    model = function_model.as_model(lambda x: [x, x + 1.0], spec, "whole", ["x", "x_1"])
    assert model.output_names == ["x_1", "x_1_1"]
