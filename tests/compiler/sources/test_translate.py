"""Models of Keras 2 become equal models of Keras 3, layer by layer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import onnx_ir as ir
import pytest
import tensorflow as tf
import tf_keras
from tf_keras import layers

from kerve.compiler import sources
from kerve.compiler.activations import keras2_hard_sigmoid
from kerve.compiler.errors import ConversionError, LoadError
from kerve.compiler.sources.keras2.bridges import OldLayer

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


def _model(shape: tuple[int, ...], layer: Any) -> tf_keras.Model:
    inputs = tf_keras.Input(shape, name="x")
    model = tf_keras.Model(inputs, layer(inputs))
    rng = np.random.default_rng(1)
    model.set_weights(
        [w + 0.1 * np.abs(rng.standard_normal(w.shape)) if w.shape else w for w in model.get_weights()]
    )
    return model


def _assert_equal(old: Any, new: Any, *arguments: Any) -> None:
    wanted, given = old(*arguments, training=False), new(*arguments, training=False)
    for expected, got in zip(tf.nest.flatten(wanted), keras.tree.flatten(given), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


def _kept(model: keras.Model) -> list[str]:
    return [layer.name for layer in model._flatten_layers() if isinstance(layer, OldLayer)]


@pytest.mark.parametrize("case", [pytest.param(case, id=case) for case in _EQUAL])
def test_a_layer_becomes_the_equal_layer_of_keras_3(case: str) -> None:
    shape, layer = _EQUAL[case]
    old = _model(shape, layer())
    source: Any = sources.load(old)
    assert not _kept(source.model)
    _assert_equal(old, source.model, np.random.default_rng(2).standard_normal((2, *shape)).astype(np.float32))


@pytest.mark.parametrize("case", [pytest.param(case, id=case) for case in _KEPT])
def test_a_layer_without_an_equal_is_kept_behind_a_bridge(case: str) -> None:
    shape, layer = _KEPT[case]
    old = _model(shape, layer())
    source: Any = sources.load(old)
    assert len(_kept(source.model)) == 1
    _assert_equal(old, source.model, np.random.default_rng(2).standard_normal((2, *shape)).astype(np.float32))


def test_the_hard_sigmoid_keeps_the_slope_of_keras_2() -> None:
    x = np.linspace(-4, 4, 17, dtype=np.float32)
    np.testing.assert_allclose(
        keras2_hard_sigmoid(x), tf_keras.activations.hard_sigmoid(tf.constant(x)), rtol=1e-6
    )


def test_an_lstm_with_the_old_hard_sigmoid_is_one_operator(
    equal_to_original: Callable[..., Any],
) -> None:
    layer = layers.Bidirectional(layers.LSTM(3, recurrent_activation="hard_sigmoid"))
    x = np.random.default_rng(0).standard_normal((2, *_SEQUENCE)).astype(np.float32)
    graph = equal_to_original(sources.load(_model(_SEQUENCE, layer)), {"x": x})
    assert "LSTM" in {node.op_type for node in graph.graph}


def test_a_kept_layer_without_a_mask_lowers(equal_to_original: Callable[..., Any]) -> None:
    shape, layer = _KEPT["time before batch"]
    x = np.random.default_rng(0).standard_normal((2, *shape)).astype(np.float32)
    equal_to_original(sources.load(_model(shape, layer())), {"x": x})


@pytest.mark.parametrize(
    "make", [tf_keras.Sequential, lambda layers: tf_keras.Model(layers[0], layers[1](layers[0]))]
)
def test_a_result_is_of_the_type_that_keras_2_gives_it(
    make: Callable[[Any], Any], equal_to_original: Callable[..., Any]
) -> None:
    model = make([tf_keras.Input((3,), name="x"), layers.Discretization(bin_boundaries=[-1.0, 0.5])])
    x = np.random.default_rng(0).standard_normal((2, 3)).astype(np.float32)
    source: Any = sources.load(model)
    assert not _kept(source.model)
    graph = equal_to_original(source, {"x": x})
    assert graph.graph.outputs[0].dtype == ir.DataType.INT64


def test_masks_go_through_a_translated_model(equal_to_original: Callable[..., Any]) -> None:
    tokens = tf_keras.Input((None,), dtype="int32", name="tokens")
    x = layers.Embedding(9, 3, mask_zero=True)(tokens)
    x = _PassesMask()(layers.Concatenate()([layers.LSTM(3, return_sequences=True)(x), x]))
    old = tf_keras.Model(tokens, layers.GRU(2)(x))
    equal_to_original(
        sources.load(old), {"tokens": np.array([[1, 2, 3, 0, 0], [4, 0, 0, 0, 0], [5, 6, 7, 8, 1]], np.int32)}
    )


@pytest.mark.parametrize("masked", [(True, False), (False, True), (True, True)])
@pytest.mark.parametrize(
    "layer", ["Add", "Average", "Concatenate", "Maximum", "Minimum", "Multiply", "Subtract"]
)
def test_merged_tensors_have_the_masks_and_values_of_keras_2(
    layer: str, masked: tuple[bool, bool], equal_to_original: Callable[..., Any]
) -> None:
    inputs = [tf_keras.Input(_SEQUENCE, name=name) for name in "ab"]
    tensors = [layers.Masking()(x) if each else x for x, each in zip(inputs, masked, strict=True)]
    merged = getattr(layers, layer)()(tensors)
    source: Any = sources.load(tf_keras.Model(inputs, [merged, layers.LSTM(2)(merged)]))
    assert not _kept(source.model)
    equal_to_original(source, _padded_in_various_places())


@pytest.mark.parametrize(
    "layer",
    [layers.Identity(), layers.Rescaling(2.0), layers.Normalization(mean=[0.0] * 4, variance=[1.0] * 4)],
)
def test_a_layer_that_ends_masks_in_keras_2_ends_them(
    layer: Any, equal_to_original: Callable[..., Any]
) -> None:
    inputs = tf_keras.Input(_SEQUENCE, name="a")
    model = tf_keras.Model(inputs, layers.LSTM(2)(layer(layers.Masking()(inputs))))
    source: Any = sources.load(model)
    assert not _kept(source.model)
    equal_to_original(source, {"a": _padded_in_various_places()["a"]})


def _padded_in_various_places() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal((3, *_SEQUENCE)).astype(np.float32) for _ in range(2))
    a[0, 4:] = a[1, :2] = b[0, 3:] = b[2, 2] = 0
    return {"a": a, "b": b}


class _PassesMask(layers.Layer):
    supports_masking = True

    def call(self, inputs: Any, mask: Any = None) -> Any:
        return inputs if mask is None else tf.where(mask[..., None], inputs, tf.ones_like(inputs))


class _Insists(layers.Layer):
    """A mean over time of what is not masked, which takes nothing else (as DeepCTR's)."""

    def call(self, inputs: Any, mask: Any = None) -> Any:
        if mask is None:
            raise ValueError("the input must support masking")
        kept = tf.cast(mask, inputs.dtype)[..., None]
        return tf.reduce_sum(inputs * kept, 1) / tf.reduce_sum(kept, 1)


class Encoder(layers.Layer):
    """A layer of the author's, of which the attention finds the masks on the tensors that it is given."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.attention = layers.MultiHeadAttention(num_heads=2, key_dim=3)

    def call(self, inputs: Any, others: Any = None, mask: Any = None) -> Any:
        mask = None if mask is None else mask[:, tf.newaxis, :]
        return self.attention(inputs, inputs if others is None else others, attention_mask=mask)


def test_attention_within_a_layer_of_the_authors_is_masked(equal_to_original: Callable[..., Any]) -> None:
    first, second = (tf_keras.Input((None,), dtype="int32", name=name) for name in ("first", "second"))
    rows, others = (layers.Embedding(9, 4, mask_zero=True)(ids) for ids in (first, second))
    model = tf_keras.Model([first, second], [Encoder()(rows), Encoder()(rows, others)])
    ids = np.array([[1, 2, 0, 4, 0], [0, 3, 0, 0, 8]], np.int32)
    equal_to_original(sources.load(model), {"first": ids, "second": ids[:, ::-1].copy()})


class Tokens(layers.Layer):
    """Rows by their ids, of which 0 is masked (as in Deep Learning with Python)."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.table = layers.Embedding(9, 4)

    def call(self, inputs: Any) -> Any:
        return self.table(inputs)

    def compute_mask(self, inputs: Any, mask: Any = None) -> Any:
        return tf.math.not_equal(inputs, 0)


def test_a_mask_of_the_authors_is_of_the_tensor_that_a_layer_is_given(
    equal_to_original: Callable[..., Any],
) -> None:
    ids = tf_keras.Input((None,), dtype="int32", name="ids")
    rows = Tokens()(ids)
    model = tf_keras.Model(ids, [Encoder()(rows), layers.GRU(2)(rows)])
    equal_to_original(sources.load(model), {"ids": np.array([[1, 2, 0, 4, 0], [0, 3, 0, 0, 8]], np.int32)})


def test_a_layer_may_insist_on_a_mask(equal_to_original: Callable[..., Any]) -> None:
    tokens = tf_keras.Input((5,), dtype="int32", name="tokens")
    old = tf_keras.Model(tokens, _Insists()(layers.Embedding(9, 3, mask_zero=True)(tokens)))
    equal_to_original(sources.load(old), {"tokens": np.array([[1, 2, 3, 0, 0], [4, 0, 7, 0, 1]], np.int32)})


class Standardized(layers.Conv2D):
    """A convolution in groups of one's own (as NFNet's), which Keras 2 has XLA compile on a CPU."""

    def convolution_op(self, inputs: Any, kernel: Any) -> Any:
        return super().convolution_op(inputs, kernel - tf.reduce_mean(kernel, (0, 1, 2)))


def test_a_convolution_of_ones_own_may_have_groups(equal_to_original: Callable[..., Any]) -> None:
    x = np.random.default_rng(0).standard_normal((2, *_IMAGE)).astype(np.float32)
    equal_to_original(sources.load(_model(_IMAGE, Standardized(4, 3, groups=2))), {"x": x})


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


def test_training_may_be_passed_by_its_place(equal_to_original: Callable[..., Any]) -> None:
    x = np.random.default_rng(0).standard_normal((2, *_SEQUENCE)).astype(np.float32)
    equal_to_original(sources.load(_model(_SEQUENCE, _PassesTraining())), {"x": x})


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


def test_functions_of_tensorflow_in_a_graph_of_layers(equal_to_original: Callable[..., Any]) -> None:
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
    assert not _kept(source.model)
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


class _Classifier(tf_keras.Model):
    def __init__(self) -> None:
        super().__init__()
        self.hidden = layers.Dense(4, activation="relu")
        self.norm = layers.BatchNormalization()
        self.scores = layers.Dense(3)

    def call(self, inputs: Any, training: bool = False) -> Any:
        return {"scores": self.scores(self.norm(self.hidden(inputs), training=training) * 2.0)}


def test_a_subclassed_model_shows_its_layers_when_its_code_is_a_graph(
    equal_to_original: Callable[..., Any],
) -> None:
    model = _Classifier()
    model(np.ones((2, 5), np.float32))
    source: Any = sources.load(model)
    assert {type(layer) for layer in source.model.layers} >= {
        keras.layers.Dense,
        keras.layers.BatchNormalization,
    }
    equal_to_original(source, {"input_1": np.random.default_rng(0).random((3, 5), np.float32)})


class _Branches(tf_keras.Model):
    def call(self, inputs: Any) -> Any:
        if tf.reduce_sum(inputs) > 0:
            return inputs * 2.0
        return inputs


def test_a_subclassed_model_that_branches_is_converted_as_a_whole(
    equal_to_original: Callable[..., Any],
) -> None:
    model = _Branches()
    model(np.ones((2, 5), np.float32))
    source: Any = sources.load(model)
    assert source.warnings == [
        "converted by TensorFlow as a whole: the code of _Branches is not a graph of layers"
    ]
    for sign in (1, -1):
        equal_to_original(source, {"input_1": np.full((2, 5), sign, np.float32)})


class _Distribution:
    """What tensorflow_probability's layers return: it becomes a tensor when somebody wants one."""

    def __init__(self, mean: Any) -> None:
        self.mean = mean


tf.register_tensor_conversion_function(_Distribution, lambda value, *_, **__: value.mean)


class _Probabilistic(_Branches):
    def call(self, inputs: Any) -> Any:
        return _Distribution(super().call(inputs))


def test_a_distribution_stands_for_its_tensor(equal_to_original: Callable[..., Any]) -> None:
    model = _Probabilistic()
    model(np.ones((2, 5), np.float32))
    equal_to_original(sources.load(model), {"input_1": np.full((2, 5), 3, np.float32)})


class _Output(dict[str, Any]):
    """What models of transformers return: a mapping of their own, of what was computed."""


class _Named(_Branches):
    def call(self, inputs: Any) -> Any:
        return _Output(logits=super().call(inputs), states=(inputs, None), losses=None)


def test_a_mapping_may_be_of_a_class_of_its_own(equal_to_original: Callable[..., Any]) -> None:
    model = _Named()
    model(np.ones((2, 5), np.float32))
    lowered = equal_to_original(sources.load(model), {"input_1": np.full((2, 5), 3, np.float32)})
    assert [value.name for value in lowered.graph.outputs] == ["logits", "states_0"]


def test_a_model_that_was_never_called_says_so() -> None:
    with pytest.raises(LoadError, match="was never called, so its inputs are not known; call it once"):
        sources.load(_Classifier())


@pytest.mark.parametrize("policy", ["mixed_float16", "float64"])
def test_dtype_policies_are_kept(policy: str) -> None:
    tf_keras.mixed_precision.set_global_policy(policy)
    try:
        old = _model(_VECTOR, layers.Dense(3))
    finally:
        tf_keras.mixed_precision.set_global_policy("float32")
    source: Any = sources.load(old)
    assert source.model.layers[-1].dtype_policy.name == policy


def test_an_old_file_is_read_with_layers_written_for_keras_3(
    tmp_path: Any, equal_to_original: Callable[..., Any]
) -> None:
    class Scale(layers.Layer):
        def build(self, shape: Any) -> None:
            self.scale = self.add_weight("scale", (shape[-1],), initializer="ones")

        def call(self, inputs: Any) -> Any:
            return inputs * self.scale

    model = _model(_VECTOR, Scale())
    model.save(tmp_path / "model.h5")
    source: Any = sources.load(tmp_path / "model.h5", custom_objects={"Scale": _Scale})
    assert isinstance(source.model.layers[-1], _Scale)
    x = np.random.default_rng(0).random((3, 6), np.float32)
    np.testing.assert_allclose(source.model(x), model(x), rtol=1e-6)
    equal_to_original(source, {"x": x})


class _Leaking(keras.layers.Layer):
    """A cell, as one wrote it for Keras 2, which takes a constant."""

    def __init__(self, units: int, **config: Any) -> None:
        super().__init__(**config)
        self.units = self.state_size = self.output_size = units

    def build(self, shape: Any) -> None:
        shape = shape[0] if isinstance(shape, list) else shape
        self.kernel = self.add_weight(shape=(shape[-1], self.units), name="kernel")

    def call(self, inputs: Any, states: Any, constants: Any = None) -> Any:
        state = keras.ops.tanh(keras.ops.matmul(inputs, self.kernel) + states[0] * constants[0])
        return state, [state]

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "units": self.units}


def test_a_cell_written_for_keras_3_takes_the_constants_of_an_old_file(
    tmp_path: Any, equal_to_original: Callable[..., Any]
) -> None:
    class Leaking(layers.Layer):
        def __init__(self, units: int, **config: Any) -> None:
            super().__init__(**config)
            self.units = self.state_size = self.output_size = units

        def build(self, shape: Any) -> None:
            shape = shape[0] if isinstance(shape, list) else shape
            self.kernel = self.add_weight("kernel", (shape[-1], self.units))

        def call(self, inputs: Any, states: Any, constants: Any = None) -> Any:
            state = tf.tanh(tf.linalg.matmul(inputs, self.kernel) + states[0] * constants[0])
            return state, [state]

        def get_config(self) -> dict[str, Any]:
            return {**super().get_config(), "units": self.units}

    steps, constant = tf_keras.Input(_SEQUENCE, name="steps"), tf_keras.Input((1,), name="constant")
    model = tf_keras.Model([steps, constant], layers.RNN(Leaking(3))(steps, constants=constant))
    model.save(tmp_path / "model.h5")
    source: Any = sources.load(tmp_path / "model.h5", custom_objects={"Leaking": _Leaking})
    rng = np.random.default_rng(0)
    x = {
        name: rng.random((2, *shape), np.float32)
        for name, shape in (("steps", _SEQUENCE), ("constant", (1,)))
    }
    np.testing.assert_allclose(
        source.original([x["steps"], x["constant"]]), model([x["steps"], x["constant"]])
    )
    equal_to_original(source, x)


def test_a_layer_that_tf_keras_does_not_find_by_its_name_is_read(tmp_path: Any) -> None:
    model = _model(_VECTOR, layers.experimental.RandomFourierFeatures(5, scale=2.0))
    model.save(tmp_path / "model.h5")
    x = np.random.default_rng(0).standard_normal((3, *_VECTOR)).astype(np.float32)
    source: Any = sources.load(tmp_path / "model.h5")
    np.testing.assert_allclose(source.model(x), model(x), rtol=1e-5)


def test_two_directions_repeat_what_is_masked_as_keras_did_by_itself(
    tmp_path: Any, equal_to_original: Callable[..., Any]
) -> None:
    inputs = tf_keras.Input(_SEQUENCE, name="a")
    both = layers.Bidirectional(layers.LSTM(3, return_sequences=True))
    model = tf_keras.Model(inputs, both(layers.Masking()(inputs)))
    model.save(tmp_path / "model.h5")
    with h5py.File(tmp_path / "model.h5", "a") as file:
        file.attrs["keras_version"] = "2.3.1"
    a = _padded_in_various_places()["a"]
    source: Any = sources.load(tmp_path / "model.h5")
    assert not _kept(source.model)
    equal_to_original(source, {"a": a})
    answer = np.asarray(source.original(a))
    np.testing.assert_allclose(answer[0, 4:, :3], np.stack([answer[0, 3, :3]] * 2), rtol=1e-6)
    assert not np.any(np.asarray(model(a))[0, 4:])


def _perceptron(of: Any, builds: bool) -> type:
    """Return a class of either Keras: layers in attributes, in lists, and built by itself or by Keras."""

    class Perceptron(of.Layer):
        def __init__(self, **config: Any) -> None:
            super().__init__(**config)
            self.first = of.Dense(4, name="first")
            self.blocks = [of.Dense(4, name="block")]
            self._kept = {"norm": of.BatchNormalization(name="norm")}

        def call(self, inputs: Any) -> Any:
            return self._kept["norm"](self.blocks[0](self.first(inputs)))

    def build(self: Any, shape: Any) -> None:
        self.first.build(shape)
        self.blocks[0].build((None, 4))
        self._kept["norm"].build((None, 4))

    if builds:
        Perceptron.build = build
    return Perceptron


@pytest.mark.parametrize(
    ("kind", "builds"),
    [
        pytest.param("saved", True, id="a SavedModel of a layer that builds"),
        pytest.param("saved", False, id="a SavedModel of one that Keras builds"),
        pytest.param("checkpoint", True, id="a checkpoint of a layer that builds"),
        pytest.param("checkpoint", False, id="a checkpoint of one that Keras builds"),
        pytest.param("h5", False, id="an HDF5 file of one that Keras builds"),
    ],
)
def test_layers_written_for_keras_3_have_their_weights_from_every_kind_of_file(
    tmp_path: Path, equal_to_original: Callable[..., Any], kind: str, builds: bool
) -> None:
    model = _model(_VECTOR, _perceptron(layers, builds)())
    rng = np.random.default_rng(0)
    model.set_weights([rng.random(each.shape) + 0.5 for each in model.get_weights()])
    (tmp_path / "model.json").write_text(model.to_json())
    path, options = tmp_path / kind, sources.LoadOptions()
    if kind == "checkpoint":
        path.mkdir()
        model.save_weights(path / "weights")
        options = sources.LoadOptions(architecture=str(tmp_path / "model.json"))
    else:
        model.save(path, save_format="h5" if kind == "h5" else "tf")
    source: Any = sources.load(path, options, {"Perceptron": _perceptron(keras.layers, builds)})
    assert type(source.model.layers[-1]).__name__ == "Perceptron"
    x = rng.random((3, 6), np.float32)
    np.testing.assert_allclose(source.model(x), model(x), rtol=1e-5)
    equal_to_original(source, {"x": x})


def test_an_old_file_is_read_with_functions_registered_with_keras_3(
    tmp_path: Any, equal_to_original: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(keras.saving.get_custom_objects(), "authors>double", _double)
    model = _model(_VECTOR, layers.Activation(_double))
    model.layers[-1].activation.__name__ = "authors>double"
    model.save(tmp_path / "model.h5")
    x = np.random.default_rng(0).random((3, 6), np.float32)
    equal_to_original(sources.load(tmp_path / "model.h5"), {"x": x})


def _double(x: Any) -> Any:
    return tf.nn.relu6(x) * 2.0


class _Scale(keras.layers.Layer):
    def build(self, shape: Any) -> None:
        self.scale = self.add_weight(name="scale", shape=(shape[-1],), initializer="zeros")

    def call(self, inputs: Any) -> Any:
        return keras.ops.multiply(inputs, self.scale)


def test_an_old_file_with_a_model_class_of_keras_3_says_what_to_set(tmp_path: Path) -> None:
    class Own(tf_keras.Model):
        def call(self, inputs: Any) -> Any:
            return inputs * 2.0

        def get_config(self) -> dict[str, Any]:
            return {}

    model = Own(name="own")
    model(np.ones((2, 3), np.float32))
    model.save(tmp_path / "own.keras")
    own = type("Own", (keras.Model,), {"call": lambda self, inputs: inputs * 2.0})
    with pytest.raises(LoadError, match=r"the class Own that was given for it of Keras 3; set TF_USE_LEGACY"):
        sources.load(tmp_path / "own.keras", custom_objects={"Own": own})


def test_a_sparse_input_is_a_dense_one(equal_to_original: Callable[..., Any]) -> None:
    inputs = tf_keras.Input((6,), sparse=True, name="x")
    equal_to_original(
        sources.load(tf_keras.Model(inputs, layers.Dense(2)(inputs))), {"x": np.eye(6, dtype=np.float32)}
    )


def test_a_ragged_input_is_refused() -> None:
    inputs = tf_keras.Input((None,), dtype="int32", ragged=True, name="rows")
    with pytest.raises(ConversionError, match="the input 'rows' is a ragged tensor"):
        sources.load(tf_keras.Model(inputs, layers.Embedding(9, 3)(inputs)))


class _Tokens(tf_keras.Model):
    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.scores = layers.Embedding(9, 4), layers.Dense(2)

    def call(self, inputs: dict[str, Any], training: bool = False) -> dict[str, Any]:
        return {"scores": self.scores(tf.reduce_mean(self.embedding(inputs["tokens"]), 1)) + inputs["extra"]}


def test_a_subclassed_model_of_dictionaries_is_read_from_a_saved_model(
    tmp_path: Any, equal_to_original: Callable[..., Any]
) -> None:
    inputs = {"tokens": np.array([[1, 2, 3], [4, 5, 6]], np.int32), "extra": np.ones((2, 2), np.float32)}
    model = _Tokens()
    model.predict(inputs, verbose=0)
    model.save(tmp_path / "saved", save_format="tf")
    graph = equal_to_original(sources.load(tmp_path / "saved"), inputs)
    assert {value.name for value in graph.graph.inputs} == {"tokens", "extra"}


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
    with pytest.raises(ConversionError, match=r"layer 'dropped' \(Lambda\): its result has no known rank"):
        sources.load(tf_keras.Model(inputs, squeezed))
