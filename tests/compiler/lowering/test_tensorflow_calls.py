"""Raw TensorFlow inside layers: called on symbols, function by function, beside layers of Keras."""

from __future__ import annotations

import functools
import inspect
from collections import Counter
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import onnx_ir as ir
import pytest
import tensorflow as tf

from kerve.compiler import ConversionError
from kerve.compiler.lowering import lower, tensorflow_functions

Check = Callable[..., ir.Model]
Count = Callable[[ir.Model], Counter[str]]

_X = np.random.default_rng(0).normal(size=(3, 4, 6)).astype(np.float32)


def _model(function: Callable[..., Any], shape: Any = (4, 6)) -> keras.Model:
    class Author(keras.Layer):
        def __init__(self) -> None:
            super().__init__()
            self.dense = keras.layers.Dense(6, activation="gelu")
            self.vector = tf.Variable(np.linspace(0.1, 0.6, 6, dtype=np.float32))

        def build(self, _: Any) -> None:
            self.dense.build((None, 4, 6))

        def call(self, x: Any) -> Any:
            return function(self, x)

    inputs = keras.Input(shape)
    return keras.Model(inputs, Author()(inputs))


@pytest.mark.parametrize("function", [
    pytest.param(lambda s, x: tf.nn.relu(s.dense(x)) * 2 + tf.reduce_mean(x, axis=-1, keepdims=True), id="beside a layer"),
    pytest.param(lambda s, x: tf.reshape(x, [tf.shape(x)[0], -1]), id="size of the batch"),
    pytest.param(lambda s, x: tf.reshape(x, (tf.shape(x)[0], tf.shape(x)[1] // 2, 12)), id="half a size"),
    pytest.param(lambda s, x: tf.reshape(x, tf.concat([tf.shape(x)[:1], [24]], 0)), id="computed shape"),
    pytest.param(lambda s, x: tf.reshape(x, [-1, *x.shape.as_list()[1:]]), id="as_list"),
    pytest.param(lambda s, x: x[:, : x.get_shape().as_list()[1] - 1], id="get_shape"),
    pytest.param(lambda s, x: x * x.shape.rank + x.shape.ndims, id="rank"),
    pytest.param(lambda s, x: tf.cast(tf.round(x) == 0, tf.float32) * x, id="equality"),
    pytest.param(lambda s, x: x[:, 0] + x[:, -1], id="slices"),
    pytest.param(lambda s, x: x[..., tf.newaxis] * x[:, :, None], id="newaxis"),
    pytest.param(lambda s, x: x * s.vector + s.vector * x, id="variables of tensorflow"),
    pytest.param(lambda s, x: tf.matmul(x, tf.reshape(s.vector, [6, 1])), id="product with a variable"),
    pytest.param(lambda s, x: tf.where(tf.greater(x, 0), x, tf.zeros_like(x)), id="where"),
    pytest.param(lambda s, x: tf.concat([x, tf.ones([tf.shape(x)[0], 1, 6])], axis=1), id="concat"),
    pytest.param(lambda s, x: tf.nn.bias_add(x[..., None], s.vector[:4], "NCHW") + tf.nn.bias_add(x, s.vector)[..., None], id="bias"),
    pytest.param(lambda s, x: tf.split(x, [1, 2, 3], axis=-1), id="split"),
    pytest.param(lambda s, x: tf.unstack(x, axis=1), id="unstack"),
    pytest.param(lambda s, x: tf.einsum("btc,bsc->bts", x, x), id="einsum"),
    pytest.param(lambda s, x: tf.nn.softmax(tf.matmul(x, x, transpose_b=True) / tf.sqrt(6.0)), id="attention"),
    pytest.param(lambda s, x: (x - tf.nn.moments(x, [-1], keepdims=True)[0]), id="moments"),
    pytest.param(lambda s, x: tf.one_hot(tf.argmax(x, axis=-1), 6), id="one hot"),
    pytest.param(lambda s, x: tf.one_hot(tf.argmax(x, axis=-1) - 3, 3, 2.0, -1.0, 1), id="one hot or none"),
    pytest.param(lambda s, x: tf.nn.conv1d(x, tf.ones([3, 6, 2]), 1, "SAME"), id="convolution"),
    pytest.param(lambda s, x: tf.nn.max_pool1d(x, 2, 2, "VALID"), id="pooling"),
    pytest.param(lambda s, x: x + tf.cast(tf.range(tf.shape(x)[1])[None, :, None], tf.float32), id="range"),
    pytest.param(lambda s, x: tf.math.l2_normalize(x, axis=-1), id="normalize"),
    pytest.param(lambda s, x: tf.cond(tf.reduce_sum(x) > 0, lambda: s.dense(x), lambda: x - 1), id="cond"),
    pytest.param(lambda s, x: tf.while_loop(lambda i, v: i < 3, lambda i, v: (i + 1, v + s.dense(x)), [0, x])[1], id="loop"),
    pytest.param(lambda s, x: tf.map_fn(lambda r: r * 2 + tf.reduce_sum(r), x), id="map"),
    pytest.param(lambda s, x: tf.scan(lambda a, r: a * 0.5 + r, x, initializer=tf.zeros([4, 6])), id="scan"),
    pytest.param(lambda s, x: tf.math.top_k(x, 2).values, id="top k"),
    pytest.param(lambda s, x: tf.function(lambda y: y * 2 + tf.nn.relu(y))(x), id="compiled function"),
    pytest.param(lambda s, x: tf.keras.losses.huber(x, x * 2), id="loss of keras"),
    pytest.param(lambda s, x: tf.image.resize(x[..., None], (7, 9)), id="image"),
    pytest.param(lambda s, x: tf.math.erfc(x) * tf.math.log1p(tf.abs(x)), id="erfc"),
    pytest.param(lambda s, x: {"a": tf.nn.relu(x), "b": [tf.abs(x), tf.rank(x)]}, id="structures"),
    pytest.param(lambda s, x: tf.pad(tf.transpose(x, [0, 2, 1]), [[0, 0], [1, 1], [0, 2]], "REFLECT"), id="pad"),
    pytest.param(lambda s, x: tf.gather(x, [0, 2], axis=1) + tf.tile(x[:, :1], [1, 2, 1]), id="gather"),
    pytest.param(lambda s, x: tf.tile(x, tf.concat([tf.shape(x)[2:] - 4, tf.constant([1, 3])], 0)), id="computed tile"),
    pytest.param(lambda s, x: tf.image.extract_patches(x[..., None], [1, 2, 3, 1], [1, 1, 2, 1], [1, 1, 1, 1], "SAME"), id="patches"),
    pytest.param(lambda s, x: tf.squeeze(tf.expand_dims(x, 1), 1) + tf.fill([6], 2.0), id="squeeze"),
    pytest.param(lambda s, x: tf.clip_by_value(tf.norm(x, axis=-1), 1.0, 2.0), id="norm"),
    pytest.param(lambda s, x: tf.abs(tf.linalg.qr(x).r) + tf.abs(tf.linalg.qr(x, full_matrices=True)[1]), id="qr"),
    pytest.param(lambda s, x: tf.linalg.triangular_solve(x[:, :4, :4] + 5 * tf.eye(4), x), id="triangular"),
    pytest.param(lambda s, x: tf.nn.relu(keras.ops.segment_sum(x[0], tf.constant([0, -1, 0, 0]), tf.shape(x)[0])), id="segments"),
    pytest.param(lambda s, x: tf.linalg.triangular_solve(x[:, :4, :4] + 5 * tf.eye(4), x, False, True), id="upper"),
])  # fmt: skip
def test_common_functions_become_operations_of_keras(equal_to_keras: Check, function: Any) -> None:
    equal_to_keras(_model(function), _X, traced=False)


@pytest.mark.parametrize("function", [
    pytest.param(lambda s, x: s.dense(tf.gather_nd(x, [[0, 1], [2, 3]])), id="gather_nd"),
    pytest.param(lambda s, x: tf.gather(x, tf.argsort(x[:, :, 0], axis=1), batch_dims=1), id="batched gather"),
    pytest.param(lambda s, x: tf.boolean_mask(x, x[:, :, 0] > 0), id="boolean mask"),
    pytest.param(lambda s, x: tf.tensor_scatter_nd_update(x, [[0]], tf.zeros([1, 4, 6])), id="scatter"),
    pytest.param(lambda s, x: tf.cumsum(x, axis=1, reverse=True, exclusive=True), id="exclusive sums"),
    pytest.param(lambda s, x: tf.math.segment_sum(x, [0, 0, 1]), id="segments"),
    pytest.param(lambda s, x: tf.sequence_mask(tf.cast(tf.abs(x[:, 0, 0]) * 3, tf.int32), 5), id="sequence mask"),
    pytest.param(lambda s, x: tf.linalg.band_part(x[:, :4, :4], -1, 0), id="band part"),
    pytest.param(lambda s, x: tf.math.lgamma(tf.abs(x) + 0.1), id="an operator tf2onnx does not know"),
])  # fmt: skip
def test_any_other_function_is_traced_alone(equal_to_keras: Check, function: Any) -> None:
    equal_to_keras(_model(function), _X, traced=False, batched=False)


def _with_computed_one(function: Callable[..., Any]) -> keras.Model:
    return _model(lambda _, x: function(x, tf.cast(tf.reduce_max(tf.abs(x)) > -1, tf.int32)))


@pytest.mark.parametrize("function", [
    pytest.param(lambda x, one: tf.cumsum(x, one), id="cumsum"),
    pytest.param(lambda x, one: tf.ensure_shape(tf.reduce_sum(x, [one, one + 1]), [None]), id="sum over two"),
    pytest.param(lambda x, one: tf.math.top_k(x, one + 1).values, id="top k"),
])  # fmt: skip
def test_a_computed_axis_is_not_taken_for_none(equal_to_keras: Check, function: Any) -> None:
    equal_to_keras(_with_computed_one(function), _X)


@pytest.mark.parametrize("function", [
    pytest.param(lambda x, one: tf.ensure_shape(tf.argmax(x, one), [None, 6]), id="argmax"),
    pytest.param(lambda x, one: tf.ensure_shape(tf.gather(x, [0], axis=one), [None, 1, 6]), id="gather"),
    pytest.param(lambda x, one: tf.ensure_shape(tf.transpose(x, [0, one + 1, one]), [None, 6, 4]), id="transpose"),
])  # fmt: skip
def test_a_computed_axis_that_is_an_attribute_in_onnx_is_refused(function: Any) -> None:
    with pytest.raises(ConversionError, match=r"onstant|must be Const|computed from"):
        lower(_with_computed_one(function))


def test_layers_beside_raw_tensorflow_keep_their_operators(equal_to_keras: Check, operators: Count) -> None:
    model = equal_to_keras(_model(lambda s, x: tf.nn.relu(s.dense(tf.cumsum(x, axis=1, reverse=True)))), _X)
    assert operators(model) == {"CumSum": 1, "MatMul": 1, "Add": 1, "Gelu": 1, "Relu": 1}


def test_a_shape_in_the_style_of_tensorflow_is_a_constant(equal_to_keras: Check, operators: Count) -> None:
    function = lambda s, x: tf.reshape(x, [tf.shape(x)[0], tf.shape(x)[1], 2, 3])  # noqa: E731
    model = equal_to_keras(_model(function, (None, 6)), _X)
    assert operators(model)["Concat"] == 0


def test_checks_and_prints_leave_no_trace(equal_to_keras: Check, operators: Count) -> None:
    def function(_: Any, x: Any) -> Any:
        tf.debugging.assert_greater(tf.shape(x)[0], 0)
        tf.print("shape", tf.shape(x))
        return tf.nn.relu(tf.ensure_shape(x, [None, 4, 6]))

    assert operators(equal_to_keras(_model(function), _X))["Relu"] == 1


def test_a_variable_of_tensorflow_that_a_call_changes_is_state() -> None:
    def function(layer: Any, x: Any) -> Any:
        layer.vector.assign_add(tf.ones(6))
        return x * layer.vector

    model = _model(function)
    before = model.layers[1].vector.numpy()
    lowered = lower(model)
    assert [(each.input, each.output) for each in lowered.state] == [("Variable", "Variable/next")]
    np.testing.assert_array_equal(model.layers[1].vector.numpy(), before)


def test_outside_a_lowering_tensorflow_is_untouched() -> None:
    lower(_model(lambda s, x: tf.nn.relu(x)))
    with pytest.raises(ValueError, match="KerasTensor"):
        tf.nn.relu(keras.KerasTensor((2,)))
    assert tf.map_fn(lambda x: x * 2, tf.constant([1, 2])).numpy().tolist() == [2, 4]


@pytest.mark.parametrize("name", sorted(tensorflow_functions.FUNCTIONS))
def test_our_form_takes_the_arguments_of_tensorflows(name: str) -> None:
    op = functools.reduce(getattr, name.split("."), tf)
    theirs = inspect.signature(tf.__internal__.decorator.unwrap(op)[1]).parameters
    _, *ours = inspect.signature(tensorflow_functions.FUNCTIONS[name]).parameters.values()
    assert {each.name for each in ours if each.kind is each.POSITIONAL_OR_KEYWORD} <= set(theirs)
    if not any(each.kind is each.VAR_KEYWORD for each in ours):
        assert set(theirs) - {each.name for each in ours} <= {"name"}


@pytest.mark.parametrize(
    ("keys", "values", "default"),
    [
        pytest.param(["a", "b"], np.array([3, 4], np.int64), -1, id="strings to integers"),
        pytest.param(["a", "b"], np.array([0.5, 4], np.float32), 1.5, id="strings to numbers"),
        pytest.param(np.array([7, 2], np.int64), ["seven", "two"], "?", id="integers to strings"),
    ],
)
def test_a_table_is_looked_up(equal_to_keras: Check, keys: Any, values: Any, default: Any) -> None:
    class Lookup(keras.Layer):
        def build(self, _: Any) -> None:
            given = tf.lookup.KeyValueTensorInitializer(tf.constant(keys), tf.constant(values))
            self.table = tf.lookup.StaticHashTable(given, default)

        def call(self, x: Any) -> Any:
            return self.table.lookup(x)

        def compute_output_spec(self, x: Any) -> Any:
            return keras.KerasTensor(x.shape, keras.backend.standardize_dtype(self.table.value_dtype))

    text = isinstance(keys[0], str)
    inputs = keras.Input((3,), dtype="string" if text else "int64")
    asked = np.array([["a", "c", "b"]], object) if text else np.array([[7, 8, 2]])
    equal_to_keras(keras.Model(inputs, Lookup()(inputs)), asked, traced=False)


@pytest.mark.parametrize("method", ["bilinear", "nearest", "area"])
@pytest.mark.parametrize("dtype", ["uint8", "float16"])
def test_a_resized_image_has_the_type_of_tensorflow(equal_to_keras: Check, dtype: str, method: str) -> None:
    inputs = keras.Input((4, 6, 1), dtype=dtype)
    layer = keras.layers.Lambda(lambda x: tf.image.resize(x, (3, 4), method), dtype=dtype)
    images = np.random.default_rng(1).uniform(0, 255, (2, 4, 6, 1)).astype(dtype)
    equal_to_keras(keras.Model(inputs, layer(inputs)), images)
