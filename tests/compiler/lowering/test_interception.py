"""What a lowering does to Keras while it lasts, and that nothing of it remains."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import onnx_ir as ir
import pytest
import tensorflow as tf
from keras import ops
from tensorflow.python.autograph.operators import py_builtins

from kerve.compiler.errors import ConversionError
from kerve.compiler.lowering import lower

Check = Callable[..., ir.Model]

_X = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)


def _patched() -> list[Any]:
    """Return, as they are now, attributes that a lowering replaces."""
    return [
        keras.Operation.symbolic_call,
        keras.Layer.symbolic_call,
        keras.Layer.add_loss,
        keras.Variable.assign,
        keras.Variable.value,
        keras.Variable.__add__,
        keras.ops.shape,
        keras.src.ops.core.shape,
        keras.src.backend.cast,
        keras.src.backend.nn.relu,
        keras.src.backend.random.normal,
        keras.src.layers.layer.Node,
        tf.map_fn,
        tf.random.normal,
        py_builtins.BUILTIN_FUNCTIONS_MAP,
    ]


def _functional() -> keras.Model:
    inputs = keras.Input((4,))
    hidden = keras.layers.Dense(3, activation="relu")(inputs)
    return keras.Model(inputs, ops.concatenate([hidden, hidden * 2.0], axis=-1))


def test_everything_is_as_before_afterwards() -> None:
    before = _patched()
    lower(_functional())
    assert all(a is b for a, b in zip(before, _patched(), strict=True))


def test_everything_is_as_before_after_an_error() -> None:
    class Broken(keras.Layer):
        def call(self, x: Any) -> Any:
            raise RuntimeError("broken on purpose")

        def compute_output_shape(self, input_shape: Any) -> Any:
            return input_shape

    inputs = keras.Input((4,))
    model = keras.Model(inputs, Broken()(inputs))
    before = _patched()
    with pytest.raises(ConversionError, match="broken on purpose"):
        lower(model)
    assert all(a is b for a, b in zip(before, _patched(), strict=True))


@pytest.mark.parametrize("enabled", [False, True])
def test_the_filter_of_tracebacks_is_as_before(enabled: bool) -> None:
    was = keras.config.is_traceback_filtering_enabled()
    (keras.config.enable_traceback_filtering if enabled else keras.config.disable_traceback_filtering)()
    try:
        lower(_functional())
        assert keras.config.is_traceback_filtering_enabled() == enabled
    finally:
        (keras.config.enable_traceback_filtering if was else keras.config.disable_traceback_filtering)()


def test_the_model_is_left_as_it_was() -> None:
    model = _functional()
    nodes = [(len(layer._inbound_nodes), len(layer._outbound_nodes)) for layer in model.layers]
    weights = [np.array(weight) for weight in model.weights]
    losses = len(model.losses)
    lower(model)
    assert [(len(layer._inbound_nodes), len(layer._outbound_nodes)) for layer in model.layers] == nodes
    assert len(model.losses) == losses
    for weight, before in zip(model.weights, weights, strict=True):
        np.testing.assert_array_equal(weight, before)


def test_a_model_lowers_twice_to_the_same_bytes() -> None:
    model = _functional()
    first, second = (ir.to_proto(lower(model).model).SerializeToString(deterministic=True) for _ in range(2))
    assert first == second


@pytest.mark.parametrize("function", [
    pytest.param(lambda w, x: w + x, id="variable + symbol"),
    pytest.param(lambda w, x: w - x, id="variable - symbol"),
    pytest.param(lambda w, x: w * x, id="variable * symbol"),
    pytest.param(lambda w, x: w / (x + 10.0), id="variable / symbol"),
    pytest.param(lambda w, x: ops.expand_dims(x, 1) @ ops.expand_dims(w, 1), id="products"),
    pytest.param(lambda w, x: ops.cast(w > x, "float32"), id="variable > symbol"),
    pytest.param(lambda w, x: x - w * 2, id="symbol - variable"),
    pytest.param(lambda w, x: (w.value + 1) * x, id="value of a variable"),
    pytest.param(lambda w, x: ops.add(w, 1) * x, id="computed from a variable"),
    pytest.param(lambda w, x: np.float32(2) * x + np.ones(4, "float32"), id="arrays"),
    pytest.param(lambda w, x: tf.constant([1.0, 2.0, 3.0, 4.0]) * x, id="tensors"),
    pytest.param(lambda w, x: ops.cast(tf.constant([0.0] * 4) < x, "int32"), id="tensor < symbol"),
])  # fmt: skip
def test_variables_and_arrays_on_either_side(equal_to_keras: Check, function: Any) -> None:
    class Author(keras.Layer):
        def build(self, _: Any) -> None:
            self.w = self.add_weight(shape=(4,), initializer="ones")

        def call(self, x: Any) -> Any:
            return function(self.w, x)

    inputs = keras.Input((4,))
    equal_to_keras(keras.Model(inputs, Author()(inputs)), _X, traced=False)


def test_layers_may_call_keras_backend(equal_to_keras: Check) -> None:
    class Author(keras.Layer):
        def call(self, x: Any) -> Any:
            x = keras.src.backend.convert_to_tensor(x)
            x = keras.src.backend.nn.relu(keras.src.backend.numpy.square(x) - 0.5)
            return keras.src.backend.cast(x, "float16"), x / keras.src.backend.shape(x)[1]

    inputs = keras.Input((4,))
    equal_to_keras(keras.Model(inputs, Author()(inputs)), _X, traced=False)


def test_an_author_s_operation_is_replayed(equal_to_keras: Check) -> None:
    class Doubled(keras.Operation):
        def call(self, x: Any) -> Any:
            return ops.tanh(x) * 2

        def compute_output_spec(self, x: Any) -> Any:
            return keras.KerasTensor(x.shape, x.dtype)

    inputs = keras.Input((4,))
    equal_to_keras(keras.Model(inputs, Doubled()(inputs)), _X, traced=False)


def test_small_constants_are_shared(equal_to_keras: Check) -> None:
    inputs = keras.Input((4,))
    model = equal_to_keras(keras.Model(inputs, [ops.reshape(inputs + n, (-1, 2, 2)) for n in range(5)]), _X)
    assert sum("shape" in name for name in model.graph.initializers) == 1


def test_a_symbol_compares_and_unpacks_like_a_tensor(equal_to_keras: Check, operators: Any) -> None:
    class Author(keras.Layer):
        def call(self, x: Any) -> Any:
            first, second = ops.transpose(x)[:2]
            return ops.cast(x == 0, "float32") + ops.expand_dims(first * second, 1)

        def compute_output_shape(self, input_shape: Any) -> Any:  # Keras's own trace cannot unpack
            return input_shape

    inputs = keras.Input((4,), batch_size=3)
    model = equal_to_keras(keras.Model(inputs, Author()(inputs)), np.round(_X), batched=False, traced=False)
    assert Counter(operators(model))["Equal"] == 1
