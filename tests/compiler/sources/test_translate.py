"""Models of Keras 2 become equal models of Keras 3, layer by layer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnx_ir as ir
import pytest
import tensorflow as tf
import tf_keras
from tf_keras import layers

from kerve.compiler import sources
from kerve.compiler.activations import keras2_hard_sigmoid
from kerve.compiler.errors import ConversionError

ModelOf = Callable[[tuple[int, ...], Any], tf_keras.Model]
Kept = Callable[[Any], list[str]]
_VECTOR, _SEQUENCE, _IMAGE, _VOLUME = (6,), (6, 4), (8, 8, 4), (6, 6, 6, 2)

_EQUAL: dict[str, tuple[tuple[int, ...], Callable[[], Any]]] = {
    "an activation by name": (_VECTOR, lambda: layers.Dense(4, "gelu")),
    "the hard sigmoid of Keras 2": (_SEQUENCE, lambda: layers.Activation("hard_sigmoid")),
    "a slope under its old name": (_VECTOR, lambda: layers.LeakyReLU(0.1)),
    "a softmax over two axes": (_SEQUENCE, lambda: layers.Softmax(axis=[1, 2])),
    "a convolution in groups": (_IMAGE, lambda: layers.Conv2D(4, 3, groups=2, dilation_rate=2)),
    "a causal convolution": (_SEQUENCE, lambda: layers.Conv1D(3, 2, padding="causal")),
    "a transposed convolution": (_VOLUME, lambda: layers.Conv3DTranspose(3, 3, 2, "same")),
    "an output padding": (_IMAGE, lambda: layers.Conv2DTranspose(4, 3, 2, "same", output_padding=1)),
    "a separable convolution": (_IMAGE, lambda: layers.SeparableConv2D(4, 3, depth_multiplier=2)),
    "a pooling": (_VOLUME, lambda: layers.AveragePooling3D(2, padding="same")),
    "a normalization over a list of one axis": (_IMAGE, lambda: layers.BatchNormalization(axis=[1])),
    "a normalization over two axes": (_IMAGE, lambda: layers.LayerNormalization(axis=[1, 2])),
    "an LSTM with a hard sigmoid": (_SEQUENCE, lambda: layers.LSTM(3, recurrent_activation="hard_sigmoid")),
    "a GRU that resets before": (_SEQUENCE, lambda: layers.GRU(3, reset_after=False)),
    "a GRU backwards": (_SEQUENCE, lambda: layers.GRU(3, go_backwards=True, return_sequences=True)),
    "two directions": (_SEQUENCE, lambda: layers.Bidirectional(layers.LSTM(3), merge_mode="ave")),
    "two layers of two directions": (
        _SEQUENCE,
        lambda: layers.Bidirectional(layers.LSTM(3), backward_layer=layers.GRU(3, go_backwards=True)),
    ),
    "stacked cells": (_SEQUENCE, lambda: layers.RNN([layers.LSTMCell(3), layers.GRUCell(2)])),
    "a convolutional LSTM": ((3, 6, 6, 2), lambda: layers.ConvLSTM2D(2, 3, padding="same")),
    "a model at every step": (
        _SEQUENCE,
        lambda: layers.TimeDistributed(tf_keras.Sequential([layers.Dense(3, input_shape=(4,))])),
    ),
    "an einsum": (_SEQUENCE, lambda: layers.EinsumDense("abc,cd->abd", (None, 5), bias_axes="d")),
    "layers of training": (_SEQUENCE, lambda: layers.SpatialDropout1D(0.5)),
    "augmentation": (_IMAGE, lambda: layers.RandomRotation(0.2)),
    "a crop that resizes": (_IMAGE, lambda: layers.RandomCrop(5, 5)),
    "constants of a normalization": (
        _SEQUENCE,
        lambda: layers.Normalization(mean=[1.0, 2, 3, 4], variance=[1.0, 2, 3, 4]),
    ),
    "a lambda of TensorFlow": (_SEQUENCE, lambda: layers.Lambda(lambda t: tf.nn.l2_normalize(t, -1))),
    "a name with a slash": (_VECTOR, lambda: layers.Dense(3, name="block/dense")),
}

_KEPT: dict[str, tuple[tuple[int, ...], Callable[[], Any]]] = {
    "a layer that Keras 3 dropped": (_SEQUENCE, lambda: layers.LocallyConnected1D(3, 3)),
    "time before batch": (_SEQUENCE, lambda: layers.LSTM(3, time_major=True, return_sequences=True)),
    "a normalization over an area": (_IMAGE, lambda: layers.BatchNormalization(axis=[1, 2])),
    "a filter that Keras 3 dropped": (_IMAGE, lambda: layers.Resizing(5, 7, interpolation="gaussian")),
    "the author's layer": (_VECTOR, lambda: _Own()),
}


class _Own(layers.Layer):
    def build(self, shape: Any) -> None:
        self.w = self.add_weight("w", (shape[-1], 2))

    def call(self, inputs: Any) -> Any:
        return tf.linalg.matmul(inputs, self.w)


def _assert_equal(old: Any, new: Any, *arguments: Any) -> None:
    wanted, given = old(*arguments, training=False), new(*arguments, training=False)
    for expected, got in zip(tf.nest.flatten(wanted), keras.tree.flatten(given), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("case", [pytest.param(case, id=case) for case in _EQUAL])
def test_a_layer_becomes_the_equal_layer_of_keras_3(case: str, model_of: ModelOf, kept: Kept) -> None:
    shape, layer = _EQUAL[case]
    old = model_of(shape, layer())
    source: Any = sources.load(old)
    assert not kept(source.model)
    _assert_equal(old, source.model, np.random.default_rng(2).standard_normal((2, *shape)).astype(np.float32))


@pytest.mark.parametrize("case", [pytest.param(case, id=case) for case in _KEPT])
def test_a_layer_without_an_equal_is_kept_behind_a_bridge(case: str, model_of: ModelOf, kept: Kept) -> None:
    shape, layer = _KEPT[case]
    old = model_of(shape, layer())
    source: Any = sources.load(old)
    assert len(kept(source.model)) == 1
    _assert_equal(old, source.model, np.random.default_rng(2).standard_normal((2, *shape)).astype(np.float32))


def test_the_hard_sigmoid_keeps_the_slope_of_keras_2() -> None:
    x = np.linspace(-4, 4, 17, dtype=np.float32)
    np.testing.assert_allclose(
        keras2_hard_sigmoid(x), tf_keras.activations.hard_sigmoid(tf.constant(x)), rtol=1e-6
    )


def test_an_lstm_with_the_old_hard_sigmoid_is_one_operator(
    equal_to_original: Callable[..., Any], model_of: ModelOf
) -> None:
    layer = layers.Bidirectional(layers.LSTM(3, recurrent_activation="hard_sigmoid"))
    x = np.random.default_rng(0).standard_normal((2, *_SEQUENCE)).astype(np.float32)
    graph = equal_to_original(sources.load(model_of(_SEQUENCE, layer)), {"x": x})
    assert "LSTM" in {node.op_type for node in graph.graph}


def test_a_kept_layer_without_a_mask_lowers(equal_to_original: Callable[..., Any], model_of: ModelOf) -> None:
    shape, layer = _KEPT["time before batch"]
    x = np.random.default_rng(0).standard_normal((2, *shape)).astype(np.float32)
    equal_to_original(sources.load(model_of(shape, layer())), {"x": x})


@pytest.mark.parametrize("implementation", [1, 2, 3])
def test_a_locally_connected_layer_lowers_however_it_is_implemented(
    implementation: int, equal_to_original: Callable[..., Any], model_of: ModelOf
) -> None:
    layer = layers.LocallyConnected2D(2, (3, 2), implementation=implementation)
    source = sources.load(model_of(_IMAGE, layer))
    equal_to_original(source, {"x": np.random.default_rng(0).random((2, *_IMAGE), np.float32)})


@pytest.mark.parametrize(
    "make", [tf_keras.Sequential, lambda layers: tf_keras.Model(layers[0], layers[1](layers[0]))]
)
def test_a_result_is_of_the_type_that_keras_2_gives_it(
    make: Callable[[Any], Any], equal_to_original: Callable[..., Any], kept: Kept
) -> None:
    model = make([tf_keras.Input((3,), name="x"), layers.Discretization(bin_boundaries=[-1.0, 0.5])])
    x = np.random.default_rng(0).standard_normal((2, 3)).astype(np.float32)
    source: Any = sources.load(model)
    assert not kept(source.model)
    graph = equal_to_original(source, {"x": x})
    assert graph.graph.outputs[0].dtype == ir.DataType.INT64


class Standardized(layers.Conv2D):
    """A convolution in groups of one's own (as NFNet's), which Keras 2 has XLA compile on a CPU."""

    def convolution_op(self, inputs: Any, kernel: Any) -> Any:
        return super().convolution_op(inputs, kernel - tf.reduce_mean(kernel, (0, 1, 2)))


def test_a_convolution_of_ones_own_may_have_groups(
    equal_to_original: Callable[..., Any], model_of: ModelOf
) -> None:
    x = np.random.default_rng(0).standard_normal((2, *_IMAGE)).astype(np.float32)
    equal_to_original(sources.load(model_of(_IMAGE, Standardized(4, 3, groups=2))), {"x": x})


def test_lists_of_tensors_are_packed_as_tensorflow_packs_them(equal_to_original: Callable[..., Any]) -> None:
    inputs = tf_keras.Input(_SEQUENCE, name="x")
    half, full = layers.Dense(4, "tanh")(inputs), layers.Dense(4)(inputs)
    old = tf_keras.Model(inputs, tf.reduce_sum([half, full], axis=0) * tf.reduce_max([full, half], axis=0))
    x = np.random.default_rng(0).standard_normal((2, *_SEQUENCE)).astype(np.float32)
    equal_to_original(sources.load(old), {"x": x})


def test_a_vector_is_sliced_by_one_slice(equal_to_original: Callable[..., Any]) -> None:
    inputs = tf_keras.Input((None, None, 4), name="x")
    small = layers.AveragePooling2D(2)(inputs)
    old = tf_keras.Model(inputs, inputs + tf.image.resize(small, tf.shape(inputs)[1:-1], "nearest"))
    x = np.random.default_rng(0).standard_normal((2, *_IMAGE)).astype(np.float32)
    equal_to_original(sources.load(old), {"x": x})


class _PassesTraining(layers.Layer):
    def __call__(self, inputs: Any, training: Any = None, **rest: Any) -> Any:
        return super().__call__(inputs, training, **rest)

    def call(self, inputs: Any, training: Any = None) -> Any:
        return tf.zeros_like(inputs) if training else 2.0 * inputs


def test_training_may_be_passed_by_its_place(
    equal_to_original: Callable[..., Any], model_of: ModelOf
) -> None:
    x = np.random.default_rng(0).standard_normal((2, *_SEQUENCE)).astype(np.float32)
    equal_to_original(sources.load(model_of(_SEQUENCE, _PassesTraining())), {"x": x})


class _Merges(layers.Layer):
    """Pairs of steps side by side: TensorFlow knows their number, tf2onnx loses it in the product."""

    def __init__(self) -> None:
        super().__init__()
        self.dense = layers.Dense(3)

    def call(self, inputs: Any) -> Any:
        _, steps, width = inputs.shape
        return self.dense(tf.reshape(inputs, (-1, steps // 2, 2 * width)))


def test_sizes_that_tensorflow_knows_are_kept(equal_to_original: Callable[..., Any]) -> None:
    inputs = tf_keras.Input((8, 2), name="x")
    old = tf_keras.Model(inputs, _Merges()(_Merges()(inputs)))
    x = np.random.default_rng(0).standard_normal((2, 8, 2)).astype(np.float32)
    equal_to_original(sources.load(old), {"x": x})


def test_functions_of_tensorflow_in_a_graph_of_layers(
    equal_to_original: Callable[..., Any], kept: Kept
) -> None:
    a = tf_keras.Input((8, 4), name="a")
    outputs = [
        a[:, 0],
        a[..., 1:3] * 2.0 - 1.0,
        a[:, tf.newaxis, ::2],
        tf.gather(a, [0, 2], axis=1),
        tf.one_hot(tf.argmax(a, -1), 4),
        tf.split(a, 2, axis=-1)[0],
        tf.reduce_max(a, axis=-1, keepdims=True),
        a @ tf.transpose(a, [0, 2, 1]),
        tf.reshape(a, [tf.shape(a)[0] * 2, -1]),
        tf.cast(a > 0, tf.float32),
    ]
    source: Any = sources.load(tf_keras.Model(a, outputs))
    assert not kept(source.model)
    equal_to_original(source, {"a": np.random.default_rng(0).standard_normal((3, 8, 4)).astype(np.float32)})


@pytest.mark.parametrize("policy", ["float32", "mixed_float16"])
def test_constant_tensors_of_an_old_file_are_tensors(
    policy: str, tmp_path: Path, equal_to_original: Callable[..., Any]
) -> None:
    x = tf_keras.Input((2, 3), name="x")
    hidden = layers.Dense(3, dtype=policy)(x)
    positions = tf.constant([[1.0, 2, 3], [4, 5, 6]], hidden.dtype)
    both = tf.concat([hidden + positions, tf.maximum(hidden, positions)], -1)
    tf_keras.Model(x, tf.stack([both, both * tf.cast([[9.0] * 6] * 2, hidden.dtype)], 1)).save(
        tmp_path / "m.h5"
    )
    source = sources.load(tmp_path / "m.h5")
    equal_to_original(source, {"x": np.ones((2, 2, 3), np.float32)}, 1e-4 if policy == "float32" else 2e-2)


def test_dictionaries_keep_their_keys(equal_to_original: Callable[..., Any]) -> None:
    a, b = tf_keras.Input((3,), name="a"), tf_keras.Input((3,), name="b")
    old = tf_keras.Model(
        {"left": a, "right": b}, {"sum": layers.Add()([a, b]), "difference": layers.Subtract()([a, b])}
    )
    inputs = {name: np.ones((2, 3), np.float32) * i for i, name in enumerate(["left", "right"])}
    graph = equal_to_original(sources.load(old), inputs)
    assert {value.name for value in graph.graph.inputs} == {"left", "right"}
    assert {value.name for value in graph.graph.outputs} == {"sum", "difference"}


@pytest.mark.parametrize("policy", ["mixed_float16", "float64"])
def test_dtype_policies_are_kept(policy: str, model_of: ModelOf) -> None:
    tf_keras.mixed_precision.set_global_policy(policy)
    try:
        old = model_of(_VECTOR, layers.Dense(3))
    finally:
        tf_keras.mixed_precision.set_global_policy("float32")
    source: Any = sources.load(old)
    assert source.model.layers[-1].dtype_policy.name == policy


def test_a_sparse_input_is_a_dense_one(equal_to_original: Callable[..., Any]) -> None:
    inputs = tf_keras.Input((6,), sparse=True, name="x")
    equal_to_original(
        sources.load(tf_keras.Model(inputs, layers.Dense(2)(inputs))), {"x": np.eye(6, dtype=np.float32)}
    )


def test_a_ragged_input_is_refused() -> None:
    inputs = tf_keras.Input((None,), dtype="int32", ragged=True, name="rows")
    with pytest.raises(ConversionError, match="the input 'rows' is a ragged tensor"):
        sources.load(tf_keras.Model(inputs, layers.Embedding(9, 3)(inputs)))


@pytest.mark.parametrize("name", ["Lambda", "Softmax"])
def test_an_authors_layer_called_like_one_of_keras_stays_itself(
    name: str, tmp_path: Path, equal_to_original: Callable[..., Any]
) -> None:
    layer = type(name, (layers.Layer,), {"call": lambda _self, x: x * 3.0})(name="own")
    model = tf_keras.Sequential([tf_keras.Input((4,), name="x"), layers.Dense(2), layer])
    model.save(tmp_path / "saved", save_format="tf")
    equal_to_original(sources.load(tmp_path / "saved"), {"x": np.ones((2, 4), np.float32)})


def test_an_error_calls_an_old_layer_by_its_own_class() -> None:
    layer = type("Gamma", (layers.Layer,), {"call": lambda _self, x: tf.math.igamma(x, x)})(name="own")
    source = sources.load(tf_keras.Sequential([tf_keras.Input((4,)), layer]))
    with pytest.raises(
        ConversionError, match=r"layer 'own' \(Gamma\): no ONNX operator stands for .* Igamma"
    ):
        source.lower(21)


def test_a_result_without_a_rank_is_converted_within_and_refused_at_the_end(
    equal_to_original: Callable[..., Any],
) -> None:
    inputs = layers.Input((4, 1), name="x")
    squeezed = layers.Lambda(tf.squeeze, name="dropped")(inputs)
    within = tf_keras.Model(inputs, tf.reshape(squeezed, [-1, 4]) * 2.0)
    equal_to_original(sources.load(within), {"x": np.ones((3, 4, 1), np.float32)})
    with pytest.raises(
        ConversionError, match=r"layer 'dropped' \(Lambda\): the rank of its result is unknown"
    ):
        sources.load(tf_keras.Model(inputs, squeezed))


def test_stacked_cells_keep_their_states_from_call_to_call(kept: Kept) -> None:
    cells = [layers.LSTMCell(3), layers.GRUCell(2)]
    old = tf_keras.Sequential([tf_keras.Input(batch_shape=(2, 4, 3)), layers.RNN(cells, stateful=True)])
    source: Any = sources.load(old)
    assert not kept(source.model)
    x = np.random.default_rng(0).standard_normal((2, 4, 3)).astype(np.float32)
    old.reset_states()
    for _ in range(2):
        _assert_equal(old, source.model, x)
