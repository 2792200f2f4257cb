"""Models that draw random numbers when they are called: compared with Keras by distribution."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
import tensorflow as tf
from keras import ops
from numpy.typing import NDArray

from kerve.compiler import compile_model
from kerve.compiler.lowering import Lowered, lower

_ROWS = 20_000


def _model(function: Callable[..., Any], **kwargs: Any) -> keras.Model:
    class Sampler(keras.Layer):
        def call(self, x: Any) -> Any:
            return function(x)

    inputs = keras.Input((3,))
    return keras.Model(inputs, Sampler(name="sampler")(inputs))


def _draw(lowered: Lowered, x: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return what two calls of one session give: all sessions of a process begin with the same numbers."""
    session = ort.InferenceSession(ir.to_proto(lowered.model).SerializeToString())
    feeds = {lowered.model.graph.inputs[0].name: x}
    return np.asarray(session.run(None, feeds)[0]), np.asarray(session.run(None, feeds)[0])


_SAMPLERS = {
    "normal": lambda x: keras.random.normal(ops.shape(x), mean=1.0, stddev=2.0),
    "normal of tensors": lambda x: keras.random.normal(ops.shape(x), mean=0.5, stddev=1.0) * (x + 1) + x,
    "uniform": lambda x: keras.random.uniform(ops.shape(x), -1.0, 3.0),
    "truncated normal": lambda x: keras.random.truncated_normal(ops.shape(x), stddev=2.0),
    "randint": lambda x: keras.random.randint(ops.shape(x), 2, 9),
    "categorical": lambda x: keras.random.categorical(x + ops.convert_to_tensor([0.0, 1.0, 2.0]), 4),
    "dropout": lambda x: keras.random.dropout(x + 1.0, 0.3),
    "dropout of rows": lambda x: keras.random.dropout(x + 1.0, 0.3, noise_shape=(None, 1)),
    "gamma": lambda x: keras.random.gamma(ops.shape(x), 2.5),
    "small gamma": lambda x: keras.random.gamma(ops.shape(x), 0.4),
    "beta": lambda x: keras.random.beta(ops.shape(x), 2.0, 0.7),
    "binomial": lambda x: keras.random.binomial(ops.shape(x), 5.0, 0.3),
    "shuffle": lambda x: keras.random.shuffle(
        x + ops.cast(ops.expand_dims(ops.arange(ops.shape(x)[0]), 1), "float32")
    ),
    "normal of tensorflow": lambda x: tf.random.normal(tf.shape(x), 1.0, 2.0),
    "uniform of tensorflow": lambda x: tf.random.uniform([tf.shape(x)[0], 2], -1.0, 3.0),
}


@pytest.mark.parametrize("name", _SAMPLERS)
def test_samples_have_the_distribution_of_keras(name: str) -> None:
    model = _model(_SAMPLERS[name])
    x = np.zeros((_ROWS, 3), np.float32)
    lowered = lower(model)
    ours, again = _draw(lowered, x)
    theirs = np.asarray(model(x, training=False))
    assert ours.shape == theirs.shape
    assert ours.dtype == theirs.dtype
    assert not np.array_equal(ours, again)
    ours, theirs = np.sort(ours.reshape(-1)), np.sort(theirs.reshape(-1))
    scale = theirs.std()
    np.testing.assert_allclose(ours.mean(), theirs.mean(), atol=0.05 * scale)
    np.testing.assert_allclose(ours.std(), scale, rtol=0.05)
    quantiles = np.linspace(0.02, 0.98, 13)
    np.testing.assert_allclose(np.quantile(ours, quantiles), np.quantile(theirs, quantiles), atol=0.1 * scale)


def test_the_author_is_warned_of_the_layer_that_draws() -> None:
    lowered = lower(_model(_SAMPLERS["normal"]))
    assert lowered.warnings == (
        "layer 'sampler': draws random numbers when it is called; the compiled model draws its own, "
        "so its outputs agree with Keras's in distribution only",
    )


def test_a_fixed_shape_is_no_constant() -> None:
    lowered = lower(_model(lambda x: x * 0 + keras.random.normal((3,))))
    x = np.zeros((2, 3), np.float32)
    assert not np.array_equal(*_draw(lowered, x))


def test_the_generator_of_the_source_model_is_left_alone() -> None:
    class Sampler(keras.Layer):
        def __init__(self) -> None:
            super().__init__()
            self.seeds = keras.random.SeedGenerator(5)

        def call(self, x: Any) -> Any:
            return x + keras.random.normal(ops.shape(x), seed=self.seeds)

    inputs = keras.Input((3,))
    layer = Sampler()
    model = keras.Model(inputs, layer(inputs))
    before = np.array(layer.seeds.state)
    lowered = lower(model)
    np.testing.assert_array_equal(layer.seeds.state, before)
    assert lowered.state == ()


def test_dropout_that_a_layer_asks_for_stays_on() -> None:
    lowered = lower(_model(lambda x: keras.layers.Dropout(0.5)(x, training=True)))
    kept, _ = _draw(lowered, np.ones((_ROWS, 3), np.float32))
    assert set(np.unique(kept)) == {0.0, 2.0}
    assert abs(kept.mean() - 1.0) < 0.05


def test_predict_overrules_what_a_functional_model_asks_for(equal_to_keras: Any) -> None:
    inputs = keras.Input((3,))
    model = keras.Model(inputs, keras.layers.Dropout(0.5)(inputs, training=True))
    equal_to_keras(model, np.ones((4, 3), np.float32), predict=True)


def test_a_seed_that_is_a_number_gives_constants(equal_to_keras: Any) -> None:
    model = _model(lambda x: x @ keras.random.normal((3, 5), seed=1))
    equal_to_keras(model, np.ones((4, 3), np.float32))


def test_a_seed_that_is_a_number_draws_anew_for_each_batch(tmp_path: Path) -> None:
    model = _model(lambda x: x + keras.random.normal(ops.shape(x), seed=1))
    artifact = compile_model(model, repository=tmp_path, name="m")
    assert any("the seed 1, and repeats its numbers in Keras" in it for it in artifact.manifest.warnings)
    assert all(check.by_distribution for check in artifact.manifest.verification.checks)
