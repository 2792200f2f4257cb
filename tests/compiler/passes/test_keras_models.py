"""Keras models, lowered and optimised: equal to Keras, with one Transpose at each image."""

from __future__ import annotations

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from collections import Counter
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
from keras import layers, ops

from kerve.compiler.lowering import Lowered, lower
from kerve.compiler.passes import optimize


def _unet(size: int | None) -> Any:
    image = keras.Input((size, size, 3))
    down = layers.BatchNormalization()(layers.Conv2D(8, 3, padding="same", activation="relu")(image))
    deep = layers.Conv2D(16, 3, padding="same")(layers.MaxPooling2D()(down))
    up = layers.Concatenate()([layers.UpSampling2D()(layers.LeakyReLU()(deep)), down])
    up = layers.Conv2DTranspose(4, 3, strides=2, padding="same", activation="relu")(up)
    up = layers.ZeroPadding2D(1)(layers.Cropping2D(1)(up))
    return keras.Model(image, layers.Conv2D(3, 1, activation="softmax")(up))


def _excited() -> Any:
    """Channel attention by Dense, then spatial attention by a mean and a maximum."""
    image = keras.Input((16, 16, 3))
    x = layers.Conv2D(8, 3, padding="same")(image)
    scale = layers.Dense(8, activation="sigmoid")(layers.Dense(2)(layers.GlobalAveragePooling2D()(x)))
    x = x * layers.Reshape((1, 1, 8))(scale)
    both = layers.Concatenate()([ops.mean(x, -1, keepdims=True), ops.max(x, -1, keepdims=True)])
    x = x * layers.Conv2D(1, 7, padding="same", activation="sigmoid")(both)
    return keras.Model(image, layers.Dense(3)(layers.GlobalMaxPooling2D()(x)))


def _autoencoder() -> Any:
    image = keras.Input((16, 16, 1))
    x = layers.Conv2D(8, 3, strides=2, padding="same", activation="relu")(image)
    code = layers.Dense(6)(layers.Flatten()(x))
    x = layers.Reshape((8, 8, 4))(layers.Dense(8 * 8 * 4, activation="relu")(code))
    x = layers.Conv2DTranspose(1, 3, strides=2, padding="same", activation="sigmoid")(x)
    return keras.Model(image, [code, x])


def _wavenet() -> Any:
    sound = keras.Input((None, 4))
    x = layers.Conv1D(8, 1)(sound)
    for rate in (1, 2, 4):
        gates = [
            layers.Conv1D(8, 2, padding="causal", dilation_rate=rate, activation=activation)(x)
            for activation in ("tanh", "sigmoid")
        ]
        x = layers.Add()([x, layers.Conv1D(8, 1)(layers.Multiply()(gates))])
    return keras.Model(sound, layers.Conv1D(2, 1, activation="softmax")(x))


def _recurrent() -> Any:
    sequence = keras.Input((12, 6))
    x = layers.BatchNormalization()(layers.LSTM(8, return_sequences=True)(sequence))
    x = layers.BatchNormalization()(layers.Bidirectional(layers.GRU(5, return_sequences=True))(x))
    return keras.Model(sequence, layers.Dense(2)(layers.LSTM(4)(x)))


def _reader_of_lines() -> Any:
    image = keras.Input((32, 16, 1))
    x = layers.MaxPooling2D()(layers.Conv2D(8, 3, padding="same", activation="relu")(image))
    x = layers.GRU(8, return_sequences=True)(layers.Reshape((16, 64))(layers.BatchNormalization()(x)))
    return keras.Model(image, layers.Dense(10, activation="softmax")(x))


def _text() -> Any:
    words = keras.Input((30,), dtype="int32")
    x = layers.Embedding(50, 8)(words)
    grams = [layers.GlobalMaxPooling1D()(layers.Conv1D(4, size, activation="relu")(x)) for size in (2, 3)]
    return keras.Model(words, layers.Dense(1)(layers.Concatenate()(grams)))


def _voxels() -> Any:
    volume = keras.Input((8, 8, 8, 2))
    x = layers.BatchNormalization()(layers.Conv3D(4, 3, padding="same", activation="relu")(volume))
    x = layers.UpSampling3D()(layers.MaxPooling3D()(x))
    return keras.Model(volume, layers.Dense(2)(layers.Flatten()(x)))


def _permuted() -> Any:
    """The author thinks channels first; Keras's layers take them last."""
    image = keras.Input((3, 16, 16))
    x = layers.Conv2D(4, 3, activation="relu")(layers.Permute((2, 3, 1))(image))
    return keras.Model(image, layers.Permute((3, 1, 2))(layers.Dense(5, activation="gelu")(x)))


def _frames() -> Any:
    video = keras.Input((5, 16, 16, 3))
    x = layers.TimeDistributed(layers.Conv2D(4, 3, activation="relu"))(video)
    x = layers.TimeDistributed(layers.MaxPooling2D())(layers.TimeDistributed(layers.BatchNormalization())(x))
    return keras.Model(video, layers.Dense(2)(layers.TimeDistributed(layers.GlobalAveragePooling2D())(x)))


def _several() -> Any:
    image, facts = keras.Input((16, 16, 3), name="image"), keras.Input((4,), name="facts")
    x = layers.Conv2D(8, 3, padding="same", activation="relu")(image) + layers.Reshape((1, 1, 8))(
        layers.Dense(8)(facts)
    )
    mask = ops.argmax(layers.Conv2D(2, 1)(x), axis=-1)
    return keras.Model([image, facts], {"label": layers.Dense(2)(layers.Flatten()(x)), "mask": mask})


def _preprocessed() -> Any:
    image = keras.Input((20, 20, 3))
    x = layers.Normalization(mean=[0.4, 0.5, 0.6], variance=[0.1, 0.2, 0.3])(layers.Rescaling(1 / 255)(image))
    x = layers.SeparableConv2D(4, 3, padding="same")(layers.CenterCrop(14, 14)(layers.RandomFlip()(x)))
    return keras.Model(image, layers.Dense(2)(layers.Flatten()(layers.PReLU(shared_axes=[1, 2])(x))))


def _decoder() -> Any:
    words = keras.Input((12,), dtype="int32")
    x = layers.Embedding(50, 16)(words)
    for _ in range(2):
        normal = layers.RMSNormalization()(x)
        x = x + layers.GroupQueryAttention(4, 4, 2)(normal, normal, use_causal_mask=True)
        normal = layers.RMSNormalization()(x)
        x = x + layers.Dense(16)(layers.Dense(24, activation="silu")(normal) * layers.Dense(24)(normal))
    return keras.Model(words, layers.Dense(50)(layers.RMSNormalization()(x)))


def _enlarged() -> Any:
    """A branch crops the image of the graph around it, and resizes it with its channels first."""
    image = keras.Input((None, None, 3))
    return keras.Model(image, layers.CenterCrop(20, 24)(image))


MODELS: list[Any] = [
    pytest.param(lambda: _unet(32), 2, id="U-Net"),
    pytest.param(lambda: _unet(None), 2, id="U-Net of open size"),
    pytest.param(_excited, 1, id="channel and spatial attention"),
    pytest.param(_autoencoder, 0, id="autoencoder of one channel"),
    pytest.param(_wavenet, 2, id="WaveNet"),
    pytest.param(_recurrent, 2, id="recurrent layers and normalization"),
    pytest.param(_reader_of_lines, 2, id="convolutions, then a GRU"),
    pytest.param(_text, 1, id="convolutions over words"),
    pytest.param(_voxels, 1, id="volumes"),
    pytest.param(_permuted, 0, id="channels first by Permute"),
    pytest.param(_frames, 1, id="an image network for each frame"),
    pytest.param(_enlarged, 2, id="a branch that reads from outside"),
    pytest.param(_several, 1, id="several inputs and outputs"),
    pytest.param(_preprocessed, 1, id="preprocessing in the model"),
    pytest.param(_decoder, 8, id="a transformer's decoder"),
    pytest.param(lambda: _application("MobileNetV3Small"), 1, id="MobileNetV3Small"),
    pytest.param(lambda: _application("EfficientNetB0"), 1, id="EfficientNetB0"),
]


def _application(name: str) -> Any:
    return getattr(keras.applications, name)(weights=None, input_shape=(64, 64, 3), classes=10)


@pytest.mark.parametrize(("build", "transposes"), MODELS)
def test_a_model_stays_equal_to_keras_with_one_transpose_at_each_image(
    build: Callable[[], Any], transposes: int
) -> None:
    keras.utils.set_random_seed(3)
    model = build()
    random = np.random.default_rng(0)
    for weight in model.weights:
        name = weight.path.rpartition("/")[2]
        if name in ("gamma", "moving_variance"):
            weight.assign(random.uniform(0.6, 1.4, weight.shape))
        elif name in ("beta", "moving_mean", "bias"):
            weight.assign(random.normal(0, 0.2, weight.shape))
    lowered = lower(model)
    optimize(lowered.model)
    for rows in (1, 3):
        inputs = [_array(random, (rows, *tensor.shape[1:]), tensor.dtype) for tensor in model.inputs]
        expected = keras.tree.flatten(model(inputs if len(inputs) > 1 else inputs[0], training=False))
        for ours, theirs in zip(_run(lowered, inputs), expected, strict=True):
            np.testing.assert_allclose(ours, np.asarray(theirs), rtol=1e-4, atol=1e-5)
    counts = Counter(node.op_type for node in ir.traversal.RecursiveGraphIterator(lowered.model.graph))
    assert counts["Transpose"] <= transposes


def test_products_of_a_transformer_stay_products() -> None:
    """As convolutions they would save a Transpose, and be slower, and unknown to the fusions of a runtime."""
    operators = {node.op_type for node in optimize(lower(_decoder()).model).graph}
    assert "MatMul" in operators
    assert "Conv" not in operators


def _array(random: np.random.Generator, shape: tuple[int | None, ...], dtype: str) -> Any:
    sizes = [16 if size is None else size for size in shape]
    return (random.uniform(0, 40, sizes) if dtype == "int32" else random.normal(size=sizes)).astype(dtype)


def _run(lowered: Lowered, inputs: list[Any]) -> list[Any]:
    graph = ir.serde.serialize_model(lowered.model).SerializeToString()
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    feeds = dict(zip(keras.tree.flatten(lowered.inputs), inputs, strict=True))
    return list(session.run(keras.tree.flatten(lowered.outputs), feeds))
