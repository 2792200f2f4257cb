"""Every precision on many kinds of networks: the file is valid, loads, and answers nearly as float32 does."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from kerve.compiler.precision import PRECISIONS

Inputs = dict[str, np.ndarray]

Lower = Callable[[keras.Model], Any]


def images(rows: int = 24, size: int = 16, channels: int = 3) -> Inputs:
    return {"image": np.random.default_rng(0).standard_normal((rows, size, size, channels), np.float32)}


def residual() -> tuple[keras.Model, Inputs]:
    inputs = layers.Input((16, 16, 3), name="image")
    x = layers.Conv2D(8, 3, padding="same", activation="relu")(inputs)
    for _ in range(2):
        y = layers.Conv2D(8, 3, padding="same", activation="relu")(x)
        x = layers.ReLU()(x + layers.Conv2D(8, 3, padding="same")(y))
    x = layers.MaxPooling2D()(x)
    return keras.Model(inputs, layers.Dense(5)(layers.Flatten()(x))), images()


def squeeze_and_excite() -> tuple[keras.Model, Inputs]:
    inputs = layers.Input((None, None, 3), name="image")
    x = layers.Conv2D(8, 3, strides=2, activation="swish")(inputs)
    gate = layers.GlobalAveragePooling2D(keepdims=True)(x)
    gate = layers.Conv2D(8, 1, activation="sigmoid")(layers.Conv2D(2, 1, activation="swish")(gate))
    x = layers.Conv2D(8, 1)(x * gate)
    return keras.Model(inputs, layers.GlobalAveragePooling2D()(x)), images()


def u_net() -> tuple[keras.Model, Inputs]:
    inputs = layers.Input((16, 16, 3), name="image")
    fine = layers.Conv2D(8, 3, padding="same", activation="relu")(inputs)
    x = layers.Conv2D(16, 3, padding="same", activation="relu")(layers.AveragePooling2D(2)(fine))
    x = layers.UpSampling2D(interpolation="bilinear")(x)
    x = layers.Concatenate()([layers.Conv2DTranspose(8, 3, padding="same")(x), fine])
    return keras.Model(inputs, layers.Conv2D(2, 1, name="mask")(x)), images()


def sequence() -> tuple[keras.Model, Inputs]:
    inputs = layers.Input((None,), dtype="int32", name="ids")
    x = layers.Embedding(50, 16, mask_zero=True)(inputs)
    x = layers.Bidirectional(layers.LSTM(12, return_sequences=True))(x)
    x = layers.GRU(12)(x)
    model = keras.Model(inputs, layers.Dense(4, activation="softmax")(x))
    return model, {"ids": np.random.default_rng(0).integers(1, 50, (24, 9)).astype(np.int32)}


def encoder() -> tuple[keras.Model, Inputs]:
    inputs = layers.Input((None, 16), name="tokens")
    x = layers.Dense(32)(inputs)
    x = layers.LayerNormalization()(x + layers.MultiHeadAttention(2, 16)(x, x))
    x = layers.LayerNormalization()(x + layers.Dense(32)(layers.Dense(64, activation="gelu")(x)))
    model = keras.Model(inputs, layers.Dense(3)(layers.GlobalAveragePooling1D()(x)))
    return model, {"tokens": np.random.default_rng(0).standard_normal((24, 7, 16), np.float32)}


def perceptron() -> tuple[keras.Model, Inputs]:
    a, b = layers.Input((40,), name="a"), layers.Input((3,), name="b")
    x = layers.Dense(64, activation="relu")(layers.Concatenate()([a, b]))
    x = layers.BatchNormalization()(layers.Dense(64, activation="tanh")(x))
    model = keras.Model([a, b], {"left": layers.Dense(1)(x), "right": layers.Dense(2, use_bias=False)(x)})
    rng = np.random.default_rng(0)
    return model, {name: rng.standard_normal((24, size), np.float32) for name, size in (("a", 40), ("b", 3))}


def separable_1d() -> tuple[keras.Model, Inputs]:
    inputs = layers.Input((32, 4), name="signal")
    x = layers.SeparableConv1D(8, 5, activation="leaky_relu")(inputs)
    x = layers.Conv1D(8, 3, dilation_rate=2, groups=4)(x)
    model = keras.Model(inputs, layers.Dense(2)(layers.GlobalMaxPooling1D()(x)))
    return model, {"signal": np.random.default_rng(0).standard_normal((24, 32, 4), np.float32)}


def convolution_alone() -> tuple[keras.Model, Inputs]:
    inputs = layers.Input((16, 16, 3), name="image")
    return keras.Model(inputs, layers.Conv2D(4, 3, name="features")(inputs)), images()


def volumes() -> tuple[keras.Model, Inputs]:
    inputs = layers.Input((6, 6, 6, 1), name="volume")
    x = layers.MaxPooling3D(2)(layers.Conv3D(4, 3, padding="same", activation="relu")(inputs))
    model = keras.Model(inputs, layers.Conv3D(2, 1)(x))
    return model, {"volume": np.random.default_rng(0).standard_normal((24, 6, 6, 6, 1), np.float32)}


NETWORKS = [
    residual,
    squeeze_and_excite,
    u_net,
    sequence,
    encoder,
    perceptron,
    separable_1d,
    convolution_alone,
    volumes,
]


@pytest.fixture(scope="module", params=NETWORKS, ids=lambda build: build.__name__)
def network(request: pytest.FixtureRequest, float32: Lower) -> tuple[Any, Inputs]:
    """Each network in float32, lowered once for all precisions, and inputs of it."""
    keras.utils.set_random_seed(7)
    keras_model, inputs = request.param()
    return float32(keras_model), inputs


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_reduced_model_answers_nearly_as_float32_does(network: tuple[Any, Inputs], precision: str) -> None:
    model, inputs = network
    reduced = model.reduced(precision, **inputs)
    for before, after in zip(
        (*model.model.graph.inputs, *model.model.graph.outputs),
        (*reduced.model.graph.inputs, *reduced.model.graph.outputs),
        strict=True,
    ):
        assert (before.name, before.dtype, before.shape) == (after.name, after.dtype, after.shape)
    for rows in (1, 24):
        given = {name: array[:rows] for name, array in inputs.items()}
        answers = reduced.answer(given)
        for name, want in model.answer(given).items():
            error = np.sqrt(np.square(answers[name] - want).mean() / np.square(want).mean())
            assert error < {"float16": 3e-3, "bfloat16": 1e-2, "int4-weights": 0.3}.get(precision, 0.06), name


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("network", [residual], ids=["residual"], indirect=True)
def test_the_same_model_and_data_give_the_same_bytes(network: tuple[Any, Inputs], precision: str) -> None:
    model, inputs = network
    first = model.reduced(precision, **inputs).path.read_bytes()
    assert model.reduced(precision, **inputs).path.read_bytes() == first


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("network", [encoder], ids=["encoder"], indirect=True)
def test_new_nodes_are_called_after_the_layers_they_belong_to(
    network: tuple[Any, Inputs], precision: str
) -> None:
    model, inputs = network
    reduced = model.reduced(precision, **inputs).model
    known = {node.name for node in model.model.graph}
    layers_known = {node.metadata_props["kerve.layer"] for node in model.model.graph}
    names = [node.name for node in reduced.graph]
    assert len(set(names)) == len(names)
    for node in reduced.graph:
        layer = node.metadata_props["kerve.layer"]
        assert layer in layers_known
        assert node.name in known or node.name.startswith(
            f"{layer}/{node.op_type}" if layer else node.op_type
        )
