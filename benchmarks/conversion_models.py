"""The models of conversion.py: weights are random but seeded, statistics such that outputs vary."""

from collections.abc import Callable

import keras
import numpy as np
from keras import layers

__all__ = ["MODELS", "build", "inputs_for"]

#: name -> (builder, shape of one row; None marks token ids)
MODELS: dict[str, tuple[Callable[[], keras.Model], tuple[int, ...], bool]] = {}


def model(
    name: str, shape: tuple[int, ...], *, ids: bool = False
) -> Callable[[Callable[[], keras.Model]], None]:
    def enter(builder: Callable[[], keras.Model]) -> None:
        MODELS[name] = (builder, shape, ids)

    return enter


def application(name: str, factory: Callable[..., keras.Model]) -> None:
    MODELS[name] = (lambda: factory(weights=None, classifier_activation=None), (224, 224, 3), False)


application("MobileNetV2", keras.applications.MobileNetV2)
application("ResNet50", keras.applications.ResNet50)
application("EfficientNetB0", keras.applications.EfficientNetB0)
application("ConvNeXtTiny", keras.applications.ConvNeXtTiny)
application("NASNetMobile", keras.applications.NASNetMobile)


@model("LSTM", (100, 32))
def lstm() -> keras.Model:
    return keras.Sequential([layers.Input((100, 32)), layers.LSTM(128), layers.Dense(10)])


@model("masked LSTM", (100,), ids=True)
def masked_lstm() -> keras.Model:
    return keras.Sequential(
        [
            layers.Input((100,), dtype="int32"),
            layers.Embedding(1000, 32, mask_zero=True),
            layers.LSTM(128),
            layers.Dense(10),
        ]
    )


@model("GRU", (100, 32))
def gru() -> keras.Model:
    return keras.Sequential([layers.Input((100, 32)), layers.GRU(128), layers.Dense(10)])


def encoder_block(x: keras.KerasTensor, heads: int, width: int, activation: str) -> keras.KerasTensor:
    normal = layers.LayerNormalization(epsilon=1e-6)(x)
    x = x + layers.MultiHeadAttention(heads, width // heads)(normal, normal)
    normal = layers.LayerNormalization(epsilon=1e-6)(x)
    return x + layers.Dense(width)(layers.Dense(4 * width, activation=activation)(normal))


@model("transformer encoder", (128,), ids=True)
def transformer() -> keras.Model:
    ids = keras.Input((128,), dtype="int32")
    x = layers.Embedding(1000, 256)(ids)
    for _ in range(4):
        x = encoder_block(x, 4, 256, "relu")
    return keras.Model(ids, layers.Dense(10)(layers.GlobalAveragePooling1D()(x)))


@model("ViT-like", (96, 96, 3))
def vit() -> keras.Model:
    image = keras.Input((96, 96, 3))
    x = layers.Conv2D(192, 8, strides=8)(image)
    x = layers.Reshape((144, 192))(x)
    for _ in range(4):
        x = encoder_block(x, 3, 192, "gelu")
    x = layers.LayerNormalization(epsilon=1e-6)(x)
    return keras.Model(image, layers.Dense(10)(layers.GlobalAveragePooling1D()(x)))


def build(name: str) -> keras.Model:
    """Return the model; its normalisation statistics are those of one random batch, as after training."""
    keras.utils.set_random_seed(0)
    built = MODELS[name][0]()
    if any(isinstance(layer, layers.BatchNormalization) for layer in built.layers):
        momenta = {
            layer: layer.momentum for layer in built.layers if isinstance(layer, layers.BatchNormalization)
        }
        for layer in momenta:
            layer.momentum = 0.0
        built(inputs_for(name, 4), training=True)
        for layer, momentum in momenta.items():
            layer.momentum = momentum
    return built


def inputs_for(name: str, batch: int) -> np.ndarray:
    """Return a batch of inputs; token ids end in padding of various lengths."""
    _, shape, ids = MODELS[name]
    rng = np.random.default_rng(batch)
    if not ids:
        return rng.standard_normal((batch, *shape), np.float32)
    tokens = rng.integers(1, 1000, (batch, *shape)).astype(np.int32)
    lengths = rng.integers(shape[0] // 2, shape[0] + 1, batch)
    return np.where(np.arange(shape[0]) < lengths[:, None], tokens, 0).astype(np.int32)
